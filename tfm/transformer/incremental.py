"""Incremental decoding: one token further for every hypothesis, with a KV cache."""

import dataclasses
from typing import Literal, get_args, overload

import jax
import jax.numpy as jnp

from tfm import attention, masks
from tfm.attention import linear
from tfm.params import Tree, unstack
from tfm.quantize import Int8, Weight, int8
from tfm.shapes import Check
from tfm.sharding import NO_MESH, Layout
from tfm.transformer import arguments
from tfm.transformer.cache import (
    Cache,
    KVCache,
    LayerCache,
    cached_keys_values,
    empty_cache,
    to_cache,
)
from tfm.transformer.config import Architecture, Execution, compute_dtype, table_names
from tfm.transformer.context import cached_cross_context, step_context
from tfm.transformer.forward import decoder_output, embed_tokens, logits
from tfm.transformer.layer import layer
from tfm.transformer.params import Side
from tfm.values import known_values


def inference_params(params: Tree, arch: Architecture, execution: Execution = Execution()) -> Tree:
    """The parameters as inference reads them: in the compute dtype, decoder layers as a list.

    Made once, when a model is loaded; ``encode``, ``decode`` and ``decode_step`` take them, and the
    float32 parameters they came from need not stay in memory. If ``execution.weights`` names a kind
    of its own for the weights of products, those of the layers are of that kind, and "output" is
    the output table in it, apart from a table that embeds tokens.
    """
    check = arguments.check_call("inference_params", arch=arch, execution=execution)
    for side in get_args(Side):
        arguments.check_side(check, params, arch, side)
    arguments.check_table(check, params, arch, 2)
    dtype = compute_dtype(execution)
    cast = lambda x: x if isinstance(x, Int8) else jnp.asarray(x, dtype)  # noqa: E731
    params = jax.tree.map(cast, params, is_leaf=lambda x: isinstance(x, Int8))
    decoder = params["decoder"]
    if not isinstance(decoder["layers"], list):
        layers = unstack(decoder["layers"], arch.decoder_layers)
        params = params | {"decoder": decoder | {"layers": layers}}
    if execution.weights == "auto" or "output" in params:
        return params
    return _with_weights(params, arch, execution.weights)


def inference_layout(layout: Layout, replicate: bool = False) -> Layout:
    """The layout of a search on the mesh of a training layout.

    Weights stay where they are. Sentences are sharded over mesh.data alone: where the weights are
    sharded over mesh.fsdp, a step then moves its few activations between devices, not the weights
    (Pope 2022, §3.2.2). A step has no length to shard over mesh.sequence.

    Args:
      replicate: every device has all weights, and sentences are sharded over all devices: faster
        where the weights fit, since devices then exchange only whether all are done.
    """
    arguments.check_call("inference_layout", layout=layout)
    if replicate:
        axes = () if layout.mesh is None else layout.mesh.axis_names
        rules = tuple((name, axes if name == "batch" else ()) for name, _ in layout.rules)
        return dataclasses.replace(layout, rules=rules)
    changed = {"batch": ("data",), "length": ()}
    rules = tuple((name, changed.get(name, axes)) for name, axes in layout.rules)
    return dataclasses.replace(layout, rules=rules)


def _with_weights(params: Tree, arch: Architecture, kind: Literal["bfloat16", "int8"]) -> Tree:
    """With the weights of products in another kind, prepared from those in the compute dtype."""

    def convert(path: tuple, x: jax.Array) -> Weight:
        names = [k.key for k in path if isinstance(k, jax.tree_util.DictKey)]
        inputs = _PRODUCTS.get("/".join(names[-2:])) if "relative" not in names else None
        return x if inputs is None else _of_kind(x, inputs, kind)

    def converted(side: Tree) -> Tree:
        return side | {"layers": jax.tree_util.tree_map_with_path(convert, side["layers"])}

    tables, (source, target, output) = params["tables"], table_names(arch)
    table_VD = tables[output]
    if output not in (source, target):
        tables = {name: tables[name] for name in (source, target)}
    sides = {side: converted(params[side]) for side in get_args(Side)}
    return params | sides | {"tables": tables, "output": _of_kind(table_VD, (-1,), kind)}


# The weights of products in a layer, with the axes that they sum over; perhaps stacked.
_PRODUCTS = {
    "q/w": (-3,), "k/w": (-3,), "v/w": (-3,), "out/w": (-3, -2),
    "ff/up": (-2,), "ff/gate": (-2,), "ff/down": (-2,),
}  # fmt: skip


