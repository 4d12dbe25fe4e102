"""Scaled dot-product attention."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tfm import layers
from tfm.positions import Relative


def attend(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    relative: Relative | None = None,
    scale: float | None = None,
    soft_cap: float = 0.0,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
    return_weights: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """softmax(q kᵀ · scale + bias) v, row by row (Vaswani 2017, eq. 1).

    Unit-normal q and k give scores of variance H; the default scale 1/sqrt(H) brings it to 1.
    A query whose mask row is empty gives zeros, with zero gradients.

    Args:
      q_BTNH, k_BSKH, v_BSKH: N a multiple of K.
      mask: bool, True = may attend; broadcasts to [B,N,T,S].
      bias: added to the scaled scores; broadcasts to [B,N,T,S].
      relative: terms of a relative position scheme, added to the unscaled scores and to the output.
      soft_cap: scores x, bias included, become cap · tanh(x / cap), within ±cap (Gemma 2, 2024,
        §2); 0 is off.
      dropout_rate, key: dropout on the weights.
      return_weights: also return the weights [B,N,T,S], float32, before dropout.

    Returns:
      [B,T,N,H] in q's dtype. Scores and softmax are float32 inside.

    Raises:
      ValueError: N is not a multiple of K.
    """
    out_BNTH, weights_BNTS = attend_heads_first(
        *heads_first(q_BTNH, k_BSKH, v_BSKH),
        mask=mask,
        bias=bias,
        relative=relative,
        scale=scale,
        soft_cap=soft_cap,
        dropout_rate=dropout_rate,
        key=key,
    )
    out_BTNH = out_BNTH.swapaxes(1, 2)
    return (out_BTNH, weights_BNTS) if return_weights else out_BTNH


def attend_heads_first(
    q_BNTH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    relative: Relative | None = None,
    scale: float | None = None,
    soft_cap: float = 0.0,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """``attend`` for arrays with heads before time, as caches keep them.

    Returns:
      ([B,N,T,H], weights [B,N,T,S]).
    """
    B, N, T, H = q_BNTH.shape
    K, S = k_BKSH.shape[1:3]
    groups = group_size(N, K)
    scale = H**-0.5 if scale is None else scale

    # The queries of the G heads that share a key head are rows of one matrix: one product each.
    q_BKRH = q_BNTH.reshape(B, K, groups * T, H)
    scores_BKRS = jnp.einsum("bkrh,bksh->bkrs", q_BKRH, k_BKSH, preferred_element_type=jnp.float32)
    scores_BNTS = scores_BKRS.reshape(B, N, T, S)
    if relative is not None:
        scores_BNTS += relative.scores(q_BNTH, k_BKSH)
    out_BNTH, weights_BNTS = weighted_values(
        scores_BNTS * scale,
        v_BKSH,
        mask=mask,
        bias=bias,
        more_values=None if relative is None else relative.values,
        soft_cap=soft_cap,
        dropout_rate=dropout_rate,
        key=key,
    )
    return out_BNTH.astype(q_BNTH.dtype), weights_BNTS


def weighted_values(
    scores_BNTS: jax.Array,
    v_BKSH: jax.Array,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    more_values: Callable[[jax.Array], jax.Array] | None = None,
    soft_cap: float = 0.0,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Softmax of the scores, and the weighted mean of the values.

    Args:
      scores_BNTS: scaled; from dot products or anything else.
      more_values: a function of the weights after dropout, [B,N,T,S] → [B,N,T,H], whose result is
        added to the output.

    Returns:
      ([B,N,T,H], weights [B,N,T,S] float32 before dropout).
    """
    B, N, T, S = scores_BNTS.shape
    K, H = v_BKSH.shape[1], v_BKSH.shape[3]
    if bias is not None:
        scores_BNTS += bias
    if soft_cap:
        scores_BNTS = soft_cap * jnp.tanh(scores_BNTS / soft_cap)
    weights_BNTS = masked_softmax(scores_BNTS, mask)

    dropped_BNTS = layers.dropout(weights_BNTS, dropout_rate, key).astype(v_BKSH.dtype)
    dropped_BKRS = dropped_BNTS.reshape(B, K, N // K * T, S)
    out_BKRH = jnp.einsum("bkrs,bksh->bkrh", dropped_BKRS, v_BKSH)
    out_BNTH = out_BKRH.reshape(B, N, T, H)
    return out_BNTH if more_values is None else out_BNTH + more_values(dropped_BNTS), weights_BNTS


def masked_softmax(scores: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Softmax over the last axis where the mask is True; a row without any True gives zeros."""
    if mask is None:
        return jax.nn.softmax(scores, axis=-1)
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.where(mask, jax.nn.softmax(scores, axis=-1), 0.0)


def heads_first(
    q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[B,T,N,H], [B,S,K,H], [B,S,K,H] → [B,N,T,H], [B,K,S,H], [B,K,S,H]."""
    return q_BTNH.swapaxes(1, 2), k_BSKH.swapaxes(1, 2), v_BSKH.swapaxes(1, 2)


def group_size(heads: int, kv_heads: int) -> int:
    """G = N / K, the query heads that share a key/value head.

    Raises:
      ValueError: N is not a multiple of K.
    """
    if heads % kv_heads:
        raise ValueError(
            f"attend: {heads} query heads are not a multiple of {kv_heads} key/value heads"
        )
    return heads // kv_heads
