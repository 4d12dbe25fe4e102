"""How a model tells positions apart: what it adds to its input, or to its scores by distance."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from tfm import embeddings, transformer
from tfm.inspect.activations import Activations, Attention
from tfm.params import Tree
from tfm.transformer import Architecture, Execution


@flax.struct.dataclass
class PositionPicture:
    """What a position scheme does, in numbers to draw.

    Attributes:
      added_PD: what is added to the encoder's input at positions 0..P-1; ``None`` if nothing is.
      decoder_added_PD: the same of the decoder, where it has learned a table of its own.
      cosines_PC: of a rotation: the cosine of each channel pair's angle at distances 0..P-1.
      distances_M: key's position less the query's, as far as the sentence goes.
      encoder_NM, decoder_NM: what a relative scheme adds to the scaled scores of the first layer,
        by head and distance, in the mean over the sentence; ``None`` without such a scheme.
    """

    added_PD: np.ndarray | None
    decoder_added_PD: np.ndarray | None
    cosines_PC: np.ndarray | None
    distances_M: np.ndarray
    encoder_NM: np.ndarray | None
    decoder_NM: np.ndarray | None


def draw(params: Tree, arch: Architecture, run: Activations, count: int) -> PositionPicture:
    """The scheme of ``arch`` at ``count`` positions, and in one sentence's activations (B = 1)."""
    scheme = arch.positions
    longest = max(run.encoder.mask_BTS.shape[1], run.decoder.mask_BTS.shape[1])
    distances_M = np.arange(1 - longest, longest)
    by_distance = scheme.acts_on in ("rotation", "bias", "relative") and arch.attention != "linear"
    added = scheme.acts_on == "input"
    own_table = added and "positions" in params["decoder"]
    return PositionPicture(
        added_PD=_added(params, arch, "encoder", count) if added else None,
        decoder_added_PD=_added(params, arch, "decoder", count) if own_table else None,
        cosines_PC=_cosines(arch, count),
        distances_M=distances_M,
        encoder_NM=_by_distance(run.encoder, distances_M) if by_distance else None,
        decoder_NM=_by_distance(run.decoder, distances_M) if by_distance else None,
    )


def _added(params: Tree, arch: Architecture, side: str, count: int) -> np.ndarray:
    """What ``embed_tokens`` adds to the scaled rows of a side's table."""
    count = min(count, arch.positions.longest or count)
    name = transformer.table_names(arch)[("encoder", "decoder").index(side)]
    ids_1P = np.zeros((1, count), np.int32)
    arch = dataclasses.replace(arch, embedding_norm=False)

    @jax.jit
    def both(params: Tree, positions_1P: jax.Array) -> tuple[jax.Array, jax.Array]:
        words_1PD = embeddings.embed(ids_1P, params["tables"][name]) * transformer.embedding_scale(
            arch
        )
        float32 = Execution(dtype="float32")
        x_1PD = transformer.embed_tokens(params, arch, side, ids_1P, positions_1P, float32)
        return x_1PD, words_1PD

    x_1PD, words_1PD = both(params, np.arange(count)[None])
    return np.asarray(x_1PD, np.float32)[0] - np.asarray(words_1PD, np.float32)[0]


def _cosines(arch: Architecture, count: int) -> np.ndarray | None:
    frequencies_C = arch.positions.frequencies(transformer.head_width(arch))
    if frequencies_C is None:
        return None
    return np.asarray(jnp.cos(jnp.multiply.outer(jnp.arange(count), frequencies_C)))


def _by_distance(a: Attention, distances_M: np.ndarray) -> np.ndarray:
    """Mean of what the first layer adds over the visible pairs at each distance; nan if none."""
    added_NTS, mask_TS = a.added_BLNTS[0, 0], a.mask_BTS[0]
    T = mask_TS.shape[0]
    distance_TS = np.arange(T)[None, :] - np.arange(T)[:, None]
    columns = []
    for d in distances_M.tolist():
        at_TS = mask_TS & (distance_TS == d)
        columns.append(added_NTS[:, at_TS].mean(axis=1) if at_TS.any() else np.nan)
    return np.stack(np.broadcast_arrays(*columns), axis=1)
