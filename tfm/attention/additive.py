"""Additive attention: a small network scores each query and key (Bahdanau 2015)."""

from typing import Any

import jax
import jax.numpy as jnp

from tfm.attention.dot_product import look_up, queries_a_key_head, refuse
from tfm.params import Param, xavier

_INSTEAD = {"relative": "that is defined by the product of q and k; pass t5's or alibi's as bias"}


def additive_params(heads: int, head_dim: int) -> Param:
    """The vector v of every head."""
    return Param((heads, head_dim), ("heads", "head_dim"), xavier(1, 0))


def additive(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    weight_NH: jax.Array,
    *,
    scale: float | None = None,
    return_weights: bool = False,
    **settings: Any,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """softmax(wᵀ tanh(q + k) + bias) v (Bahdanau 2015, §A.1.2, a head each).

    The paper's W_a s and U_a h are the projected queries and keys. Time is that of B·N·T·S·H
    tangents; memory, backward too, is that of the scores, for the tangents are computed again.

    Args:
      weight_NH: w, one vector a head.
      scale: the scores are multiplied by it, as w is; ``None`` is 1.
      **settings: of ``look_up``: mask, bias, soft_cap, dropout_rate, key.

    Returns:
      [B,T,N,H]; with ``return_weights`` also [B,N,T,S].

    Raises:
      ValueError: ``relative`` terms.
    """
    refuse("additive", {"relative": settings.pop("relative", None)}, _INSTEAD)
    heads_first = (x.swapaxes(1, 2) for x in (q_BTNH, k_BSKH, v_BSKH))
    out_BNTH, weights_BNTS = additive_heads_first(
        *heads_first, weight_NH * (1.0 if scale is None else scale), **settings
    )
    out_BTNH = out_BNTH.swapaxes(1, 2)
    return (out_BTNH, weights_BNTS) if return_weights else out_BTNH


def additive_heads_first(
    q_BNTH: jax.Array, k_BKSH: jax.Array, v_BKSH: jax.Array, weight_NH: jax.Array, **settings: Any
) -> tuple[jax.Array, jax.Array]:
    """``additive`` for arrays with heads before time: ([B,N,T,H], weights [B,N,T,S])."""
    scores_BNTS = additive_scores(q_BNTH, k_BKSH, weight_NH)
    out_BNTH, weights_BNTS = look_up(scores_BNTS, v_BKSH, **settings)
    return out_BNTH.astype(q_BNTH.dtype), weights_BNTS


@jax.checkpoint
def additive_scores(q_BNTH: jax.Array, k_BKSH: jax.Array, weight_NH: jax.Array) -> jax.Array:
    """wᵀ tanh(q + k): [B,N,T,S] float32."""
    B, N, T, H = q_BNTH.shape
    K, S = k_BKSH.shape[1:3]
    G = queries_a_key_head(N, K)
    q = q_BNTH.astype(jnp.float32).reshape(B, K, G, T, 1, H)
    k = k_BKSH.astype(jnp.float32).reshape(B, K, 1, 1, S, H)
    weight = weight_NH.astype(jnp.float32).reshape(1, K, G, 1, 1, H)
    return (jnp.tanh(q + k) * weight).sum(axis=-1).reshape(B, N, T, S)
