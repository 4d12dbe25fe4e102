"""Incremental decoding: one token further for every hypothesis, with cached keys and values."""

import functools

import flax.struct
import jax
import jax.numpy as jnp

from tfm import attention, embeddings, masks, transformer
from tfm.attention import KeyValue
from tfm.params import Tree, unstack


@flax.struct.dataclass
class Cache:
    """What stepwise decoding keeps, for B sentences with R hypotheses each and at most T steps.

    Keys and values are written once, at slot ``step * R + r``, and never moved: when search
    reorders hypotheses, only ``ancestors`` changes, and self-attention masks the slots that a
    hypothesis does not descend from.

    Attributes:
      own: a layer, keys and values of the target so far [B,K,T*R,H].
      cross: a layer, keys and values of the source [B,K,S,H], shared by all hypotheses.
      cross_mask: [B,1,1,S].
      ancestors: [B,R,T], the hypothesis at step t from which the present one descends.
      step: how many steps have been taken.
    """

    own: tuple[KeyValue, ...]
    cross: tuple[KeyValue, ...]
    cross_mask: jax.Array
    ancestors: jax.Array
    step: jax.Array


def for_decoding(params: Tree, c: transformer.Config) -> Tree:
    """The parameters as ``decode_step`` reads them: decoder layers apart, in the compute dtype."""
    dtype = transformer.compute_dtype(c)
    cast = lambda tree: jax.tree.map(lambda x: x.astype(dtype), tree)  # noqa: E731
    decoder = params["decoder"]
    return {
        "tables": cast(params["tables"]),
        "decoder": decoder | {"layers": unstack(cast(decoder["layers"]), c.decoder_layers)},
    }


def init_cache(
    params: Tree,
    c: transformer.Config,
    memory_BSD: jax.Array,
    valid_BS: jax.Array,
    *,
    hypotheses: int,
    max_length: int,
) -> Cache:
    """An empty cache over an encoded source; ``params`` from ``for_decoding``."""
    B = memory_BSD.shape[0]
    K, H = params["decoder"]["layers"][0]["self"]["k"]["w"].shape[1:]
    empty = jnp.zeros((B, K, max_length * hypotheses, H), memory_BSD.dtype)
    return Cache(
        own=(KeyValue(empty, empty),) * c.decoder_layers,
        cross=tuple(
            attention.keys_values(p["cross"], memory_BSD) for p in params["decoder"]["layers"]
        ),
        cross_mask=masks.padding(valid_BS),
        ancestors=jnp.zeros((B, hypotheses, max_length), jnp.int32),
        step=jnp.zeros((), jnp.int32),
    )


def decode_step(
    params: Tree, c: transformer.Config, cache: Cache, tokens_BR: jax.Array, parents_BR: jax.Array
) -> tuple[jax.Array, Cache]:
    """One token further for every hypothesis: the same numbers as ``decode`` at that position.

    Args:
      params: from ``for_decoding``.
      tokens_BR: the newest token of each hypothesis.
      parents_BR: which hypothesis of the step before each one continues.

    Returns:
      Logits [B,R,V] float32 of the token after, and the cache.
    """
    B, R = tokens_BR.shape
    T = cache.ancestors.shape[2]
    own_R = jnp.broadcast_to(jnp.arange(R, dtype=jnp.int32)[:, None], (B, R, 1))
    ancestors_BRT = jnp.take_along_axis(cache.ancestors, parents_BR[:, :, None], axis=1)
    ancestors_BRT = jax.lax.dynamic_update_slice_in_dim(ancestors_BRT, own_R, cache.step, axis=2)

    descends_BRTR = ancestors_BRT[..., None] == jnp.arange(R)[None, None, None, :]
    written_T = jnp.arange(T) <= cache.step
    self_mask = (descends_BRTR & written_T[None, None, :, None]).reshape(B, 1, R, T * R)

    places_BR = jnp.broadcast_to(cache.step, (B, R))
    x_BRD = transformer.embed_tokens(
        params, c, transformer.table_names(c)[1], "decoder", tokens_BR, places_BR
    )
    kept = []
    for weights, own, cross in zip(
        params["decoder"]["layers"], cache.own, cache.cross, strict=True
    ):

        def remember(new: KeyValue, own: KeyValue = own) -> KeyValue:
            write = functools.partial(
                jax.lax.dynamic_update_slice_in_dim, start_index=cache.step * R, axis=2
            )
            return KeyValue(write(own.k, new.k), write(own.v, new.v))

        x_BRD, kv = transformer.layer(
            weights,
            x_BRD,
            c,
            self_mask=self_mask,
            remember=remember,
            cross=cross,
            cross_mask=cache.cross_mask,
        )
        kept.append(kv)
    hidden_BRD = transformer.final_norm(params["decoder"], x_BRD)
    logits_BRV = embeddings.logits(hidden_BRD, transformer.output_table(params, c))
    cache = cache.replace(own=tuple(kept), ancestors=ancestors_BRT, step=cache.step + 1)
    return logits_BRV, cache