def _of_kind(x: jax.Array, inputs: tuple[int, ...], kind: Literal["bfloat16", "int8"]) -> Weight:
    return int8(x, inputs) if kind == "int8" else x.astype(jnp.bfloat16)


def init_cache(
    params: Tree,
    arch: Architecture,
    memory_BSD: jax.Array,
    segments_BS: jax.Array,
    *,
    hypotheses: int,
    max_length: int,
    layout: Layout = NO_MESH,
) -> Cache:
    """An empty cache over an encoded source.

    Args:
      params: from ``inference_params``.
      segments_BS: 0 = padding.
      layout: the mesh that sentences and heads are sharded over, if any.

    Raises:
      ValueError: more steps than the position scheme has positions.
    """
    check = arguments.check_call("init_cache", arch=arch, layout=layout)
    check.floats(memory_BSD=memory_BSD)
    check.ints(segments_BS=segments_BS)
    check.counts(hypotheses=hypotheses, max_length=max_length)
    _check_decoder(check, params, arch)
    longest = arch.positions.longest
    if longest is not None and max_length > longest:
        raise check.error(
            f"max_length is {max_length} decoding steps, but the model has {longest} learned "
            "positions and none beyond: decode at most so many"
        )
    B, layers = memory_BSD.shape[0], params["decoder"]["layers"]
    K, H = layers[0]["self"]["k"]["w"].shape[1:]
    if arch.attention == "linear":
        own: LayerCache = linear.empty_state(B, K, hypotheses, H)
    else:
        own = empty_cache(B, K, H, hypotheses, max_length, memory_BSD.dtype)
    constrain = lambda cache: jax.tree.map(  # noqa: E731
        lambda x: layout.constrain(x, "batch", "kv_heads", *[None] * (x.ndim - 2)), cache
    )
    cross = tuple(to_cache(attention.keys_values(p["cross"], memory_BSD)) for p in layers)
    return Cache(
        self_attention=(constrain(own),) * arch.decoder_layers,
        # XLA would move the transposition of keys and values into the loop of a search.
        cross_attention=jax.lax.optimization_barrier(constrain(cross)),
        cross_mask=masks.padding(segments_BS),
        ancestors=jnp.zeros((B, hypotheses, max_length), jnp.int32),
        step=jnp.zeros(B, jnp.int32),
        cursor=jnp.zeros((), jnp.int32),
    )


@overload
def decode_step(
    params: Tree,
    arch: Architecture,
    cache: Cache,
    tokens_BR: jax.Array,
    parents_BR: jax.Array,
    *,
    execution: Execution = Execution(),
    layout: Layout = NO_MESH,
    return_attention: Literal[False] = False,
) -> tuple[jax.Array, Cache]: ...


@overload
def decode_step(
    params: Tree,
    arch: Architecture,
    cache: Cache,
    tokens_BR: jax.Array,
    parents_BR: jax.Array,
    *,
    execution: Execution = Execution(),
    layout: Layout = NO_MESH,
    return_attention: Literal[True],
) -> tuple[jax.Array, Cache, jax.Array]: ...


