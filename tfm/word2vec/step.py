"""Gradient descent on the few rows of large tables that a batch touches."""

import functools

import jax
import jax.numpy as jnp

from tfm.params import Tree
from tfm.word2vec import model
from tfm.word2vec.huffman import Paths
from tfm.word2vec.model import Batch, Config


def _touched(c: Config, tables: Tree, batch: Batch, paths: Paths | None) -> Tree:
    """The ids of the rows that a batch needs of each table, flat."""
    read = model.read_ids(c, batch).reshape(-1)
    own = model.guess_ids(c, batch, paths).reshape(-1)
    shared = model.shared_ids(c, batch, len(tables["input"])).reshape(-1)
    met = jnp.concatenate([own, shared])
    if c.tables == "one":
        return {"input": jnp.concatenate([read, met])}
    return {"input": read, "output": met}


def _loss_of_rows(c: Config, batch: Batch, paths: Paths | None, rows: Tree) -> jax.Array:
    """``loss``, given the rows of ``_touched``."""
    read_BI = model.read_ids(c, batch)
    own_BGL = model.guess_ids(c, batch, paths)
    flat, met = rows["input"], rows.get("output")
    if met is None:
        flat, met = flat[: read_BI.size], flat[read_BI.size :]
    own, shared = met[: own_BGL.size], met[own_BGL.size :]
    width = flat.shape[-1]
    return model.loss(
        c,
        batch,
        paths,
        flat.reshape(*read_BI.shape, width),
        own.reshape(*own_BGL.shape, width),
        shared.reshape(1 if c.objective == "softmax" else len(read_BI), -1, width),
    )


def update(
    c: Config, tables: Tree, batch: Batch, paths: Paths | None = None, paces: Tree | None = None
) -> Tree:
    """The tables after one step of gradient descent on the rows that a batch touches.

    Every table is read once and then written once, so that XLA changes it in place: the cost does
    not depend on V. A row that comes up several times gets the sum of its gradients.

    Args:
      paces: what each row's step is multiplied by, [V] a table; by default 1.
    """
    ids = _touched(c, tables, batch, paths)
    rows = _gather(tables, ids)
    slopes = jax.grad(functools.partial(_loss_of_rows, c, batch, paths))(rows)
    rates = {name: batch.rate for name in ids}
    if paces is not None:
        rates = {name: batch.rate * pace[:, None] for name, pace in _gather(paces, ids).items()}
    return {
        name: table.at[ids[name]].add(-rates[name] * slopes[name], mode="promise_in_bounds")
        for name, table in tables.items()
    }


def _gather(tables: Tree, ids: Tree) -> Tree:
    """Rows by id. The ids are our own: a check of their range would cost a pass over the rows."""
    return {name: tables[name].at[i].get(mode="promise_in_bounds") for name, i in ids.items()}


def updates(
    c: Config, tables: Tree, batches: Batch, paths: Paths | None = None, paces: Tree | None = None
) -> Tree:
    """``update`` by one batch after the other, [M,...] each."""
    return jax.lax.scan(lambda t, b: (update(c, t, b, paths, paces), None), tables, batches)[0]


def loss(c: Config, tables: Tree, batch: Batch, paths: Paths | None = None) -> jax.Array:
    """A batch's loss a centre, [] float32."""
    rows = _gather(tables, _touched(c, tables, batch, paths))
    count = jnp.sum(model.centres(c, batch.sentences_BS) != 0)
    return _loss_of_rows(c, batch, paths, rows) / jnp.maximum(count, 1)
