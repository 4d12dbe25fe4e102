"""Incremental decoding: one token further for every hypothesis, with a KV cache."""

import dataclasses
from typing import Literal, get_args, overload

import jax
import jax.numpy as jnp

from tfm import attention, embeddings, masks
from tfm.attention import linear
from tfm.params import Tree, unstack
from tfm.shapes import Check
from tfm.transformer import arguments
from tfm.transformer.cache import (
    Cache,
    KVCache,
    LayerCache,
    cached_keys_values,
    empty_cache,
    to_cache,
)
from tfm.transformer.config import Architecture, Execution, compute_dtype
from tfm.transformer.context import cached_cross_context, step_context
from tfm.transformer.forward import embed_tokens, output_table
from tfm.transformer.layer import final_norm, layer
from tfm.transformer.params import Side
from tfm.values import known_values


def inference_params(params: Tree, arch: Architecture, execution: Execution = Execution()) -> Tree:
    """The parameters as inference reads them: in the compute dtype, decoder layers as a list.

    Made once, when a model is loaded; ``encode``, ``decode`` and ``decode_step`` take them, and the
    float32 parameters they came from need not stay in memory.
    """
    check = arguments.check_call("inference_params", arch=arch, execution=execution)
    for side in get_args(Side):
        arguments.check_side(check, params, arch, side)
    arguments.check_table(check, params, arch, 2)
    dtype = compute_dtype(execution)
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), params)
    decoder = params["decoder"]
    if isinstance(decoder["layers"], list):
        return params
    layers = unstack(decoder["layers"], arch.decoder_layers)
    return params | {"decoder": decoder | {"layers": layers}}


def init_cache(
    params: Tree,
    arch: Architecture,
    memory_BSD: jax.Array,
    segments_BS: jax.Array,
    *,
    hypotheses: int,
    max_length: int,
) -> Cache:
    """An empty cache over an encoded source.

    Args:
      params: from ``inference_params``.
      segments_BS: 0 = padding.

    Raises:
      ValueError: more steps than the position scheme has positions.
    """
    check = arguments.check_call("init_cache", arch=arch)
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
    cross = (attention.keys_values(p["cross"], memory_BSD) for p in layers)
    return Cache(
        self_attention=(own,) * arch.decoder_layers,
        cross_attention=tuple(map(to_cache, cross)),
        cross_mask=masks.padding(segments_BS),
        ancestors=jnp.zeros((B, hypotheses, max_length), jnp.int32),
        step=jnp.zeros((), jnp.int32),
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
    return_attention: bool = False,
) -> tuple[jax.Array, Cache] | tuple[jax.Array, Cache, jax.Array]:
    """One token further for every hypothesis: the same numbers as ``decode`` at that position.

    Args:
      params: from ``inference_params``.
      tokens_BR: the newest token of each hypothesis.
      parents_BR: which hypothesis of the step before each one continues.
      return_attention: also return what each hypothesis attends to in the source.

    Returns:
      Logits [B,R,V] float32 of the next token, and the cache; with ``return_attention`` also the
      weights of cross-attention, [B,R,S], the mean over all heads and layers.
    """
    check = arguments.check_call("decode_step", arch=arch, execution=execution)
    _check_step(check, arch, cache, tokens_BR, parents_BR)
    _check_decoder(check, params, arch)
    arguments.check_table(check, params, arch, 2)
    B, R = tokens_BR.shape
    T = cache.ancestors.shape[2]
    own_R = jnp.broadcast_to(jnp.arange(R, dtype=jnp.int32)[:, None], (B, R, 1))
    ancestors_BRT = jnp.take_along_axis(cache.ancestors, parents_BR[:, :, None], axis=1)
    ancestors_BRT = jax.lax.dynamic_update_slice_in_dim(ancestors_BRT, own_R, cache.step, axis=2)
    descends_BRTR = ancestors_BRT[..., None] == jnp.arange(R)[None, None, None, :]
    written_T = jnp.arange(T) <= cache.step
    mask = (descends_BRTR & written_T[None, None, :, None]).reshape(B, 1, R, T * R)

    decoder, positions_BR = params["decoder"], jnp.broadcast_to(cache.step, (B, R))
    x_BRD = embed_tokens(params, arch, "decoder", tokens_BR, positions_BR, execution)
    key_positions = jnp.arange(T * R) // R
    context = step_context(decoder, arch, mask, key_positions, cache.step, parents_BR)
    cross_context = cached_cross_context(cache.cross_mask)
    layer_caches, weights = [], []
    for p, own, cross in zip(
        decoder["layers"], cache.self_attention, cache.cross_attention, strict=True
    ):
        cross_kv = cached_keys_values(cross)
        output = layer(p, x_BRD, arch, context, cross_kv, cross_context, cache=own)
        x_BRD = output.x
        layer_caches.append(output.self_attention.cache)
        weights.append(output.cross_attention.weights)
    logits_BRV = embeddings.logits(final_norm(decoder, x_BRD), output_table(params, arch))
    cache = dataclasses.replace(
        cache, self_attention=tuple(layer_caches), ancestors=ancestors_BRT, step=cache.step + 1
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
    check.ints("", **{"cache.step": cache.step})
    check.within(arch.target_vocab, "the ids of arch.target_vocab", tokens_BR=tokens_BR)
    check.within(check.size("R"), "the hypotheses", parents_BR=parents_BR)
    for name in ("self_attention", "cross_attention"):
        _check_caches(check, arch, f"cache.{name}", getattr(cache, name))
    check.sizes["N"] = check.sizes["Q"] = 1, "all heads and queries"
    check.bools("BNQS", **{"cache.cross_mask": cache.cross_mask})
    step, most = known_values(cache.step), check.size("T")
    if step is not None and step >= most:
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
