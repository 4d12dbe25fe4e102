"""Cross-entropy over a large vocabulary that never stores all logits at once.

The logits ``[B,T,V]`` in float32 are the largest array of a training step. Here ``lax.scan`` runs
over slices of T, so that only about ``chunk`` tokens' logits exist at one time. When the loss is
differentiated, the same scan also computes the gradients, while a slice's logits exist: three
matrix products in all, and nothing is computed twice (the idea of Liger Kernel's fused linear
cross-entropy, Hsu et al. 2024).

On a mesh every device scans its own tokens against its own shard of the vocabulary. Within the scan
devices exchange three numbers a token, and only if the vocabulary is sharded (Shoeybi 2019, §3);
the gradients are summed over devices once, after it.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from tfm.sharding import NO_MESH, Layout

Sums = tuple[jax.Array, jax.Array, jax.Array]  # loss, nll, correct
Slice = tuple[jax.Array, jax.Array, jax.Array]  # hidden [B,t,D], labels [B,t], weights [B,t]

_TABLE = ("vocab", "embed")
_BIAS = ("vocab",)
_TOKENS = ("batch", "length")
_HIDDEN = (*_TOKENS, None)


class Loss(NamedTuple):
    """Sums over the weighted tokens, float32 scalars; divide by ``tokens`` for means.

    Only ``loss`` has a gradient. The others are metrics.

    Attributes:
      loss: label-smoothed cross-entropy, in nats.
      nll: cross-entropy without smoothing, in nats; exp(nll / tokens) is the perplexity.
      correct: tokens whose label has the highest logit (a tie counts as correct).
      tokens: sum of the weights.
    """

    loss: jax.Array
    nll: jax.Array
    correct: jax.Array
    tokens: jax.Array


def cross_entropy(
    hidden_BTD: jax.Array,
    table_VD: jax.Array,
    labels_BT: jax.Array,
    weights_BT: jax.Array,
    *,
    bias_V: jax.Array | None = None,
    label_smoothing: float,
    chunk: int,
    layout: Layout = NO_MESH,
) -> Loss:
    """Cross-entropy of ``softmax(hidden tableᵀ + bias)`` against the labels.

    The smoothed target is ``(1-ε)·one_hot(label) + ε/V`` (Szegedy et al. 2016, §7): the mass ε is
    spread evenly over all V entries, including the label, as in torch's ``label_smoothing``. A
    token's loss is thus ``(1-ε)·nll + ε·mean_v(-log p_v)``.

    Matrix products run in the dtype of ``hidden_BTD`` and accumulate in float32; the softmax and
    all sums are float32. Gradients have their inputs' dtypes; that of the table is
    accumulated in float32. The gradient with respect to the weights is zero: they are constants.
    Reverse mode only (``jax.grad``, ``jax.vjp``), and first order only.

    Args:
      hidden_BTD: the decoder's output.
      table_VD: the output embedding.
      labels_BT: int ids; any value where the weight is zero.
      weights_BT: weight of each token, zero at padding. A token of weight zero adds nothing, and
        its gradient is exactly zero, even where ``hidden_BTD`` is not finite.
      bias_V: added to the logits, if there is one.
      label_smoothing: ε, in [0, 1).
      chunk: tokens whose logits exist at one time on each device; rounded down to a multiple of
        its rows, but at least one position of each.
      layout: how the arrays are sharded.

    Returns:
      Sums over all tokens of the batch.

    Raises:
      ValueError: shapes that do not fit, or an argument out of range.
    """
    (B, T, D), V = hidden_BTD.shape, table_VD.shape[0]
    if table_VD.shape[1:] != (D,):
        raise ValueError(
            f"hidden is [B,T,{D}], but the table is {list(table_VD.shape)}: want [V,{D}]"
        )
    if labels_BT.shape != (B, T) or weights_BT.shape != (B, T):
        raise ValueError(
            f"hidden is {[B, T, D]}, but labels are {list(labels_BT.shape)} and weights "
            f"{list(weights_BT.shape)}: want {[B, T]}"
        )
    if bias_V is not None and bias_V.shape != (V,):
        raise ValueError(f"the table has {V} rows, but the bias is {list(bias_V.shape)}: want [V]")
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"train.label_smoothing {label_smoothing}: must be in [0, 1)")
    if chunk < 1:
        raise ValueError(f"train.loss_chunk {chunk}: must be at least 1 token")
    real_BT = weights_BT != 0
    hidden_BTD = jnp.where(real_BT[..., None], hidden_BTD, 0)
    labels_BT = jnp.where(real_BT, labels_BT, 0)
    weights_BT = weights_BT.astype(jnp.float32)
    hidden_BTD = layout.constrain(hidden_BTD, *_HIDDEN)
    table_VD = layout.constrain(table_VD, *_TABLE)
    settings = _Settings(label_smoothing, chunk, V, bias_V is not None, layout)
    # Without a bias there is an empty one, which nothing reads.
    bias_V = jnp.zeros(0) if bias_V is None else layout.constrain(bias_V, *_BIAS)
    sums = _sums(settings, hidden_BTD, table_VD, bias_V, labels_BT, weights_BT)
    return Loss(*sums, tokens=weights_BT.sum())


class _Settings(NamedTuple):
    """Constants of the scan: ε, tokens a slice on a device, V, whether there is a bias, layout."""

    smoothing: float
    chunk: int
    vocab: int
    biased: bool
    layout: Layout

    @property
    def inputs(self) -> tuple[tuple[str | None, ...], ...]:
        """Logical axes of hidden states, table, bias, labels and weights."""
        return _HIDDEN, _TABLE, _BIAS if self.biased else (None,), _TOKENS, _TOKENS


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(
    settings: _Settings,
    hidden_BTD: jax.Array,
    table_VD: jax.Array,
    bias_V: jax.Array,
    labels_BT: jax.Array,
    weights_BT: jax.Array,
) -> Sums:
    """(loss, nll, correct), with the forward matrix product alone."""

    def body(
        hidden_BTD: jax.Array,
        table_VD: jax.Array,
        bias_V: jax.Array,
        labels_BT: jax.Array,
        weights_BT: jax.Array,
    ) -> Sums:
        table = _table(settings, hidden_BTD.dtype, table_VD, bias_V)

        def add_slice(sums: Sums, tokens: Slice) -> tuple[Sums, None]:
            new, _ = _score(settings, *table, *tokens)
            return jax.tree.map(jnp.add, sums, new), None

        slices = _slices(settings.chunk, hidden_BTD, labels_BT, weights_BT)
        sums, _ = lax.scan(add_slice, _zeros(), slices)
        return tuple(settings.layout.psum(x, *_TOKENS) for x in sums)

    run = settings.layout.shard_map(body, settings.inputs, ((),) * 3)
    return run(hidden_BTD, table_VD, bias_V, labels_BT, weights_BT)


def _sums_and_gradients(
    settings: _Settings,
    hidden_BTD: jax.Array,
    table_VD: jax.Array,
    bias_V: jax.Array,
    labels_BT: jax.Array,
    weights_BT: jax.Array,
) -> tuple[Sums, tuple[jax.Array, ...]]:
    """The sums, and as residuals the gradients of ``loss``."""

    def body(
        hidden_BTD: jax.Array,
        table_VD: jax.Array,
        bias_V: jax.Array,
        labels_BT: jax.Array,
        weights_BT: jax.Array,
    ) -> tuple[jax.Array, ...]:
        B, T, D = hidden_BTD.shape
        table = _table(settings, hidden_BTD.dtype, table_VD, bias_V)

        def add_slice(
            carry: tuple[Sums, jax.Array, jax.Array], tokens: Slice
        ) -> tuple[tuple[Sums, jax.Array, jax.Array], jax.Array]:
            sums, d_table_VD, d_bias_V = carry
            new, d_logits = _score(settings, *table, *tokens)
            if settings.biased:
                d_bias_V += d_logits.sum((0, 1))
            d_logits = d_logits.astype(hidden_BTD.dtype)
            d_hidden = jnp.einsum("btv,vd->btd", d_logits, table.rows_VD)
            d_table_VD += jnp.einsum(
                "btv,btd->vd", d_logits, tokens[0], preferred_element_type=jnp.float32
            )
            return (jax.tree.map(jnp.add, sums, new), d_table_VD, d_bias_V), d_hidden

        start = (_zeros(), jnp.zeros(table.rows_VD.shape, jnp.float32), jnp.zeros(bias_V.shape))
        slices = _slices(settings.chunk, hidden_BTD, labels_BT, weights_BT)
        (sums, d_table_VD, d_bias_V), d_hidden = lax.scan(add_slice, start, slices)
        d_hidden_BTD = jnp.moveaxis(d_hidden, 0, 1).reshape(B, -1, D)[:, :T]
        return (
            *(settings.layout.psum(x, *_TOKENS) for x in sums),
            settings.layout.psum(d_hidden_BTD, "vocab"),
            settings.layout.psum_scatter(d_table_VD, _TABLE, *_TOKENS),
            settings.layout.psum(d_bias_V, *_TOKENS),
        )

    inputs = settings.inputs
    run = settings.layout.shard_map(body, inputs, ((), (), (), *inputs[:3]))
    *sums, d_hidden_BTD, d_table_VD, d_bias_V = run(
        hidden_BTD, table_VD, bias_V, labels_BT, weights_BT
    )
    # Residuals must be arrays: empty ones carry the dtypes of table and bias.
    empty = (jnp.zeros((0,), x.dtype) for x in (table_VD, bias_V))
    return tuple(sums), (d_hidden_BTD, d_table_VD, d_bias_V, *empty)


def _scale_gradients(
    settings: _Settings, residuals: tuple[jax.Array, ...], cotangents: Sums
) -> tuple[jax.Array | None, ...]:
    d_hidden_BTD, d_table_VD, d_bias_V, like_table, like_bias = residuals
    d_loss = cotangents[0]
    d_hidden_BTD = (d_hidden_BTD.astype(jnp.float32) * d_loss).astype(d_hidden_BTD.dtype)
    d_table_VD = (d_table_VD * d_loss).astype(like_table.dtype)
    return d_hidden_BTD, d_table_VD, (d_bias_V * d_loss).astype(like_bias.dtype), None, None


_sums.defvjp(_sums_and_gradients, _scale_gradients)


class _Table(NamedTuple):
    """The device's rows of the table in the products' dtype and of the bias, and means of all."""

    rows_VD: jax.Array
    mean_D: jax.Array
    bias_V: jax.Array | None
    mean_bias: jax.Array | None


def _table(settings: _Settings, dtype: jnp.dtype, table_VD: jax.Array, bias_V: jax.Array) -> _Table:
    layout = settings.layout
    mean_D = layout.psum(table_VD.astype(jnp.float32).sum(0), "vocab") / settings.vocab
    rows_VD = layout.all_gather(table_VD.astype(dtype), 1, "embed")
    mean_D = layout.all_gather(mean_D, 0, "embed")
    if not settings.biased:
        return _Table(rows_VD, mean_D, None, None)
    bias_V = bias_V.astype(jnp.float32)
    return _Table(rows_VD, mean_D, bias_V, layout.psum(bias_V.sum(), "vocab") / settings.vocab)


def _score(
    settings: _Settings,
    table_VD: jax.Array,
    mean_D: jax.Array,
    bias_V: jax.Array | None,
    mean_bias: jax.Array | None,
    hidden_BtD: jax.Array,
    labels_Bt: jax.Array,
    weights_Bt: jax.Array,
) -> tuple[Sums, jax.Array]:
    """Sums of one slice, and the gradient of its loss with respect to its logits ``[B,t,V]``."""
    smoothing, layout = settings.smoothing, settings.layout
    logits = jnp.einsum("btd,vd->btv", hidden_BtD, table_VD, preferred_element_type=jnp.float32)
    if bias_V is not None:
        logits += bias_V[None, None]
    labels_Bt = labels_Bt - layout.axis_offset("vocab", table_VD.shape[0])
    is_label = lax.broadcasted_iota(jnp.int32, logits.shape, 2) == labels_Bt[..., None]
    label_Bt = _label_logits(layout, logits, labels_Bt)
    # Σ_v logits / V = hidden · mean of the table, which saves a pass over the logits.
    mean_Bt = hidden_BtD.astype(jnp.float32) @ mean_D
    if mean_bias is not None:
        mean_Bt += mean_bias
    max_Bt = layout.pmax(logits.max(-1), "vocab")
    Z_Bt = layout.psum(jnp.exp(logits - max_Bt[..., None]).sum(-1), "vocab")
    log_Z_Bt = max_Bt + jnp.log(Z_Bt)
    nll_Bt = log_Z_Bt - label_Bt
    loss_Bt = (1 - smoothing) * nll_Bt + smoothing * (log_Z_Bt - mean_Bt)
    # Compared with the maximum, because an argmax over V costs a quarter of the step.
    correct_Bt = (label_Bt >= max_Bt).astype(jnp.float32)
    sums = tuple((x * weights_Bt).sum() for x in (loss_Bt, nll_Bt, correct_Bt))

    even = smoothing / settings.vocab
    target = jnp.where(is_label, 1 - smoothing + even, even)
    d_logits = weights_Bt[..., None] * (jnp.exp(logits - log_Z_Bt[..., None]) - target)
    return sums, d_logits


def _label_logits(layout: Layout, logits: jax.Array, labels_Bt: jax.Array) -> jax.Array:
    """The logit of each label [B,t], whichever device holds its shard of the vocabulary."""
    if not layout.mesh_axes("vocab"):
        return jnp.take_along_axis(logits, labels_Bt[..., None], -1)[..., 0]
    mine_Bt = (labels_Bt >= 0) & (labels_Bt < logits.shape[-1])
    found_Bt = jnp.take_along_axis(logits, jnp.where(mine_Bt, labels_Bt, 0)[..., None], -1)[..., 0]
    return layout.psum(jnp.where(mine_Bt, found_Bt, 0.0), "vocab")


def _slices(chunk: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """[B,T,...] → [n,B,t,...]: T padded with zeros to n slices of t positions, B·t ≤ chunk."""
    B, T = arrays[0].shape[:2]
    n = -(-T // max(1, chunk // B))
    t = -(-T // n)

    def split(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, 0), (0, n * t - T)] + [(0, 0)] * (x.ndim - 2))
        return jnp.moveaxis(x.reshape(B, n, t, *x.shape[2:]), 1, 0)

    return tuple(split(x) for x in arrays)


def _zeros() -> Sums:
    return (jnp.zeros((), jnp.float32),) * 3
