"""Word alignment from cross-attention: which source piece each target piece comes from."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from tfm.inspect.activations import activations, batch
from tfm.params import Tree
from tfm.transformer import Architecture, Batch, Execution
from tfm.translator import Translator


class Alignment(NamedTuple):
    """A text and its translation, piece by piece.

    Attributes:
      source, target: pieces, without eos.
      pairs: (source piece, target piece), counted from 0, by target piece.
    """

    source: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()

    def __add__(self, other: "Alignment") -> "Alignment":
        """The alignment of two texts, one after the other."""
        s, t = len(self.source), len(self.target)
        moved = tuple((i + s, j + t) for i, j in other.pairs)
        return Alignment(self.source + other.source, self.target + other.target, self.pairs + moved)

    def __str__(self) -> str:
        """The pairs in the Pharaoh format: ``0-0 1-2``."""
        return " ".join(f"{s}-{t}" for s, t in self.pairs)


def alignment_layer(layers: int) -> int:
    """The decoder layer whose cross-attention aligns best: the penultimate (Garg 2019, §3.1)."""
    return max(0, layers - 2)


def alignment_weights(weights_BLNTS: jax.Array) -> jax.Array:
    """The mean over heads of the cross-attention of ``alignment_layer``: [B,T,S]."""
    return weights_BLNTS[:, alignment_layer(weights_BLNTS.shape[1])].mean(axis=1)


def pairs(weights_TS: np.ndarray) -> tuple[tuple[int, int], ...]:
    """(s, t): the step that writes target piece t attends to source piece s most.

    The last row and column are eos. A piece whose step attends to eos most is not aligned.
    """
    best_T = weights_TS[:-1].argmax(axis=1).tolist()
    return tuple((s, t) for t, s in enumerate(best_T) if s < weights_TS.shape[1] - 1)


def align(model: Translator, texts: Sequence[Sequence[tuple[str, str]]]) -> list[Alignment]:
    """Aligns texts with their translations by this model; blank ones have no pairs.

    Args:
      texts: of each text, the (source, translation) of its parts: ``Translation.parts``, or one
        pair. No part is longer than the model takes.

    Raises:
      ValueError: an ensemble, which has no attention of its own.
    """
    if isinstance(model.arch, tuple):
        raise ValueError("alignments are those of one model, not of an ensemble")
    owners, parts = [], []
    for i, text in enumerate(texts):
        for source, target in text:
            if source.strip() and target.strip():
                owners.append(i)
                parts.append((model.source.encode(source), model.target.encode(target)))
    found = [Alignment()] * len(texts)
    for i, part in zip(owners, _align(model, parts), strict=True):
        found[i] += part
    return found


def _align(model: Translator, parts: list[tuple[list[int], list[int]]]) -> list[Alignment]:
    """Aligns pairs of ids, each ending with eos; pairs of similar lengths run together."""
    size, found = model.experiment.decode.batch_size, [Alignment()] * len(parts)
    order = sorted(range(len(parts)), key=lambda i: [len(ids) for ids in parts[i]])
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        rows = batch([parts[i][0] for i in chosen], [parts[i][1] for i in chosen], size, 8)
        weights_BTS = np.asarray(_weights(model.params, model.arch, rows, model.execution))
        for i, weights_TS in zip(chosen, weights_BTS, strict=False):
            source, target = parts[i]
            found[i] = Alignment(
                tuple(model.source.id_to_piece(source[:-1])),
                tuple(model.target.id_to_piece(target[:-1])),
                pairs(weights_TS[: len(target), : len(source)]),
            )
    return found


@functools.partial(jax.jit, static_argnames=("arch", "execution"))
def _weights(params: Tree, arch: Architecture, rows: Batch, execution: Execution) -> jax.Array:
    return alignment_weights(activations(params, arch, rows, execution).cross.weights_BLNTS)
