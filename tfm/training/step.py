"""One update: a pure function of the training state and a batch."""

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

Batch = dict[str, jax.Array]


@flax.struct.dataclass
class State:
    """All that an update changes; what else a run needs is its config and the data position.

    Attributes:
      step: updates made so far, skipped ones included.
      params: float32 weights.
      optimizer: optax's state.
      average: exponential moving average of the weights, or None.
      bad_steps: updates skipped in a row, up to now.
    """

    step: jax.Array
    params: Tree
    optimizer: Tree
    average: Tree | None
    bad_steps: jax.Array

    @property
    def weights(self) -> Tree:
        """The weights to translate with: the average where there is one."""
        return self.params if self.average is None else self.average


class Metrics(NamedTuple):
    """What one update tells the log; float32 scalars.

    Attributes:
      loss, nll, correct: means over target tokens (nats; the last a share).
      target_tokens, source_tokens: real ones, eos included, padding apart.
      gradient_norm: before clipping.
      bad_steps: updates in a row, up to this one, whose loss or gradient was not finite, so that
        nothing was changed; 0 if this one was good.
    """

    loss: jax.Array
    nll: jax.Array
    correct: jax.Array
    target_tokens: jax.Array
    source_tokens: jax.Array
    gradient_norm: jax.Array
    bad_steps: jax.Array


def init_state(c: config.Config, optimizer: optax.GradientTransformation) -> State:
    """The state before the first update; parameters follow from ``c.train.seed``."""
    weights = params.init(jax.random.key(c.train.seed), transformer.declare(c.model))
    return State(
        step=jnp.zeros((), jnp.int32),
        params=weights,
        optimizer=optimizer.init(weights),
        average=jax.tree.map(jnp.copy, weights) if c.train.ema else None,
        bad_steps=jnp.zeros((), jnp.int32),
    )


def abstract_state(
    c: config.Config, optimizer: optax.GradientTransformation, layout: Layout = NO_MESH
) -> State:
    """Shapes, dtypes and places of a state: weights by their names, what belongs to them alike.

    Raises:
      ValueError: a size of the model that its part of the mesh does not divide.
    """
    _check_vocabularies(c, layout.axis_size("vocab"))
    state = jax.eval_shape(lambda: init_state(c, optimizer))
    return layout.abstract_like(state, transformer.declare(c.model))


def _check_vocabularies(c: config.Config, parts: int) -> None:
    """They are as large as the tokenizers came out, which need not be as large as was asked for."""
    for side in ("source", "target"):
        size = getattr(c.model, f"{side}_vocab")
        if size % parts:
            field = f"tokenizer.{'source' if c.tokenizer.joint else side}_size"
            less = size // parts * parts
            raise ValueError(
                f"model.{side}_vocab {size}: not a multiple of mesh.tensor {parts}; in a new "
                f"folder, set {field} to {less}, or to {less + parts} if the text has so many "
                "pieces"
            )


def abstract_batch(c: config.Config, layout: Layout = NO_MESH) -> Batch:
    """Shapes, dtypes and places of a batch.

    Raises:
      ValueError: a size of the batch that its part of the mesh does not divide.
    """
    rows, parts = c.data.rows, layout.axis_size("batch") * c.train.accumulate
    if rows % parts:
        raise ValueError(
            f"data.rows {rows}: not a multiple of {parts}: mesh.data x mesh.fsdp "
            f"{layout.axis_size('batch')} times train.accumulate {c.train.accumulate}"
        )
    shapes = {}
    for side, names in (
        ("source", ("source", "source_segments", "source_positions")),
        ("target", ("target", "target_input", "target_segments", "target_positions")),
    ):
        length = getattr(c.data, f"{side}_length")
        if length % layout.axis_size("length"):
            raise ValueError(
                f"data.{side}_length {length}: not a multiple of mesh.sequence "
                f"{layout.axis_size('length')}"
            )
        place = layout.sharding(("batch", "length"), (rows, length))
        for name in names:
            shapes[name] = jax.ShapeDtypeStruct((rows, length), jnp.int32, sharding=place)
    return shapes


def jit_update(
    c: config.Config, optimizer: optax.GradientTransformation, layout: Layout = NO_MESH
) -> jax.stages.Wrapped:
    """``update`` of (state, batch), compiled when first called; it uses up the state it gets."""
    place = lambda tree: jax.tree.map(lambda x: x.sharding, tree)  # noqa: E731
    state = place(abstract_state(c, optimizer, layout))
    return jax.jit(
        functools.partial(update, c=c, optimizer=optimizer, layout=layout),
        donate_argnums=0,
        in_shardings=(state, place(abstract_batch(c, layout))),
        out_shardings=(state, layout.sharding((), ())),
    )


