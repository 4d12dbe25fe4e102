"""One training step: a pure function of the training state and a batch."""

import functools
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax

from tfm import config, params, transformer
from tfm.params import Tree
from tfm.sharding import NO_MESH, Layout
from tfm.training import loss
from tfm.transformer import Batch


@flax.struct.dataclass
class State:
    """What an update changes; a run also needs its config and its position in the data.

    Attributes:
      step: updates made so far, skipped ones included.
      params: float32 weights.
      optimizer: optax's state.
      average: exponential moving average of the weights, or None.
      bad_steps: the number of most recent updates in a row that were skipped.
    """

    step: jax.Array
    params: Tree
    optimizer: Tree
    average: Tree | None
    bad_steps: jax.Array

    @property
    def weights(self) -> Tree:
        """The weights to translate with: the average if there is one."""
        return self.params if self.average is None else self.average


class Metrics(NamedTuple):
    """Metrics of one update; float32 scalars.

    Attributes:
      loss, nll, correct: means over target tokens (nats, nats, fraction).
      target_tokens, source_tokens: counts, eos included, padding excluded.
      gradient_norm: before clipping.
      bad_steps: updates in a row, up to this one, that were skipped because the loss or a gradient
        was not finite; 0 if this one was not skipped.
    """

    loss: jax.Array
    nll: jax.Array
    correct: jax.Array
    target_tokens: jax.Array
    source_tokens: jax.Array
    gradient_norm: jax.Array
    bad_steps: jax.Array


def init_state(experiment: config.Config, optimizer: optax.GradientTransformation) -> State:
    """The state before the first update; the parameters depend on ``train.seed`` alone."""
    key = jax.random.key(experiment.train.seed)
    weights = params.init(key, transformer.declare(experiment.model))
    return State(
        step=jnp.zeros((), jnp.int32),
        params=weights,
        optimizer=optimizer.init(weights),
        average=jax.tree.map(jnp.copy, weights) if experiment.train.ema else None,
        bad_steps=jnp.zeros((), jnp.int32),
    )


def abstract_state(
    experiment: config.Config, optimizer: optax.GradientTransformation, layout: Layout = NO_MESH
) -> State:
    """Shapes, dtypes and shardings of a state; statistics are sharded like their weights.

    Raises:
      ValueError: a size of the model is not a multiple of its mesh axes.
    """
    _check_vocabularies(experiment, layout.axis_size("vocab"))
    state = jax.eval_shape(lambda: init_state(experiment, optimizer))
    return layout.abstract_like(state, transformer.declare(experiment.model))


def _check_vocabularies(experiment: config.Config, shards: int) -> None:
    """Tokenizers may have fewer pieces than configured, so the advice names their setting."""
    for side in ("source", "target"):
        size = getattr(experiment.model, f"{side}_vocab")
        if size % shards:
            field = f"tokenizer.{'source' if experiment.tokenizer.joint else side}_size"
            less = size // shards * shards
            raise ValueError(
                f"model.{side}_vocab {size}: not a multiple of mesh.tensor {shards}; in a new "
                f"folder, set {field} to {less}, or to {less + shards} if the text has so many "
                "pieces"
            )


def abstract_batch(experiment: config.Config, layout: Layout = NO_MESH) -> Batch:
    """Shapes, dtypes and shardings of a batch.

    Raises:
      ValueError: a size of the batch is not a multiple of its mesh axes.
    """
    rows, parts = experiment.data.rows, layout.axis_size("batch") * experiment.train.accumulate
    if rows % parts:
        raise ValueError(
            f"data.rows {rows}: not a multiple of {parts}: mesh.data x mesh.fsdp "
            f"{layout.axis_size('batch')} times train.accumulate {experiment.train.accumulate}"
        )
    arrays = {}
    for side in ("source", "target"):
        length = getattr(experiment.data, f"{side}_length")
        if length % layout.axis_size("length"):
            raise ValueError(
                f"data.{side}_length {length}: not a multiple of mesh.sequence "
                f"{layout.axis_size('length')}"
            )
        sharding = layout.sharding(("batch", "length"), (rows, length))
        arrays[side] = jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=sharding)
    return Batch(*[arrays["source"]] * 3, *[arrays["target"]] * 4)


def jit_update(
    experiment: config.Config, optimizer: optax.GradientTransformation, layout: Layout = NO_MESH
) -> jax.stages.Wrapped:
    """``update`` as a jitted function of (state, batch), which donates the state."""
    shardings = lambda tree: jax.tree.map(lambda x: x.sharding, tree)  # noqa: E731
    state = shardings(abstract_state(experiment, optimizer, layout))
    return jax.jit(
        functools.partial(update, experiment=experiment, optimizer=optimizer, layout=layout),
        donate_argnums=0,
        in_shardings=(state, shardings(abstract_batch(experiment, layout))),
        out_shardings=(state, layout.sharding((), ())),
    )