def decode_step(
    params: Tree,
    arch: Architecture,
    cache: Cache,
    tokens_BR: jax.Array,
    parents_BR: jax.Array,
    *,
    execution: Execution = Execution(),
    layout: Layout = NO_MESH,
    return_attention: bool = False,
) -> tuple[jax.Array, Cache] | tuple[jax.Array, Cache, jax.Array]:
    """One token further for every hypothesis: the same numbers as ``decode`` at that position.

    Args:
      params: from ``inference_params``.
      tokens_BR: the newest token of each hypothesis.
      parents_BR: which hypothesis of the step before each one continues.
      layout: the mesh that activations are sharded over, if any; see ``inference_layout``.
      return_attention: also return what each hypothesis attends to in the source.

    Returns:
      Logits [B,R,V] float32 of the next token, and the cache; with ``return_attention`` also the
      weights of cross-attention, [B,R,S], the mean over all heads and layers.
    """
    check = arguments.check_call("decode_step", arch=arch, execution=execution, layout=layout)
    _check_step(check, arch, cache, tokens_BR, parents_BR)
    _check_decoder(check, params, arch)
    arguments.check_table(check, params, arch, 2)
    B, R = tokens_BR.shape
    T = cache.ancestors.shape[2]
    slot = cache.cursor % T
    own_R = jnp.broadcast_to(jnp.arange(R, dtype=jnp.int32)[:, None], (B, R, 1))
    ancestors_BRT = jnp.take_along_axis(cache.ancestors, parents_BR[:, :, None], axis=1)
    ancestors_BRT = jax.lax.dynamic_update_slice_in_dim(ancestors_BRT, own_R, slot, axis=2)
    descends_BRTR = ancestors_BRT[..., None] == jnp.arange(R)[None, None, None, :]
    age_T = (slot - jnp.arange(T, dtype=jnp.int32)) % T
    written_BT = age_T[None] <= cache.step[:, None]
    mask = (descends_BRTR & written_BT[:, None, :, None]).reshape(B, 1, R, T * R)

    decoder, step_B = params["decoder"], cache.step
    x_BRD = embed_tokens(params, arch, "decoder", tokens_BR, step_B[:, None], execution, layout)
    context = step_context(decoder, arch, mask, jnp.repeat(-age_T, R), step_B, slot, parents_BR)
    cross_context = cached_cross_context(cache.cross_mask)
    layer_caches, weights = [], []
    for p, own, cross in zip(
        decoder["layers"], cache.self_attention, cache.cross_attention, strict=True
    ):
        cross_kv = cached_keys_values(cross)
        output = layer(p, x_BRD, arch, context, cross_kv, cross_context, cache=own, layout=layout)
        x_BRD = output.x
        layer_caches.append(output.self_attention.cache)
        weights.append(output.cross_attention.weights)
    logits_BRV = logits(params, arch, decoder_output(decoder, arch, x_BRD))
    logits_BRV = layout.constrain(logits_BRV, "batch", None, None)
    cache = dataclasses.replace(
        cache,
        self_attention=tuple(layer_caches),
        ancestors=ancestors_BRT,
        step=cache.step + 1,
        cursor=cache.cursor + 1,
    )
    if return_attention:
        return logits_BRV, cache, jnp.stack(weights).mean(axis=(0, 2))
    return logits_BRV, cache


def _check_decoder(check: Check, params: Tree, arch: Architecture) -> None:
    """The parameters of the decoder, with its layers as a list."""
    arguments.check_side(check, params, arch, "decoder")
    if not isinstance(params["decoder"]["layers"], list):
        raise check.error(
            "params['decoder']['layers'] is stacked; pass what inference_params(params, arch) gives"
        )


def _check_step(
    check: Check, arch: Architecture, cache: Cache, tokens_BR: jax.Array, parents_BR: jax.Array
) -> None:
    check.instance(Cache, cache=cache)
    check.ints(**{"cache.ancestors_BRT": cache.ancestors})
    check.ints(tokens_BR=tokens_BR, parents_BR=parents_BR)
    check.ints("B", **{"cache.step": cache.step})
    check.ints("", **{"cache.cursor": cache.cursor})
    check.within(arch.target_vocab, "the ids of arch.target_vocab", tokens_BR=tokens_BR)
    check.within(check.size("R"), "the hypotheses", parents_BR=parents_BR)
    for name in ("self_attention", "cross_attention"):
        _check_caches(check, arch, f"cache.{name}", getattr(cache, name))
    check.sizes["N"] = check.sizes["Q"] = 1, "all heads and queries"
    check.bools("BNQS", **{"cache.cross_mask": cache.cross_mask})
    step, most = known_values(cache.step), check.size("T")
    if step is not None and step.size and step.max() >= most:
        raise check.error(f"cache has room for {most} steps, and all are taken: make a longer one")


def _check_caches(
    check: Check, arch: Architecture, name: str, layers: tuple[LayerCache, ...]
) -> None:
    """The caches of all layers: self-attention's have Z = T * R slots, cross-attention's S."""
    check.sizes["Z"] = check.size("T") * check.size("R"), "cache.ancestors_BRT, T * R"
    check.sizes["V"] = check.sizes["H"]
    if len(layers) != arch.decoder_layers:
        raise check.error(
            f"{name} has {len(layers)} layers; arch.decoder_layers is {arch.decoder_layers}"
        )
    slots = "Z" if name.endswith("self_attention") else "S"
    for i, one in enumerate(layers):
        if slots == "Z" and arch.attention == "linear":
            check.instance(linear.State, **{f"{name}[{i}]": one})
            check.floats("BKRHV", **{f"{name}[{i}].kv": one.kv})
            check.floats("BKRH", **{f"{name}[{i}].k": one.k})
        else:
            check.instance(KVCache, **{f"{name}[{i}]": one})
            check.floats(f"BKH{slots}", **{f"{name}[{i}].k": one.k})
            check.floats(f"BK{slots}H", **{f"{name}[{i}].v": one.v})
