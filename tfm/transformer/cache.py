"""Incremental decoding: one token further for every hypothesis, with what was computed kept."""

import functools
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from tfm import attention, embeddings, masks, transformer
from tfm.attention import KeyValue, linear
from tfm.params import Tree, unstack


class Kept(NamedTuple):
    """Keys and values as the cache holds them.

    Keys stand as columns, [B,K,H,S]: a step's few queries then meet them in a plain matrix product,
    a fifth faster on the CPU. Values are [B,K,S,H].
    """

    k: jax.Array
    v: jax.Array


def _keep(kv: KeyValue) -> Kept:
    return Kept(kv.k.swapaxes(2, 3), kv.v)


def _view(kept: Kept) -> KeyValue:
    return KeyValue(kept.k.swapaxes(2, 3), kept.v)


@flax.struct.dataclass
class Cache:
    """What stepwise decoding keeps, for B sentences with R hypotheses each and at most T steps.

    Keys and values are written once, at slot ``step * R + r``, and never moved: when search
    reorders hypotheses, only ``ancestors`` changes, and self-attention masks the slots that a
    hypothesis does not descend from. Linear attention keeps a state a hypothesis instead, of a size
    that does not depend on T, and takes its parent's.

    Attributes:
      own: a layer, keys and values of the target so far, T*R slots, or linear attention's state.
      cross: a layer, keys and values of the source, shared by all hypotheses.
      cross_mask: [B,1,1,S].
      ancestors: [B,R,T], the hypothesis at step t from which the present one descends.
      step: how many steps have been taken.
    """

    own: tuple[Kept | linear.State, ...]
    cross: tuple[Kept, ...]
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
    """An empty cache over an encoded source; ``params`` from ``for_decoding``.

    Raises:
      ValueError: more steps than there are learned positions.
    """
    if c.positions == "learned" and max_length > c.max_length:
        raise ValueError(
            f"{max_length} decoding steps, but the model has {c.max_length} learned positions and "
            "none for a place beyond: decode at most so many"
        )
    B = memory_BSD.shape[0]
    K, H = params["decoder"]["layers"][0]["self"]["k"]["w"].shape[1:]
    if c.attention == "linear":
        own = linear.empty_state(B, K, hypotheses, H)
    else:
        slots, dtype = max_length * hypotheses, memory_BSD.dtype
        own = Kept(jnp.zeros((B, K, H, slots), dtype), jnp.zeros((B, K, slots, H), dtype))
    return Cache(
        own=(own,) * c.decoder_layers,
        cross=tuple(
            _keep(attention.keys_values(p["cross"], memory_BSD))
            for p in params["decoder"]["layers"]
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
    sight = transformer.step(params["decoder"], c, self_mask, jnp.arange(T * R) // R, places_BR)
    cross_sight = transformer.Sight(cache.cross_mask)
    kept = []
    for weights, own, cross in zip(
        params["decoder"]["layers"], cache.own, cache.cross, strict=True
    ):
        x_BRD, looks = transformer.layer(
            weights,
            x_BRD,
            c,
            sight=sight,
            remember=functools.partial(_remember, own, cache.step, parents_BR, sight),
            cross=_view(cross),
            cross_sight=cross_sight,
        )
        memory = looks.own.memory
        kept.append(_keep(memory) if isinstance(memory, KeyValue) else memory)
    hidden_BRD = transformer.final_norm(params["decoder"], x_BRD)
    logits_BRV = embeddings.logits(hidden_BRD, transformer.output_table(params, c))
    cache = cache.replace(own=tuple(kept), ancestors=ancestors_BRT, step=cache.step + 1)
    return logits_BRV, cache


def _remember(
    own: Kept | linear.State,
    step: jax.Array,
    parents_BR: jax.Array,
    sight: transformer.Sight,
    new: KeyValue,
) -> KeyValue | linear.State:
    """A layer's memory with the newest token [B,K,R,H] of every hypothesis."""
    if isinstance(own, linear.State):
        return linear.add(linear.follow(own, parents_BR), *new, sight.turn)
    slot = step * parents_BR.shape[1]
    write, columns = jax.lax.dynamic_update_slice_in_dim, _keep(new).k
    return _view(Kept(write(own.k, columns, slot, axis=3), write(own.v, new.v, slot, axis=2)))