def token_loss(
    weights: Tree,
    experiment: config.Config,
    batch: Batch,
    key: jax.Array | None,
    smoothing: float,
    layout: Layout = NO_MESH,
) -> loss.Loss:
    """Sums of the cross-entropy over the batch's target tokens; ``key`` is for dropout."""
    hidden_BTD = transformer.forward(
        weights, experiment.model, batch, key=key, execution=experiment.execution, layout=layout
    )
    return loss.cross_entropy(
        hidden_BTD,
        transformer.output_table(weights, experiment.model),
        batch.target,
        (batch.target_segments != 0).astype(jnp.float32),
        bias_V=transformer.output_bias(weights, experiment.model),
        label_smoothing=smoothing,
        chunk=experiment.train.loss_chunk,
        layout=layout,
    )


def update(
    state: State,
    batch: Batch,
    experiment: config.Config,
    optimizer: optax.GradientTransformation,
    layout: Layout = NO_MESH,
) -> tuple[State, Metrics]:
    """One optimizer update on the mean loss over target tokens.

    Dropout's key is derived from the seed and the step number, so a resumed run draws the same
    masks as an uninterrupted one. If the loss or a gradient is not finite, the update is skipped:
    only the counters change.

    On a mesh (``layout``), ``abstract_state`` and ``abstract_batch`` give the shardings of state
    and batch, before and after.
    """
    key = jax.random.fold_in(jax.random.key(experiment.train.seed + 1), state.step)
    sums, gradients = _gradients(state.params, experiment, batch, key, layout)
    tokens = jnp.maximum(sums.tokens, 1.0)
    gradients = jax.tree.map(lambda g: g / tokens, gradients)
    norm = optax.tree.norm(gradients)
    good = jnp.isfinite(sums.loss) & jnp.isfinite(norm)

    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
    weights = optax.apply_updates(state.params, updates)
    average = state.average
    if average is not None:
        # A fixed decay would keep the random start; this one averages the latest tenth.
        decay = jnp.minimum(experiment.train.ema, (1.0 + state.step) / (10.0 + state.step))
        average = optax.incremental_update(weights, average, 1.0 - decay)

    def keep(new: Tree, old: Tree) -> Tree:
        return jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)

    state = State(
        step=state.step + 1,
        params=keep(weights, state.params),
        optimizer=keep(optimizer_state, state.optimizer),
        average=keep(average, state.average),
        bad_steps=jnp.where(good, 0, state.bad_steps + 1),
    )
    metrics = Metrics(
        loss=sums.loss / tokens,
        nll=sums.nll / tokens,
        correct=sums.correct / tokens,
        target_tokens=sums.tokens,
        source_tokens=(batch.source_segments != 0).sum().astype(jnp.float32),
        gradient_norm=norm,
        bad_steps=state.bad_steps.astype(jnp.float32),
    )
    return state, metrics


def _gradients(
    weights: Tree, experiment: config.Config, batch: Batch, key: jax.Array, layout: Layout
) -> tuple[loss.Loss, Tree]:
    """Sums of the loss over the batch and their gradient, in ``accumulate`` micro-batches.

    Every row has its own dropout key, so neither the mesh nor ``accumulate`` changes a mask.

    On a mesh of ``data`` alone, where every device has all the weights, gradients are summed over
    devices once, after the last micro-batch. With ``fsdp`` they are summed after each one: until
    then every device holds them unsharded, the memory that sharding the weights saves.
    """
    n, rows = experiment.train.accumulate, len(batch.source)
    if rows % n:
        raise ValueError(f"train.accumulate {n}: must divide data.rows {rows}")
    keys = layout.constrain(jax.random.split(key, rows), "batch")
    if n == 1:
        return _micro_batch(experiment, layout, weights, (batch, keys))

    def accumulate(layout: Layout, weights: Tree, examples: tuple[Batch, jax.Array]) -> tuple:
        gradients = functools.partial(_micro_batch, experiment, layout, weights)

        def add(total: tuple, part: tuple) -> tuple[tuple, None]:
            return jax.tree.map(jnp.add, total, gradients(part)), None

        # Micro-batch i takes rows i, i+n, ...: no row moves to another device.
        parts = jax.tree.map(lambda x: x.reshape(-1, n, *x.shape[1:]).swapaxes(0, 1), examples)
        batch = Batch(*(layout.constrain(x, None, "batch", "length") for x in parts[0]))
        parts = batch, layout.constrain(parts[1], None, "batch")
        first = jax.eval_shape(gradients, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
        return jax.lax.scan(add, zeros, parts)[0]

    return layout.sum_over_data(accumulate)(weights, (batch, keys))


def _micro_batch(
    experiment: config.Config, layout: Layout, weights: Tree, part: tuple[Batch, jax.Array]
) -> tuple[loss.Loss, Tree]:
    """Sums of the loss over some rows, and their gradient; ``part`` is (rows, their keys [B])."""
    batch, keys = part
    smoothing = experiment.train.label_smoothing

    def objective(weights: Tree) -> tuple[jax.Array, loss.Loss]:
        sums = token_loss(weights, experiment, batch, keys, smoothing, layout)
        return sums.loss, sums

    gradients, sums = jax.grad(objective, has_aux=True)(weights)
    return sums, layout.constrain_like(gradients, transformer.declare(experiment.model))