def token_loss(
    weights: Tree,
    c: config.Config,
    batch: Batch,
    key: jax.Array | None,
    smoothing: float,
    layout: Layout = NO_MESH,
) -> loss.Loss:
    """Sums of the cross-entropy over the batch's real target tokens; ``key`` is of dropout."""
    hidden_BTD = transformer.forward(weights, c.model, batch, key=key, layout=layout)
    return loss.cross_entropy(
        hidden_BTD,
        transformer.output_table(weights, c.model),
        batch["target"],
        (batch["target_segments"] != 0).astype(jnp.float32),
        label_smoothing=smoothing,
        chunk=c.train.loss_chunk,
        layout=layout,
    )


def update(
    state: State,
    batch: Batch,
    c: config.Config,
    optimizer: optax.GradientTransformation,
    layout: Layout = NO_MESH,
) -> tuple[State, Metrics]:
    """One optimizer update on the mean loss of a token.

    Dropout's key follows from the seed and the step number, so a resumed run draws what an
    uninterrupted one would. A loss or gradient that is not finite changes nothing but the count.

    On a mesh (``layout``) state and batch live where ``abstract_state`` and
    ``abstract_batch`` say, and stay there.
    """
    key = jax.random.fold_in(jax.random.key(c.train.seed + 1), state.step)
    sums, gradients = _gradients(state.params, c, batch, key, layout)
    tokens = jnp.maximum(sums.tokens, 1.0)
    gradients = jax.tree.map(lambda g: g / tokens, gradients)
    norm = optax.tree.norm(gradients)
    good = jnp.isfinite(sums.loss) & jnp.isfinite(norm)

    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
    weights = optax.apply_updates(state.params, updates)
    average = state.average
    if average is not None:
        # A fixed decay would hold on to the random start; this one averages the recent tenth.
        decay = jnp.minimum(c.train.ema, (1.0 + state.step) / (10.0 + state.step))
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
        source_tokens=(batch["source_segments"] != 0).sum().astype(jnp.float32),
        gradient_norm=norm,
        bad_steps=state.bad_steps.astype(jnp.float32),
    )
    return state, metrics


def _gradients(
    weights: Tree, c: config.Config, batch: Batch, key: jax.Array, layout: Layout
) -> tuple[loss.Loss, Tree]:
    """Sums of the loss over the batch and their gradient, in ``accumulate`` micro-batches.

    Every row has a dropout key of its own, so neither the mesh nor ``accumulate`` changes a mask.

    On a mesh of ``data`` alone, whose parts hold all the weights, gradients are summed up between
    devices once, after the last micro-batch. With ``fsdp`` they are after each one: until then
    every device has them whole, which is the memory that sharing the weights is to save.
    """
    n, rows = c.train.accumulate, len(batch["source"])
    if rows % n:
        raise ValueError(f"train.accumulate {n}: must divide data.rows {rows}")
    keys = layout.constrain(jax.random.split(key, rows), "batch")
    if n == 1:
        return _micro_batch(c, layout, weights, (batch, keys))

    def in_turn(layout: Layout, weights: Tree, examples: tuple[Batch, jax.Array]) -> tuple:
        def add(total: tuple, part: tuple) -> tuple[tuple, None]:
            return jax.tree.map(jnp.add, total, _micro_batch(c, layout, weights, part)), None

        # Micro-batch i takes rows i, i+n, ...: rows stay where they are when they are sharded.
        parts = jax.tree.map(lambda x: x.reshape(-1, n, *x.shape[1:]).swapaxes(0, 1), examples)
        batch = {name: layout.constrain(x, None, "batch", "length") for name, x in parts[0].items()}
        parts = batch, layout.constrain(parts[1], None, "batch")
        one = functools.partial(_micro_batch, c, layout, weights)
        first = jax.eval_shape(one, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
        return jax.lax.scan(add, zeros, parts)[0]

    return layout.sum_over_data(in_turn)(weights, (batch, keys))


def _micro_batch(
    c: config.Config, layout: Layout, weights: Tree, part: tuple[Batch, jax.Array]
) -> tuple[loss.Loss, Tree]:
    """Sums of the loss over some rows, and their gradient; ``part`` has a key [B] for each."""
    batch, keys = part

    def objective(weights: Tree) -> tuple[jax.Array, loss.Loss]:
        sums = token_loss(weights, c, batch, keys, c.train.label_smoothing, layout)
        return sums.loss, sums

    gradients, sums = jax.grad(objective, has_aux=True)(weights)
    return sums, layout.constrain_like(gradients, transformer.declare(c.model))
