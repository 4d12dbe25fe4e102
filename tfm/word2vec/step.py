"""One update: gradient descent on the few rows of large tables that a batch uses."""

import functools

import jax
import jax.numpy as jnp

from tfm.params import Tree
from tfm.word2vec import model
from tfm.word2vec.huffman import Paths
from tfm.word2vec.model import Batch, Config


def _row_ids(config: Config, tables: Tree, batch: Batch, paths: Paths | None) -> Tree:
    """Returns the ids of the rows that a batch uses of each table, as flat arrays."""
    inputs = model.input_ids(config, batch).reshape(-1)
    targets = model.target_ids(config, batch, paths).reshape(-1)
    shared = model.shared_ids(config, batch, len(tables["input"])).reshape(-1)
    outputs = jnp.concatenate([targets, shared])
    if config.tables == "one":
        return {"input": jnp.concatenate([inputs, outputs])}
    return {"input": inputs, "output": outputs}


def _loss_of_rows(config: Config, batch: Batch, paths: Paths | None, rows: Tree) -> jax.Array:
    """Computes ``model.loss`` from the rows of ``_row_ids``."""
    inputs_BI = model.input_ids(config, batch)
    targets_BGL = model.target_ids(config, batch, paths)
    inputs, outputs = rows["input"], rows.get("output")
    if outputs is None:
        inputs, outputs = inputs[: inputs_BI.size], inputs[inputs_BI.size :]
    targets, shared = outputs[: targets_BGL.size], outputs[targets_BGL.size :]
    width = inputs.shape[-1]
    return model.loss(
        config,
        batch,
        paths,
        inputs.reshape(*inputs_BI.shape, width),
        targets.reshape(*targets_BGL.shape, width),
        shared.reshape(1 if config.objective == "softmax" else len(inputs_BI), -1, width),
    )


def update(
    config: Config,
    tables: Tree,
    batch: Batch,
    paths: Paths | None = None,
    step_scales: Tree | None = None,
) -> Tree:
    """Returns the tables after one step of gradient descent on the rows that a batch uses.

    Every table is read once and then written once, so that XLA updates it in place and the cost
    does not depend on V. A row that is used several times gets the sum of its gradients.

    Args:
      step_scales: factors of the learning rate for each row, [V] for each table; by default 1.
    """
    ids = _row_ids(config, tables, batch, paths)
    rows = _gather(tables, ids)
    gradients = jax.grad(functools.partial(_loss_of_rows, config, batch, paths))(rows)
    rates = {name: batch.learning_rate for name in ids}
    if step_scales is not None:
        scales = _gather(step_scales, ids)
        rates = {name: batch.learning_rate * scale[:, None] for name, scale in scales.items()}
    return {
        name: table.at[ids[name]].add(-rates[name] * gradients[name], mode="promise_in_bounds")
        for name, table in tables.items()
    }


def _gather(tables: Tree, ids: Tree) -> Tree:
    """Reads rows by id, without the bounds check, which would cost a pass over the rows."""
    return {name: tables[name].at[i].get(mode="promise_in_bounds") for name, i in ids.items()}


def updates(
    config: Config,
    tables: Tree,
    batches: Batch,
    paths: Paths | None = None,
    step_scales: Tree | None = None,
) -> Tree:
    """Returns the tables after one ``update`` for each batch, [M,...], in order."""

    def next_update(tables: Tree, batch: Batch) -> tuple[Tree, None]:
        return update(config, tables, batch, paths, step_scales), None

    return jax.lax.scan(next_update, tables, batches)[0]


def loss(config: Config, tables: Tree, batch: Batch, paths: Paths | None = None) -> jax.Array:
    """Computes the loss of a batch divided by its number of centres, [] float32."""
    rows = _gather(tables, _row_ids(config, tables, batch, paths))
    count = jnp.sum(model.centres(config, batch.sentences_BS) != 0)
    return _loss_of_rows(config, batch, paths, rows) / jnp.maximum(count, 1)
