"""From ids to vectors and back: one-hot classes, the embedding matrix, tied output scores."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from tfm.params import Param, normal
from tfm.quantize import Weight, product
from tfm.shapes import Check
from tfm.values import Values

Lookup = Literal["gather", "one_hot"]


def embedding_params(vocab: int, d_model: int) -> Param:
    """A table [V,D] with entries of variance 1/D, so that embedded vectors have norm about 1."""
    Values("embedding_params").counts(vocab=vocab, d_model=d_model)
    return Param((vocab, d_model), ("vocab", "embed"), normal(d_model**-0.5))


def one_hot(ids: jax.Array, vocab: int, dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Class vectors: [...] int → [..., V], 1 at the id and 0 elsewhere; all 0 outside 0..V-1."""
    check = Check("one_hot")
    check.ints("...", ids=ids)
    check.counts(vocab=vocab)
    return jax.nn.one_hot(ids, vocab, dtype=dtype)


def embed(ids: jax.Array, table_VD: jax.Array, method: Lookup = "gather") -> jax.Array:
    """The rows of the table: [...] int → [..., D].

    ``one_hot(ids) @ table`` and ``table[ids]`` are the same numbers exactly: each output is one
    entry times 1 plus zeros, in full precision, which TPUs and GPUs must be asked for. The product
    is the fast path when the vocabulary is sharded over TPU cores; the gather is the fast path
    everywhere else.

    Raises:
      ValueError: an id that the table has no row for. Under ``jit``, where values are not known, it
        is looked up as NaN (gather; a negative one counts from the end) or as zeros (one_hot).
    """
    check = Check("embed")
    check.ints("...", ids=ids)
    check.arrays(("float", "int"), table_VD=table_VD)
    check.choice(get_args(Lookup), method=method)
    check.within(table_VD.shape[0], "the rows of table_VD", ids=ids)
    if method == "one_hot":
        classes = one_hot(ids, table_VD.shape[0], table_VD.dtype)
        return jnp.matmul(classes, table_VD, precision=jax.lax.Precision.HIGHEST)
    return jnp.take(table_VD, ids, axis=0)


def logits(hidden: jax.Array, table_VD: Weight) -> jax.Array:
    """Scores of every class against a (tied) table: [..., D] → [..., V] in float32.

    Tying output and embedding: Press & Wolf 2017; Vaswani 2017, §3.4.
    """
    check = Check("logits")
    check.floats("...D", hidden=hidden)
    check.floats(table_VD=table_VD)
    return product(hidden, table_VD, 1)
