"""Attention: a query looks at keys and takes a weighted mean of their values.

Letters: N query heads share K key/value heads, G = N / K queries each (multi-head K = N, grouped
1 < K < N (Ainslie 2023), multi-query K = 1 (Shazeer 2019)).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tfm import layers
from tfm.params import Param, Tree, like, xavier, zeros


def attend(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    scale: float | None = None,
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
      dropout_rate, key: dropout on the weights.
      return_weights: also return the weights [B,N,T,S], float32, before dropout.

    Returns:
      [B,T,N,H] in q's dtype. Scores and softmax are float32 inside.

    Raises:
      ValueError: N is not a multiple of K.
    """
    out_BNTH, weights_BNTS = attend_heads_first(
        *(x.swapaxes(1, 2) for x in (q_BTNH, k_BSKH, v_BSKH)),
        mask=mask,
        bias=bias,
        scale=scale,
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
    scale: float | None = None,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """``attend`` for arrays with heads before time, as caches keep them.

    Returns:
      ([B,N,T,H], weights [B,N,T,S]).
    """
    B, N, T, H = q_BNTH.shape
    K, S = k_BKSH.shape[1:3]
    if N % K:
        raise ValueError(f"attend: {N} query heads are not a multiple of {K} key/value heads")
    scale = H**-0.5 if scale is None else scale

    # The G queries of a key head become rows of one matrix: one product a key head.
    q_BKRH = q_BNTH.reshape(B, K, N // K * T, H)
    scores_BKRS = jnp.einsum("bkrh,bksh->bkrs", q_BKRH, k_BKSH, preferred_element_type=jnp.float32)
    scores_BNTS = scores_BKRS.reshape(B, N, T, S) * scale
    if bias is not None:
        scores_BNTS += bias
    weights_BNTS = masked_softmax(scores_BNTS, mask)

    dropped_BNTS = layers.dropout(weights_BNTS, dropout_rate, key).astype(v_BKSH.dtype)
    dropped_BKRS = dropped_BNTS.reshape(B, K, N // K * T, S)
    out_BKRH = jnp.einsum("bkrs,bksh->bkrh", dropped_BKRS, v_BKSH)
    return out_BKRH.reshape(B, N, T, H).astype(q_BNTH.dtype), weights_BNTS


def masked_softmax(scores: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Softmax over the last axis among the places the mask allows; an empty row gives zeros."""
    if mask is None:
        return jax.nn.softmax(scores, axis=-1)
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.where(mask, jax.nn.softmax(scores, axis=-1), 0.0)


class KeyValue(NamedTuple):
    """Projected keys and values, heads first: [B,K,S,H] each."""

    k: jax.Array
    v: jax.Array


def attention_params(d_model: int, heads: int, kv_heads: int, head_dim: int, bias: bool) -> Tree:
    """The four projections of one attention block."""

    def project(n: int, name: str) -> Tree:
        weight = Param((d_model, n, head_dim), ("embed", name, "head_dim"), xavier(0, (1, 2)))
        offset = Param((n, head_dim), (name, "head_dim"), zeros)
        return {"w": weight, "b": offset} if bias else {"w": weight}

    out = {"w": Param((heads, head_dim, d_model), ("heads", "head_dim", "embed"), xavier((0, 1)))}
    if bias:
        out["b"] = Param((d_model,), ("norm",), zeros)
    return {
        "q": project(heads, "heads"),
        "k": project(kv_heads, "kv_heads"),
        "v": project(kv_heads, "kv_heads"),
        "out": out,
    }


def _project(params: Tree, x_BTD: jax.Array) -> jax.Array:
    """[B,T,D] → heads first [B,N,T,H]."""
    y_BTNH = jnp.einsum("btd,dnh->btnh", x_BTD, params["w"].astype(x_BTD.dtype))
    if "b" in params:
        y_BTNH += like(params["b"], y_BTNH)
    return y_BTNH.swapaxes(1, 2)


def keys_values(params: Tree, x_BSD: jax.Array) -> KeyValue:
    """What others may look up in ``x``: its keys, and the values they stand for."""
    return KeyValue(_project(params["k"], x_BSD), _project(params["v"], x_BSD))


def multi_head(
    params: Tree,
    x_BTD: jax.Array,
    kv: KeyValue,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
    return_weights: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """Multi-head attention of ``x`` over keys and values (Vaswani 2017, §3.2.2).

    Self-attention passes ``keys_values(params, x)``; cross-attention the encoder's output instead
    of ``x``; cached decoding the keys and values kept from before.

    Returns:
      [B,T,D]; with ``return_weights`` also [B,N,T,S].
    """
    heads_BNTH, weights_BNTS = attend_heads_first(
        _project(params["q"], x_BTD),
        *kv,
        mask=mask,
        bias=bias,
        dropout_rate=dropout_rate,
        key=key,
    )
    weight_NHD = params["out"]["w"].astype(x_BTD.dtype)
    out_BTD = jnp.einsum("bnth,nhd->btd", heads_BNTH, weight_NHD)
    if "b" in params["out"]:
        out_BTD += like(params["out"]["b"], out_BTD)
    return (out_BTD, weights_BNTS) if return_weights else out_BTD
