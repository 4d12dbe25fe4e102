"""The attention of a layer, in the variant that the architecture names."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from tfm import attention
from tfm.attention import KeyValue, additive, kernels, linear
from tfm.attention.local import local_heads_first
from tfm.attention.ring import ring
from tfm.params import Tree
from tfm.positions import Relative
from tfm.shapes import Check
from tfm.sharding import NO_MESH, Layout
from tfm.transformer import arguments
from tfm.transformer.cache import KVCache, LayerCache, cached_keys_values, update_cache
from tfm.transformer.config import Architecture
from tfm.transformer.context import AttentionContext, check_context
from tfm.transformer.scores import Scores, attention_scores

# Logical axes of queries [B,N,T,H], of keys and values [B,K,S,H], and of segments [B,T].
_QUERIES = ("batch", "heads", "length", None)
_KEYS = ("batch", "kv_heads", "length", None)
_SEGMENTS = ("batch", "length")


class AttentionOutput(NamedTuple):
    """What an attention gives.

    Attributes:
      out: [B,T,D].
      cache: of a decoding step, with the newest tokens added.
      weights: [B,N,T,S] float32, if the context keeps scores.
      scores: likewise.
    """

    out: jax.Array
    cache: LayerCache | None = None
    weights: jax.Array | None = None
    scores: Scores | None = None


def self_attention(
    params: Tree,
    x_BTD: jax.Array,
    arch: Architecture,
    context: AttentionContext,
    *,
    cache: LayerCache | None = None,
    key: jax.Array | None = None,
    layout: Layout = NO_MESH,
) -> AttentionOutput:
    """Every token attends to its own sentence.

    Args:
      cache: of a decoding step: keys and values of the tokens before.
      key: of dropout; ``None`` is inference.
      layout: the mesh that heads are sharded over, if any.
    """
    check = arguments.check_call("self_attention", arch=arch, layout=layout)
    check.floats(x_BTD=x_BTD)
    check_context(check, context, ("self", "step"))
    arguments.check_layer(check, params, arch, "encoder", "self")
    _check_cache(check, cache, context)
    check.optional_key(key)
    kv = attention.keys_values(params, x_BTD)
    q_BNTH = _queries(params, x_BTD, arch)
    scores = attention_scores(params, q_BNTH, kv.k, arch, context) if context.keep_scores else None
    if context.rotate is not None and arch.attention != "linear":  # which rotates its features
        q_BNTH, kv = context.rotate(q_BNTH), KeyValue(context.rotate(kv.k), kv.v)
    kv = _constrain_keys(kv, context, layout)
    if cache is not None:
        cache = update_cache(cache, kv, context)
    memory = kv if cache is None else cached_keys_values(cache)
    q_BNTH = layout.constrain(q_BNTH, *_QUERIES)
    attend = _VARIANTS[arch.attention]
    heads_BNTH, weights = attend(params, q_BNTH, memory, arch, context, key, layout)
    heads_BNTH = layout.constrain(heads_BNTH, *_QUERIES)
    return AttentionOutput(attention.output(params, heads_BNTH), cache, weights, scores)


def cross_attention(
    params: Tree,
    x_BTD: jax.Array,
    kv: KeyValue,
    arch: Architecture,
    context: AttentionContext,
    *,
    key: jax.Array | None = None,
    layout: Layout = NO_MESH,
) -> AttentionOutput:
    """Every target token attends to the source, whose keys and values are given."""
    check = arguments.check_call("cross_attention", arch=arch, layout=layout)
    check.floats(x_BTD=x_BTD)
    check.instance(KeyValue, kv=kv)
    check.floats("BKSH", **{"kv.k": kv.k, "kv.v": kv.v})
    check_context(check, context, ("cross",))
    arguments.check_layer(check, params, arch, "decoder", "cross")
    check.optional_key(key)
    kv = _constrain_keys(kv, context, layout)
    q_BNTH = layout.constrain(_queries(params, x_BTD, arch), *_QUERIES)
    scores = attention_scores(params, q_BNTH, kv.k, arch, context) if context.keep_scores else None
    attend = _VARIANTS[arch.cross_attention]
    heads_BNTH, weights = attend(params, q_BNTH, kv, arch, context, key, layout)
    heads_BNTH = layout.constrain(heads_BNTH, *_QUERIES)
    return AttentionOutput(attention.output(params, heads_BNTH), weights=weights, scores=scores)


def _queries(params: Tree, x_BTD: jax.Array, arch: Architecture) -> jax.Array:
    """Queries; those of another scale bring it with them, since every kernel divides by sqrt(H)."""
    q_BNTH = attention.queries(params, x_BTD)
    if not arch.attention_scale:
        return q_BNTH
    return q_BNTH * (arch.attention_scale * q_BNTH.shape[-1] ** 0.5)


def _check_cache(check: Check, cache: LayerCache | None, context: AttentionContext) -> None:
    """A step of cached decoding, and nothing else, has a cache."""
    if (cache is None) != (context.kind != "step"):
        given = "None" if cache is None else "given"
        raise check.error(
            f"cache is {given}, but context is of kind {context.kind!r}; a step, and nothing else, "
            "reads a KV cache"
        )
    if isinstance(cache, KVCache):
        check.floats("BKHS", **{"cache.k": cache.k})
        check.floats("BKSH", **{"cache.v": cache.v})
    elif cache is not None:
        check.instance(linear.State, cache=cache)


def _constrain_keys(kv: KeyValue, context: AttentionContext, layout: Layout) -> KeyValue:
    """Shards keys and values by heads, and in a ring by length; else each device has whole rows."""
    names = _KEYS if context.kernel == "ring" else ("batch", "kv_heads", None, None)
    return KeyValue(*(layout.constrain(x, *names) for x in kv))


# Each variant: (heads [B,N,T,H], weights [B,N,T,S] if it forms them).
_Heads = tuple[jax.Array, jax.Array | None]


def _dropout(arch: Architecture, key: jax.Array | None) -> dict[str, Any]:
    """Dropout on weights, off without a key, which is inference."""
    return {"dropout_rate": 0.0 if key is None else arch.attention_dropout, "key": key}


def _softmax(
    params: Tree,
    q_BNTH: jax.Array,
    kv: KeyValue,
    arch: Architecture,
    context: AttentionContext,
    key: jax.Array | None,
    layout: Layout,
) -> _Heads:
    if context.kernel == "cudnn":
        segments, causal, bias = context.segments, context.causal, context.bias
        return kernels.flash(q_BNTH, *kv, *segments, causal=causal, bias=bias), None
    if context.kernel != "xla":
        return _on_each_device(q_BNTH, kv, arch, context, layout), None
    return attention.attend_heads_first(
        q_BNTH,
        *kv,
        mask=context.mask,
        bias=context.bias,
        relative=relative_terms(params, arch, context),
        soft_cap=arch.soft_cap,
        **_dropout(arch, key),
    )


def _on_each_device(
    q_BNTH: jax.Array,
    kv: KeyValue,
    arch: Architecture,
    context: AttentionContext,
    layout: Layout,
) -> jax.Array:
    """A kernel that XLA cannot partition, run by every device on its own shards."""
    kernel: Callable[..., jax.Array] = kernels.splash
    if context.kernel == "ring":
        (axis,) = layout.mesh_axes("length")
        kernel = functools.partial(ring, axis=axis)
    run = layout.shard_map(
        lambda *arrays: (kernel(*arrays, causal=context.causal, soft_cap=arch.soft_cap),),
        (_QUERIES, _KEYS, _KEYS, _SEGMENTS, _SEGMENTS),
        (_QUERIES,),
    )
    return run(q_BNTH, *kv, *context.segments)[0]


def _local(
    params: Tree,
    q_BNTH: jax.Array,
    kv: KeyValue,
    arch: Architecture,
    context: AttentionContext,
    key: jax.Array | None,
    layout: Layout,
) -> _Heads:
    if context.kind == "step" or context.keep_scores:  # the mask hides what the window does not see
        return _softmax(params, q_BNTH, kv, arch, context, key, layout)
    heads_BNTH = local_heads_first(
        q_BNTH,
        *kv,
        context.segments[0],
        window=arch.window,
        causal=context.causal,
        bias=context.bias,
        relative=relative_terms(params, arch, context),
        soft_cap=arch.soft_cap,
        **_dropout(arch, key),
    )
    return heads_BNTH, None


def _additive(
    params: Tree,
    q_BNTH: jax.Array,
    kv: KeyValue,
    arch: Architecture,
    context: AttentionContext,
    key: jax.Array | None,
    layout: Layout,
) -> _Heads:
    del layout
    return additive.additive_heads_first(
        q_BNTH,
        *kv,
        params["score"],
        mask=context.mask,
        bias=context.bias,
        soft_cap=arch.soft_cap,
        **_dropout(arch, key),
    )


def _linear(
    params: Tree,
    q_BNTH: jax.Array,
    kv: KeyValue | linear.State,
    arch: Architecture,
    context: AttentionContext,
    key: jax.Array | None,
    layout: Layout,
) -> _Heads:
    del params, arch, key, layout
    if isinstance(kv, linear.State):
        return linear.attend_state(kv, q_BNTH, context.rotate), None
    attend = functools.partial(
        linear.linear_heads_first, causal=context.causal, rotate=context.rotate
    )
    heads_BNTH = attend(q_BNTH, *kv, context.segments[0])
    if not context.keep_scores:
        return heads_BNTH, None
    # It never forms its weights: one-hot vectors as values show them.
    (B, K, T, _), identity_TT = kv.k.shape, jax.numpy.eye(kv.k.shape[2])
    one_hot_BKTT = jax.numpy.broadcast_to(identity_TT, (B, K, T, T))
    return heads_BNTH, attend(q_BNTH, kv.k, one_hot_BKTT, context.segments[0])


_VARIANTS: dict[str, Callable[..., _Heads]] = {
    "softmax": _softmax,
    "local": _local,
    "additive": _additive,
    "linear": _linear,
}


def relative_terms(params: Tree, arch: Architecture, context: AttentionContext) -> Relative | None:
    """The terms of a relative position scheme in this layer; cross-attention has none."""
    if "relative" not in params:
        return None
    return arch.positions.relative(params["relative"], context.distances)
