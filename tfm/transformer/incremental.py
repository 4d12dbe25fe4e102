"""Incremental decoding: one token further for every hypothesis, with a KV cache."""

import dataclasses

import jax
import jax.numpy as jnp

from tfm import attention, embeddings, masks
from tfm.attention import linear
from tfm.params import Tree, unstack
from tfm.transformer.cache import (
    Cache,
    LayerCache,
    cached_keys_values,
    empty_cache,
    to_cache,
)
from tfm.transformer.config import Architecture, Execution, compute_dtype
from tfm.transformer.context import cached_cross_context, step_context
from tfm.transformer.forward import embed_tokens, output_table
from tfm.transformer.layer import final_norm, layer


def inference_params(params: Tree, arch: Architecture, execution: Execution = Execution()) -> Tree:
    """The parameters as inference reads them: in the compute dtype, decoder layers as a list.

    Made once, when a model is loaded; ``encode``, ``decode`` and ``decode_step`` take them, and the
    float32 parameters they came from need not stay in memory.
    """
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
    longest = arch.positions.longest
    if longest is not None and max_length > longest:
        raise ValueError(
            f"{max_length} decoding steps, but the model has {longest} learned positions and none "
            "beyond: decode at most so many"
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


def decode_step(
    params: Tree,
    arch: Architecture,
    cache: Cache,
    tokens_BR: jax.Array,
    parents_BR: jax.Array,
    *,
    execution: Execution = Execution(),
) -> tuple[jax.Array, Cache]:
    """One token further for every hypothesis: the same numbers as ``decode`` at that position.

    Args:
      params: from ``inference_params``.
      tokens_BR: the newest token of each hypothesis.
      parents_BR: which hypothesis of the step before each one continues.

    Returns:
      Logits [B,R,V] float32 of the next token, and the cache.
    """
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
    layer_caches = []
    for p, own, cross in zip(
        decoder["layers"], cache.self_attention, cache.cross_attention, strict=True
    ):
        cross_kv = cached_keys_values(cross)
        output = layer(p, x_BRD, arch, context, cross_kv, cross_context, cache=own)
        x_BRD = output.x
        layer_caches.append(output.self_attention.cache)
    logits_BRV = embeddings.logits(final_norm(decoder, x_BRD), output_table(params, arch))
    cache = dataclasses.replace(
        cache, self_attention=tuple(layer_caches), ancestors=ancestors_BRT, step=cache.step + 1
    )
    return logits_BRV, cache
