"""Additive attention: a small network scores each query and key (Bahdanau 2015)."""

import jax
import jax.numpy as jnp

from tfm.attention.dot_product import check_scores, heads_first, weighted_values
from tfm.params import Param, xavier
from tfm.shapes import Check


def additive_params(heads: int, head_dim: int) -> Param:
    """The vector v of every head."""
    Check("additive_params").counts(heads=heads, head_dim=head_dim)
    return Param((heads, head_dim), ("heads", "head_dim"), xavier(1, 0))


def additive(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    weight_NH: jax.Array,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    soft_cap: float = 0.0,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
    return_weights: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """softmax(wᵀ tanh(q + k) + bias) v (Bahdanau 2015, §A.1.2, in every head).

    The paper's W_a s and U_a h are the projected queries and keys. Time is that of B·N·T·S·H
    tangents; memory, in the backward pass too, is that of the scores, for the tangents are computed
    again.

    Args:
      weight_NH: w, one vector a head; w also scales the scores.
      mask, bias, soft_cap, dropout_rate, key, return_weights: as in ``attention.attend``.

    Returns:
      [B,T,N,H]; with ``return_weights`` also [B,N,T,S].
    """
    check = Check("additive")
    check.floats(q_BTNH=q_BTNH, k_BSKH=k_BSKH, v_BSKH=v_BSKH, weight_NH=weight_NH)
    check_scores(check, mask=mask, bias=bias, soft_cap=soft_cap, dropout_rate=dropout_rate, key=key)
    out_BNTH, weights_BNTS = additive_heads_first(
        *heads_first(q_BTNH, k_BSKH, v_BSKH),
        weight_NH,
        mask=mask,
        bias=bias,
        soft_cap=soft_cap,
        dropout_rate=dropout_rate,
        key=key,
    )
    out_BTNH = out_BNTH.swapaxes(1, 2)
    return (out_BTNH, weights_BNTS) if return_weights else out_BTNH


def additive_heads_first(
    q_BNTH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    weight_NH: jax.Array,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    soft_cap: float = 0.0,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """``additive`` for arrays with heads before time: ([B,N,T,H], weights [B,N,T,S])."""
    check = Check("additive_heads_first")
    check.floats(q_BNTH=q_BNTH, k_BKSH=k_BKSH, v_BKSH=v_BKSH, weight_NH=weight_NH)
    check_scores(check, mask=mask, bias=bias, soft_cap=soft_cap, dropout_rate=dropout_rate, key=key)
    out_BNTH, weights_BNTS = weighted_values(
        additive_scores(q_BNTH, k_BKSH, weight_NH),
        v_BKSH,
        mask=mask,
        bias=bias,
        soft_cap=soft_cap,
        dropout_rate=dropout_rate,
        key=key,
    )
    return out_BNTH.astype(q_BNTH.dtype), weights_BNTS


def additive_scores(q_BNTH: jax.Array, k_BKSH: jax.Array, weight_NH: jax.Array) -> jax.Array:
    """wᵀ tanh(q + k): [B,N,T,S] float32."""
    check = Check("additive_scores")
    check.floats(q_BNTH=q_BNTH, k_BKSH=k_BKSH, weight_NH=weight_NH)
    check.heads()
    return _scores(q_BNTH, k_BKSH, weight_NH)


@jax.checkpoint
def _scores(q_BNTH: jax.Array, k_BKSH: jax.Array, weight_NH: jax.Array) -> jax.Array:
    B, N, T, H = q_BNTH.shape
    K, S = k_BKSH.shape[1:3]
    G = N // K
    q = q_BNTH.astype(jnp.float32).reshape(B, K, G, T, 1, H)
    k = k_BKSH.astype(jnp.float32).reshape(B, K, 1, 1, S, H)
    weight = weight_NH.astype(jnp.float32).reshape(1, K, G, 1, 1, H)
    return (jnp.tanh(q + k) * weight).sum(axis=-1).reshape(B, N, T, S)
