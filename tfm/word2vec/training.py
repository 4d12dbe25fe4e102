"""The loop: batches are cut on the host while the device works on those before."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from tfm import params
from tfm.params import Tree
from tfm.word2vec import corpus, huffman, model, pace, step
from tfm.word2vec.model import Config

_STACK = 64  # batches in one compiled call

Report = Callable[[float, jax.Array], None]


def one_thread() -> None:
    """Keeps XLA to one thread of a CPU, if JAX has not started yet.

    An update is a hundred small operations: more threads cost them more than they give (measured:
    262 µs with one, 352 with two).
    """
    os.environ.setdefault("NPROC", "1")


def train(
    c: Config,
    stream: np.ndarray,
    vocabulary: corpus.Vocabulary,
    report: Report = lambda share, loss: None,
) -> Tree:
    """Learns vectors from a stream of ids; the same seed gives the same vectors.

    Args:
      stream: what ``corpus.write`` gave.
      report: told now and then the share of the work that is done, and the loss a centre.

    Returns:
      The tables: "input" [V,D] holds the vectors; "output" [V,D] those of words to be guessed, or
      of the tree's nodes.

    Raises:
      FloatingPointError: the loss is no number any more.
    """
    tables = params.init(jax.random.key(c.seed), model.declare(c, len(vocabulary.words)))
    paths = huffman.paths(vocabulary.counts_V) if c.objective == "hierarchical" else None
    paces = pace.paces(c, vocabulary.counts_V, paths)
    stacks = corpus.batches(c, stream, vocabulary.counts_V, _STACK)
    loss = None
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, stacks, None)
        while (arrived := coming.result()) is not None:
            coming = pool.submit(next, stacks, None)
            share, batches = arrived
            tables, loss_now = step.updates(c, tables, batches, paths, paces)
            if loss is not None:  # that of the stack before: this one is still at work
                _check(loss, share)
                report(share, loss)
            loss = loss_now
    _check(loss, 1.0)
    report(1.0, loss)
    return jax.block_until_ready(tables)


def _check(loss: jax.Array, share: float) -> None:
    if not np.isfinite(loss):
        raise FloatingPointError(
            f"word vectors: the loss is {float(loss)} after {share:.0%} of the work; "
            "lower the learning rate"
        )
