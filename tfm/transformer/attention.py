"""The attention of a layer, in the variant its configuration names."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax

from tfm import attention, positions
from tfm.attention import KeyValue, additive, kernels, linear
from tfm.attention.local import local_heads_first
from tfm.attention.ring import ring
from tfm.params import Tree
from tfm.sharding import NO_MESH, Layout
from tfm.transformer.config import Config
from tfm.transformer.context import Sight
from tfm.transformer.kernels import implementation, in_a_ring

Memory = KeyValue | linear.State
# Dimensions of queries [B,N,T,H], keys and values [B,K,S,H], segments [B,T].
_QUERIES = ("batch", "heads", "length", None)
_KEYS = ("batch", "kv_heads", "length", None)
_SEGMENTS = ("batch", "length")

Found = tuple[jax.Array, jax.Array | None]  # heads [B,N,T,H], weights [B,N,T,S]


class Look(NamedTuple):
    """What an attention looked up, and where it looked.

    Attributes:
      memory: the keys and values, or the state of linear attention.
      weights: [B,N,T,S] float32 where the variant forms them, else ``None``.
    """

    memory: Memory
    weights: jax.Array | None


def self_attention(
    params: Tree,
    x_BTD: jax.Array,
    c: Config,
    sight: Sight,
    remember: Callable[[KeyValue], Memory],
    key: jax.Array | None,
    layout: Layout,
) -> tuple[jax.Array, Look]:
    """Every token looks at its own sentence: [B,T,D].

    Args:
      remember: what fresh keys and values become before they are looked up: with a cache, all
        those so far.
      layout: the mesh that heads are spread over, if any.
    """
    fresh = attention.keys_values(params, x_BTD)
    turn = None if c.attention == "linear" else sight.turn  # that one turns its features itself
    if turn is not None:
        fresh = KeyValue(turn(fresh.k), fresh.v)
    memory = remember(_place_keys(fresh, c, sight, key, layout))
    q_BNTH = attention.queries(params, x_BTD)
    if turn is not None:
        q_BNTH = turn(q_BNTH)
    q_BNTH = layout.constrain(q_BNTH, *_QUERIES)
    softmax = functools.partial(_softmax, layout=layout)
    variant = {"softmax": softmax, "local": _local, "additive": _additive, "linear": _linear}
    heads, weights = variant[c.attention](params, q_BNTH, memory, c, sight, key)
    heads = layout.constrain(heads, *_QUERIES)
    return attention.output(params, heads), Look(memory, weights)


def cross_attention(
    params: Tree,
    x_BTD: jax.Array,
    kv: KeyValue,
    c: Config,
    sight: Sight,
    key: jax.Array | None,
    layout: Layout,
) -> tuple[jax.Array, Look]:
    """Every target token consults the source: [B,T,D]."""
    softmax = functools.partial(_softmax, layout=layout)
    variant = {"softmax": softmax, "additive": _additive}[c.cross_attention]
    kv = _place_keys(kv, c, sight, key, layout)
    q_BNTH = layout.constrain(attention.queries(params, x_BTD), *_QUERIES)
    heads, weights = variant(params, q_BNTH, kv, c, sight, key)
    heads = layout.constrain(heads, *_QUERIES)
    return attention.output(params, heads), Look(kv, weights)


def _place_keys(
    kv: KeyValue, c: Config, sight: Sight, key: jax.Array | None, layout: Layout
) -> KeyValue:
    """Keys and values where their heads are: in a ring in parts, else all places of a row."""
    names = _KEYS if _in_a_ring(c, sight, key, layout) else ("batch", "kv_heads", None, None)
    return KeyValue(*(layout.constrain(x, *names) for x in kv))


def _in_a_ring(c: Config, sight: Sight, key: jax.Array | None, layout: Layout) -> bool:
    own = sight.distances is not None
    return in_a_ring(c, self_attention=own, training=key is not None, layout=layout)


def _softmax(
    params: Tree,
    q: jax.Array,
    kv: KeyValue,
    c: Config,
    sight: Sight,
    key: jax.Array | None,
    layout: Layout = NO_MESH,
) -> Found:
    if _in_a_ring(c, sight, key, layout):
        return _ring(q, kv, c, sight, layout), None
    name, _ = implementation(
        c, q.shape[2], kv.k.shape[2],
        step=sight.segments is None, self_attention=sight.distances is not None,
        training=key is not None, layout=layout,
    )  # fmt: skip
    if name == "cudnn":
        heads = kernels.flash(q, *kv, *sight.segments, causal=sight.causal, bias=sight.bias)
        return heads, None
    if name == "splash":
        return _splash(q, kv, c, sight, layout), None
    return attention.attend_heads_first(
        q,
        *kv,
        mask=sight.mask,
        bias=sight.bias,
        relative=relative(params, sight),
        soft_cap=c.soft_cap,
        dropout_rate=c.attention_dropout,
        key=key,
    )


def _ring(q: jax.Array, kv: KeyValue, c: Config, sight: Sight, layout: Layout) -> jax.Array:
    (axis,) = layout.mesh_axes("length")
    kernel = functools.partial(ring, axis=axis, causal=sight.causal, soft_cap=c.soft_cap)
    return _on_each_device(kernel, q, kv, sight, layout)


def _splash(q: jax.Array, kv: KeyValue, c: Config, sight: Sight, layout: Layout) -> jax.Array:
    kernel = functools.partial(kernels.splash, causal=sight.causal, soft_cap=c.soft_cap)
    return _on_each_device(kernel, q, kv, sight, layout)


def _on_each_device(
    kernel: Callable[..., jax.Array], q: jax.Array, kv: KeyValue, sight: Sight, layout: Layout
) -> jax.Array:
    """Every device runs the kernel on its own sentences and heads: XLA cannot cut a kernel."""
    run = layout.shard_map(
        lambda *arrays: (kernel(*arrays),),
        (_QUERIES, _KEYS, _KEYS, _SEGMENTS, _SEGMENTS),
        (_QUERIES,),
    )
    return run(q, *kv, *sight.segments)[0]


def _local(
    params: Tree, q: jax.Array, kv: KeyValue, c: Config, sight: Sight, key: jax.Array | None
) -> Found:
    if sight.segments is None:  # a step: its mask hides what is beyond the window
        return _softmax(params, q, kv, c, sight, key)
    heads = local_heads_first(
        q,
        *kv,
        sight.segments[0],
        window=c.window,
        causal=sight.causal,
        bias=sight.bias,
        relative=relative(params, sight),
        soft_cap=c.soft_cap,
        dropout_rate=c.attention_dropout,
        key=key,
    )
    return heads, None


def _additive(
    params: Tree, q: jax.Array, kv: KeyValue, c: Config, sight: Sight, key: jax.Array | None
) -> Found:
    return additive.additive_heads_first(
        q,
        *kv,
        params["score"],
        mask=sight.mask,
        bias=sight.bias,
        soft_cap=c.soft_cap,
        dropout_rate=c.attention_dropout,
        key=key,
    )


def _linear(
    params: Tree, q: jax.Array, memory: Memory, c: Config, sight: Sight, key: jax.Array | None
) -> Found:
    if isinstance(memory, linear.State):
        return linear.read(memory, q, sight.turn), None
    heads = linear.linear_heads_first(
        q, *memory, sight.segments[0], causal=sight.causal, turn=sight.turn
    )
    return heads, None


def relative(params: Tree, sight: Sight) -> positions.Relative | None:
    """The scheme that keeps parameters in this layer, if there is one."""
    if "relative" not in params:
        return None
    scheme = positions.shaw if "keys" in params["relative"] else positions.transformer_xl
    return scheme(params["relative"], sight.distances)
