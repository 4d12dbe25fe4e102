"""A batch of sentence pairs, packed or one pair a row."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tfm.shapes import Check

Array = jax.Array | np.ndarray


class Batch(NamedTuple):
    """What teacher forcing reads: int32 arrays, a pytree.

    Attributes:
      source: ids [B,S].
      source_segments: number of each token's sentence within its row, from 1; 0 is padding.
      source_positions: position of each token in its sentence, from 0.
      target_input: ids [B,T] that the decoder reads: bos, then the sentence without eos.
      target_segments, target_positions: [B,T], as of the source.
      target: ids [B,T] that the decoder is to predict, the labels: the sentence, then eos.
    """

    source: Array
    source_segments: Array
    source_positions: Array
    target_input: Array
    target_segments: Array
    target_positions: Array
    target: Array | None = None


def single_sentences(source_BS: Array, target_BT: Array, bos: int) -> Batch:
    """A batch with one pair a row.

    Args:
      source_BS, target_BT: ids, each sentence followed by padding with 0.
      bos: the id that the decoder starts from.
    """
    check = Check("single_sentences")
    check.ints(source_BS=source_BS, target_BT=target_BT)
    check.counts(0, bos=bos)
    xp = np if isinstance(target_BT, np.ndarray) else jnp
    source_segments, target_segments = (
        (ids != 0).astype(np.int32) for ids in (source_BS, target_BT)
    )
    first_B1 = xp.full((target_BT.shape[0], 1), bos, np.int32)
    return Batch(
        source=source_BS,
        source_segments=source_segments,
        source_positions=source_segments * np.arange(source_BS.shape[1], dtype=np.int32)[None],
        target_input=xp.concatenate([first_B1, target_BT[:, :-1]], axis=1),
        target_segments=target_segments,
        target_positions=target_segments * np.arange(target_BT.shape[1], dtype=np.int32)[None],
        target=target_BT,
    )
