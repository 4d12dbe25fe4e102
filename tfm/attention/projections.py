"""The projections around attention: from the model's width to heads and back."""

from typing import NamedTuple

import jax

from tfm import layers, quantize
from tfm.attention.dot_product import attend_heads_first, check_scores
from tfm.params import Param, Tree, like, ones, xavier, zeros
from tfm.shapes import Check

_QUERIES = {"q/w": "DNH", "q/b?": "NH", "q_norm/scale?": "H"}
_KEYS_VALUES = {"k/w": "DKH", "k/b?": "KH", "v/w": "DKH", "v/b?": "KH", "k_norm/scale?": "H"}
_OUTPUT = {"out/w": "NHE", "out/b?": "E"}  # E is D in a Transformer, where a residual adds them


class KeyValue(NamedTuple):
    """Projected keys and values, heads first: [B,K,S,H] each."""

    k: jax.Array
    v: jax.Array


def attention_params(
    d_model: int, heads: int, kv_heads: int, head_dim: int, bias: bool, qk_norm: bool = False
) -> Tree:
    """The four projections of one attention block, and the scales of its query-key norm.

    Raises:
      ValueError: a size below 1; N is not a multiple of K.
    """
    check = Check("attention_params", N=(heads, "heads"), K=(kv_heads, "kv_heads"))
    check.counts(d_model=d_model, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    check.heads()

    def project(n: int, name: str) -> Tree:
        weight = Param((d_model, n, head_dim), ("embed", name, "head_dim"), xavier(0, (1, 2)))
        offset = Param((n, head_dim), (name, "head_dim"), zeros)
        return {"w": weight, "b": offset} if bias else {"w": weight}

    out = {"w": Param((heads, head_dim, d_model), ("heads", "head_dim", "embed"), xavier((0, 1)))}
    if bias:
        out["b"] = Param((d_model,), ("norm",), zeros)
    scale = {"scale": Param((head_dim,), ("head_dim",), ones)}
    return {
        "q": project(heads, "heads"),
        "k": project(kv_heads, "kv_heads"),
        "v": project(kv_heads, "kv_heads"),
        "out": out,
    } | ({"q_norm": scale, "k_norm": scale} if qk_norm else {})


def _project(params: Tree, x_BTD: jax.Array) -> jax.Array:
    """[B,T,D] → heads first [B,N,T,H]."""
    N, H = params["w"].shape[1:]
    y_BTNH = quantize.project(x_BTD, quantize.matrix(params["w"], 1))
    y_BTNH = y_BTNH.reshape(*x_BTD.shape[:-1], N, H)
    if "b" in params:
        y_BTNH += like(params["b"], y_BTNH)
    return y_BTNH.swapaxes(1, 2)


def queries(params: Tree, x_BTD: jax.Array) -> jax.Array:
    """Projected queries: [B,T,D] → [B,N,T,H].

    With a query-key norm, an RMSNorm is applied to each head's queries and keys (Dehghani 2023, §2,
    with RMSNorm for LayerNorm), which bounds the scores whatever the size of the projections.
    """
    check = Check("queries")
    check.floats(x_BTD=x_BTD)
    check.params(params, _QUERIES, "attention_params")
    q_BNTH = _project(params["q"], x_BTD)
    return layers.rms_norm(q_BNTH, params["q_norm"]["scale"]) if "q_norm" in params else q_BNTH


def keys_values(params: Tree, x_BSD: jax.Array) -> KeyValue:
    """Projected keys and values: [B,S,D] → [B,K,S,H] each."""
    check = Check("keys_values")
    check.floats(x_BSD=x_BSD)
    check.params(params, _KEYS_VALUES, "attention_params")
    k_BKSH, v_BKSH = _project(params["k"], x_BSD), _project(params["v"], x_BSD)
    if "k_norm" in params:
        k_BKSH = layers.rms_norm(k_BKSH, params["k_norm"]["scale"])
    return KeyValue(k_BKSH, v_BKSH)


def output(params: Tree, heads_BNTH: jax.Array) -> jax.Array:
    """The output projection of all heads: [B,N,T,H] → [B,T,D]."""
    check = Check("output")
    check.floats(heads_BNTH=heads_BNTH)
    check.params(params, _OUTPUT, "attention_params")
    B, N, T, H = heads_BNTH.shape
    heads_BTF = heads_BNTH.swapaxes(1, 2).reshape(B, T, N * H)
    out_BTD = quantize.project(heads_BTF, quantize.matrix(params["out"]["w"], 2))
    if "b" in params["out"]:
        out_BTD += like(params["out"]["b"], out_BTD)
    return out_BTD


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

    For self-attention pass ``keys_values(params, x)``, for cross-attention ``keys_values`` of the
    encoder's output, for cached decoding the KV cache. Other variants of attention put their own
    function between ``queries`` and ``output``.

    Args:
      mask, bias, dropout_rate, key: as in ``attend``.

    Returns:
      [B,T,D]; with ``return_weights`` also [B,N,T,S].
    """
    check = Check("multi_head")
    check.instance(KeyValue, kv=kv)
    check.floats(x_BTD=x_BTD)
    check.params(params, _QUERIES | _OUTPUT, "attention_params")
    check.floats("BKSH", **{"kv.k": kv.k, "kv.v": kv.v})
    check_scores(check, mask=mask, bias=bias, dropout_rate=dropout_rate, key=key)
    heads_BNTH, weights_BNTS = attend_heads_first(
        queries(params, x_BTD), *kv, mask=mask, bias=bias, dropout_rate=dropout_rate, key=key
    )
    out_BTD = output(params, heads_BNTH)
    return (out_BTD, weights_BNTS) if return_weights else out_BTD
