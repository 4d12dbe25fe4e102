"""How a model tells places apart: what it adds to its input, or to its scores by distance."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from tfm import embeddings, transformer
from tfm.inspect.activations import Record
from tfm.inspect.stack import Attention
from tfm.params import Tree


@flax.struct.dataclass
class Places:
    """A position scheme, drawn.

    Attributes:
      added_PD: what is added to the encoder's input at places 0..P-1; ``None`` if nothing is.
      decoder_added_PD: the same of the decoder, where it has learned a table of its own.
      cosines_PC: a rotary scheme: the cosine of each channel pair's angle at distances 0..P-1.
      distances_M: key's place less the query's, as far as the sentence goes.
      encoder_NM, decoder_NM: what a relative scheme adds to the scaled scores of the first layer,
        a head and distance, in the mean over the sentence; ``None`` without such a scheme.
    """

    added_PD: np.ndarray | None
    decoder_added_PD: np.ndarray | None
    cosines_PC: np.ndarray | None
    distances_M: np.ndarray
    encoder_NM: np.ndarray | None
    decoder_NM: np.ndarray | None


def draw(params: Tree, c: transformer.Config, run: Record, places: int) -> Places:
    """The scheme of ``c``, at ``places`` places and in what ``run`` (B = 1) recorded."""
    longest = max(run.encoder.mask_BTS.shape[1], run.decoder.mask_BTS.shape[1])
    distances_M = np.arange(1 - longest, longest)
    relative = c.positions not in ("sinusoidal", "learned", "none") and c.attention != "linear"
    added, learned = c.positions in ("sinusoidal", "learned"), c.positions == "learned"
    return Places(
        added_PD=_added(params, c, "encoder", places) if added else None,
        decoder_added_PD=_added(params, c, "decoder", places) if learned else None,
        cosines_PC=_cosines(c, places),
        distances_M=distances_M,
        encoder_NM=_by_distance(run.encoder, distances_M) if relative else None,
        decoder_NM=_by_distance(run.decoder, distances_M) if relative else None,
    )


def _added(params: Tree, c: transformer.Config, side: str, places: int) -> np.ndarray:
    """What ``embed_tokens`` adds to the scaled rows of a side's table."""
    c = dataclasses.replace(c, dtype="float32")
    places = min(places, c.max_length) if c.positions == "learned" else places
    source, target, _ = transformer.table_names(c)
    table, ids_1P = source if side == "encoder" else target, np.zeros((1, places), np.int32)

    def both(params: Tree, places_1P: jax.Array) -> tuple[jax.Array, jax.Array]:
        words_1PD = embeddings.embed(ids_1P, params["tables"][table], c.lookup) * c.d_model**0.5
        x_1PD = transformer.embed_tokens(params, c, table, side, ids_1P, places_1P)
        return x_1PD, words_1PD

    x_1PD, words_1PD = jax.jit(both)(params, np.arange(places)[None])
    return np.asarray(x_1PD)[0] - np.asarray(words_1PD)[0]


def _cosines(c: transformer.Config, places: int) -> np.ndarray | None:
    """Turns the first channel of every pair: what stays of it is the cosine."""
    if c.positions not in transformer.ROTARY:
        return None
    ones_1P = jnp.ones((1, places), jnp.int32)
    turn = transformer.own_row({}, c, ones_1P, jnp.arange(places)[None], causal=False).turn
    H = transformer.head_width(c)
    first = slice(0, H, 2) if c.positions == "rotary_interleaved" else slice(0, H // 2)
    x_H = jnp.zeros(H).at[first].set(1.0)
    return np.asarray(turn(jnp.broadcast_to(x_H, (1, 1, places, H))))[0, 0, :, first]


def _by_distance(a: Attention, distances_M: np.ndarray) -> np.ndarray:
    """Mean of what the first layer adds over the visible pairs at each distance; nan if none."""
    added_NTS, mask_TS = a.added_BLNTS[0, 0], a.mask_BTS[0]
    T = mask_TS.shape[0]
    apart_TS = np.arange(T)[None, :] - np.arange(T)[:, None]
    columns = []
    for d in distances_M.tolist():
        here_TS = mask_TS & (apart_TS == d)
        columns.append(added_NTS[:, here_TS].mean(axis=1) if here_TS.any() else np.nan)
    return np.stack(np.broadcast_arrays(*columns), axis=1)
