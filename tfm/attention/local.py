"""Local attention: every query sees keys at most ``window`` positions away, at linear cost.

The sequence is divided into blocks as long as the window W. The queries of a block see the keys of
their own and the neighbouring blocks, so T·3W scores are computed instead of T·T.
"""

from typing import Any

import jax
import jax.numpy as jnp

from tfm import masks
from tfm.attention.dot_product import (
    attend_heads_first,
    check_one_sequence,
    check_scores,
    heads_first,
)
from tfm.positions import Distances, Relative, consecutive
from tfm.shapes import Check


def local(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    *,
    window: int,
    segments_BT: jax.Array | None = None,
    causal: bool = False,
    bias: jax.Array | None = None,
    relative: Relative | None = None,
    scale: float | None = None,
    soft_cap: float = 0.0,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """``attention.attend`` within a window: keys of the segment at distances -window..window.

    There is no ``mask`` (pass segments and causality) and no ``return_weights``: the weights are
    those of blocks. ``attend`` under ``masks.window`` gives the same output and all weights.

    Args:
      window: the farthest distance to either side that is seen (Beltagy 2020, §3.1).
      segments_BT: 0 = padding; ``None`` is one sentence a row.
      causal: hide later keys.
      bias, relative: of the geometry of a block, whose distances are ``block_distances``.
      scale, soft_cap, dropout_rate, key: as in ``attend``.

    Returns:
      [B,T,N,H].

    Raises:
      ValueError: an argument of another rank, dtype or shape; queries and keys differ in number.
    """
    check = Check("local")
    check.floats(q_BTNH=q_BTNH)
    check.floats("BSKH", k_BTKH=k_BTKH, v_BTKH=v_BTKH)
    check_one_sequence(check)
    if segments_BT is None:
        segments_BT = jnp.ones(q_BTNH.shape[:2], jnp.int32)
    check.ints(segments_BT=segments_BT)
    _check_blocks(
        check,
        window,
        causal,
        bias=bias,
        relative=relative,
        scale=scale,
        soft_cap=soft_cap,
        dropout_rate=dropout_rate,
        key=key,
    )
    out_BNTH = local_heads_first(
        *heads_first(q_BTNH, k_BTKH, v_BTKH),
        segments_BT,
        window=window,
        causal=causal,
        bias=bias,
        relative=relative,
        scale=scale,
        soft_cap=soft_cap,
        dropout_rate=dropout_rate,
        key=key,
    )
    return out_BNTH.swapaxes(1, 2)


def block_distances(length: int, window: int, causal: bool = False) -> Distances:
    """The distances between the W queries of a block and the 2W or 3W keys that it sees."""
    Check("block_distances").counts(length=length, window=window)
    width = min(window, length)
    return consecutive(width, (2 if causal else 3) * width, offset=width)


def fold_blocks(x: jax.Array, window: int, axis: int = 1) -> jax.Array:
    """[B,..T..] → [B·C,..W..]: each of the C blocks of axis T becomes an element of the batch."""
    check = Check("fold_blocks")
    check.arrays(("float", "int", "bool"), "...", x=x)
    check.counts(window=window, axis=axis)
    if x.ndim <= axis:
        raise check.error(f"x has shape {x.shape}; it must have an axis {axis}")
    blocks = _blocks(x, window, axis)
    return blocks.reshape(-1, *blocks.shape[2:])


def local_heads_first(
    q_BNTH: jax.Array,
    k_BKTH: jax.Array,
    v_BKTH: jax.Array,
    segments_BT: jax.Array,
    *,
    window: int,
    causal: bool = False,
    bias: jax.Array | None = None,
    relative: Relative | None = None,
    scale: float | None = None,
    soft_cap: float = 0.0,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """``local`` for arrays with heads before time: [B,N,T,H]."""
    check = Check("local_heads_first")
    check.floats(q_BNTH=q_BNTH)
    check.floats("BKSH", k_BKTH=k_BKTH, v_BKTH=v_BKTH)
    check_one_sequence(check)
    check.ints(segments_BT=segments_BT)
    _check_blocks(
        check,
        window,
        causal,
        bias=bias,
        relative=relative,
        scale=scale,
        soft_cap=soft_cap,
        dropout_rate=dropout_rate,
        key=key,
    )
    B, N, T, H = q_BNTH.shape
    W = min(window, T)
    C = -(-T // W)

    def neighbours(x: jax.Array, axis: int) -> jax.Array:
        """[B,C,..W..] → [B·C,..3W..]: each block with its neighbours, zeros beyond the ends."""
        rest = [(0, 0)] * (x.ndim - 2)
        before = jnp.pad(x[:, :-1], [(0, 0), (1, 0), *rest])
        after = [] if causal else [jnp.pad(x[:, 1:], [(0, 0), (0, 1), *rest])]
        joined = jnp.concatenate([before, x, *after], axis=axis)
        return joined.reshape(B * C, *joined.shape[2:])

    keys = (2 if causal else 3) * W
    mask = masks.combine(
        masks.segment(fold_blocks(segments_BT, W), neighbours(_blocks(segments_BT, W, 1), 2)),
        masks.window(W, keys, W, offset=W),
        masks.causal(W, keys, offset=W) if causal else None,
    )
    out, _ = attend_heads_first(
        fold_blocks(q_BNTH, W, axis=2),
        *(neighbours(_blocks(x, W, 2), 3) for x in (k_BKTH, v_BKTH)),
        mask=mask,
        bias=bias,
        relative=relative,
        scale=scale,
        soft_cap=soft_cap,
        dropout_rate=dropout_rate,
        key=key,
    )
    out_BNCWH = jnp.moveaxis(out.reshape(B, C, N, W, H), 1, 2)
    return out_BNCWH.reshape(B, N, C * W, H)[:, :, :T]


def _check_blocks(check: Check, window: int, causal: bool, **scores: Any) -> None:
    """Checks what acts on the scores of a block."""
    check.counts(window=window)
    B, T = check.size("B"), check.size("T")
    W = min(window, T)
    check.sizes["B"] = B * -(-T // W), "the blocks of all rows"
    check.sizes["T"] = W, "a block"
    check.sizes["S"] = (2 if causal else 3) * W, "what a block sees"
    check_scores(check, **scores)


def _blocks(x: jax.Array, window: int, axis: int) -> jax.Array:
    """[B,..T..] → [B,C,..W..], T padded with zeros to C blocks of W."""
    W = min(window, x.shape[axis])
    C = -(-x.shape[axis] // W)
    x = jnp.pad(x, [(0, C * W - x.shape[axis]) if i == axis else (0, 0) for i in range(x.ndim)])
    x = x.reshape(*x.shape[:axis], C, W, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 1)
