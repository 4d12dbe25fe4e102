"""Whom the queries of an attention may look at, and how far away it stands."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tfm import masks, positions
from tfm.attention.local import block_distances
from tfm.params import Tree
from tfm.positions import Distances
from tfm.transformer.config import ROTARY, Config


class Sight(NamedTuple):
    """What the layers of one side share.

    Attributes:
      mask: bool [B,1,T,S].
      causal: whether the mask hides the future.
      segments: of queries [B,T] and keys [B,S] when whole rows are read; ``None`` in a decoding
        step, whose keys are those of a cache.
      distances: of a relative position scheme; in local attention, those of a block.
      bias: of the scheme, if it is the same in every layer: [1,N,T,S], or a block's.
      turn: a rotary scheme's turn of queries or keys [B,N,T,H].
    """

    mask: jax.Array
    causal: bool = False
    segments: tuple[jax.Array, jax.Array] | None = None
    distances: Distances | None = None
    bias: jax.Array | None = None
    turn: Callable[[jax.Array], jax.Array] | None = None


def own_row(
    side: Tree, c: Config, segments_BT: jax.Array, places_BT: jax.Array, causal: bool
) -> Sight:
    """Self-attention over whole, perhaps packed, rows.

    Args:
      side: the parameters of the encoder or decoder, whose position table layers share.
    """
    length = segments_BT.shape[1]
    mask = masks.segment(segments_BT, segments_BT)
    if c.attention == "local":
        distances = block_distances(length, c.window, causal)
    else:
        distances = positions.side_by_side(length, length)
    return Sight(
        mask=masks.combine(mask, masks.causal(length)) if causal else mask,
        causal=causal,
        segments=(segments_BT, segments_BT),
        distances=distances,
        bias=_bias(side, c, distances, bidirectional=not causal),
        turn=_turn(c, places_BT),
    )


def across(segments_BT: jax.Array, memory_segments_BS: jax.Array) -> Sight:
    """Cross-attention over whole rows; it has no positions."""
    mask = masks.segment(segments_BT, memory_segments_BS)
    return Sight(mask, segments=(segments_BT, memory_segments_BS))


def step(
    side: Tree, c: Config, mask: jax.Array, key_places_S: jax.Array, places_BR: jax.Array
) -> Sight:
    """Self-attention of a decoding step: R hypotheses at one place, the keys of all before.

    Args:
      mask: [B,1,R,S], who descends from whom.
      key_places_S: the place of every slot of the cache.
      places_BR: the place of the newest token, the same everywhere.
    """
    distances = positions.from_one_place(key_places_S, places_BR[0, 0])
    if c.attention == "local":
        mask &= (distances.values_M >= -c.window)[None, None, None]
    return Sight(
        mask=mask,
        causal=True,
        distances=distances,
        bias=_bias(side, c, distances, bidirectional=False),
        turn=_turn(c, places_BR),
    )


def _bias(side: Tree, c: Config, distances: Distances, bidirectional: bool) -> jax.Array | None:
    if c.positions == "t5":
        return positions.t5_bias(
            side["positions"].astype(jnp.float32),
            distances,
            max_distance=c.relative_max_distance,
            bidirectional=bidirectional,
        )
    return positions.alibi_bias(distances, c.heads) if c.positions == "alibi" else None


def _turn(c: Config, places_BT: jax.Array) -> Callable[[jax.Array], jax.Array] | None:
    if c.positions not in ROTARY:
        return None
    return lambda x_BNTH: positions.rotate(
        x_BNTH,
        places_BT[:, None],
        interleaved=c.positions == "rotary_interleaved",
        base=c.rotary_base,
        scaling=c.rotary_scaling,
    )
