"""Local attention: everyone looks at most ``window`` places away, at a cost linear in length.

The row is cut into blocks as long as the window. The queries of a block see its own keys and those
of the blocks beside it, so T·3W scores are computed, never T·T.
"""

from typing import Any

import jax
import jax.numpy as jnp

from tfm import masks
from tfm.attention.dot_product import attend_heads_first, refuse
from tfm.positions import Distances, side_by_side

_INSTEAD = {
    "mask": "pass segments_BT (0 = padding), and causal=True to hide the future",
    "return_weights": "its weights are those of blocks; attend with masks.window returns all",
}


def local(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    *,
    window: int,
    segments_BT: jax.Array | None = None,
    causal: bool = False,
    **settings: Any,
) -> jax.Array:
    """``attend`` within a window: queries see keys of their segment at distances -window..window.

    Args:
      window: at most so many places to either side (Beltagy 2020, §3.1).
      segments_BT: 0 = padding; ``None`` is one sentence a row.
      causal: see the past side only.
      **settings: of ``attend``: bias, relative, scale, soft_cap, dropout_rate, key. Bias and
        relative terms are of a block's geometry, ``block_distances``.

    Returns:
      [B,T,N,H].

    Raises:
      ValueError: queries and keys of unequal number, a mask, or ``return_weights``.
    """
    refuse("local", {name: settings.pop(name, None) for name in _INSTEAD}, _INSTEAD)
    if q_BTNH.shape[1] != k_BTKH.shape[1]:
        raise ValueError(
            f"local attention is of a row to itself, got {q_BTNH.shape[1]} queries and "
            f"{k_BTKH.shape[1]} keys: take attend from one text to another"
        )
    if segments_BT is None:
        segments_BT = jnp.ones(q_BTNH.shape[:2], jnp.int32)
    heads_first = (x.swapaxes(1, 2) for x in (q_BTNH, k_BTKH, v_BTKH))
    out_BNTH = local_heads_first(
        *heads_first, segments_BT, window=window, causal=causal, **settings
    )
    return out_BNTH.swapaxes(1, 2)


def block_distances(length: int, window: int, causal: bool = False) -> Distances:
    """The distances within one block of queries and the keys it may see: W and 2W or 3W places."""
    width = min(window, length)
    return side_by_side(width, (2 if causal else 3) * width, offset=width)


def local_heads_first(
    q_BNTH: jax.Array,
    k_BKTH: jax.Array,
    v_BKTH: jax.Array,
    segments_BT: jax.Array,
    *,
    window: int,
    causal: bool = False,
    **settings: Any,
) -> jax.Array:
    """``local`` for arrays with heads before time: [B,N,T,H]."""
    B, N, T, H = q_BNTH.shape
    W = min(window, T)
    C = -(-T // W)

    def blocks(x: jax.Array, axis: int) -> jax.Array:
        """Cuts axis T into [C,W] and brings C behind B."""
        x = jnp.pad(x, [(0, C * W - T) if i == axis else (0, 0) for i in range(x.ndim)])
        x = x.reshape(*x.shape[:axis], C, W, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 1)

    def beside(x: jax.Array, axis: int) -> jax.Array:
        """Each block [B,C,..W..] with its neighbours; nothing (segment 0) beyond the ends."""
        rest = [(0, 0)] * (x.ndim - 2)
        before = jnp.pad(x[:, :-1], [(0, 0), (1, 0), *rest])
        after = [] if causal else [jnp.pad(x[:, 1:], [(0, 0), (0, 1), *rest])]
        return jnp.concatenate([before, x, *after], axis=axis)

    def fold(x: jax.Array) -> jax.Array:
        """Every block becomes a row of the batch."""
        return x.reshape(B * C, *x.shape[2:])

    segments_BCW = blocks(segments_BT, 1)
    keys = (2 if causal else 3) * W
    mask = masks.combine(
        masks.segment(fold(segments_BCW), fold(beside(segments_BCW, 2))),
        masks.window(W, keys, W, offset=W),
        masks.causal(W, keys, offset=W) if causal else None,
    )
    k, v = (fold(beside(blocks(x, 2), 3)) for x in (k_BKTH, v_BKTH))
    out, _ = attend_heads_first(fold(blocks(q_BNTH, 2)), k, v, mask=mask, **settings)
    out_BNCWH = jnp.moveaxis(out.reshape(B, C, N, W, H), 1, 2)
    return out_BNCWH.reshape(B, N, C * W, H)[:, :, :T]
