"""The KV cache of stepwise decoding: what it holds, and how the next token is added."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from tfm.attention import KeyValue, linear
from tfm.transformer.context import AttentionContext


class KVCache(NamedTuple):
    """Keys and values of one layer.

    Keys are stored as columns, [B,K,H,S]: the few queries of a step then meet them in a plain
    matrix product, a fifth faster on the CPU. Values are [B,K,S,H].
    """

    k: jax.Array
    v: jax.Array


LayerCache = KVCache | linear.State


@flax.struct.dataclass
class Cache:
    """What stepwise decoding keeps, for B sentences with R hypotheses each and at most T steps.

    Keys and values are written once, at slot ``cursor % T * R + r``, and never moved: when search
    reorders hypotheses, only ``ancestors`` changes, and self-attention masks the slots that a
    hypothesis does not descend from. The slots are a ring with one cursor for all sentences, so a
    sentence may begin while others are under way: a slot is as far from the newest tokens in all of
    them, and a sentence sees the slots written since it began. Linear attention keeps a state a
    hypothesis instead, of a size that does not depend on T; each hypothesis takes its parent's.

    Attributes:
      self_attention: of each layer, the cache of the target so far, T*R slots.
      cross_attention: of each layer, the cache of the source, shared by all hypotheses.
      cross_mask: [B,1,1,S].
      ancestors: [B,R,T], the hypothesis at slot t from which the present one descends.
      step: [B], how many steps each sentence has taken: the position of its newest tokens.
      cursor: how many steps have been written, of whatever sentence.
    """

    self_attention: tuple[LayerCache, ...]
    cross_attention: tuple[KVCache, ...]
    cross_mask: jax.Array
    ancestors: jax.Array
    step: jax.Array
    cursor: jax.Array


def to_cache(kv: KeyValue) -> KVCache:
    """Keys and values in the layout of the cache."""
    return KVCache(kv.k.swapaxes(2, 3), kv.v)


def cached_keys_values(cache: LayerCache) -> KeyValue | linear.State:
    """What an attention reads: keys and values as it takes them; linear attention's state as is."""
    return cache if isinstance(cache, linear.State) else KeyValue(cache.k.swapaxes(2, 3), cache.v)


def empty_cache(
    batch: int, kv_heads: int, head_dim: int, hypotheses: int, max_length: int, dtype: jnp.dtype
) -> KVCache:
    """The cache of one layer with a slot for each of ``hypotheses`` tokens a step."""
    slots = max_length * hypotheses
    return KVCache(
        jnp.zeros((batch, kv_heads, head_dim, slots), dtype),
        jnp.zeros((batch, kv_heads, slots, head_dim), dtype),
    )


def update_cache(cache: LayerCache, kv: KeyValue, context: AttentionContext) -> LayerCache:
    """A layer's cache with the newest token of every hypothesis, kv [B,K,R,H]."""
    if isinstance(cache, linear.State):
        state = linear.reorder_state(cache, context.parents)
        return linear.update_state(state, *kv, context.rotate)
    R = kv.k.shape[2]
    slot = context.slot * R
    write, new = jax.lax.dynamic_update_slice_in_dim, to_cache(kv)
    return KVCache(write(cache.k, new.k, slot, axis=3), write(cache.v, new.v, slot, axis=2))
