"""Which source piece each target piece comes from, read off cross-attention."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from tfm import transformer
from tfm.inspect.activations import batch, record
from tfm.params import Tree
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


def telling(weights_BLNTS: jax.Array) -> jax.Array:
    """Of all layers and heads the weights that follow words best: [B,T,S].

    The mean of the heads of the last layer but one (Garg 2019, §3.1); of a single layer, that one.
    """
    return weights_BLNTS[:, max(0, weights_BLNTS.shape[1] - 2)].mean(axis=1)


def pairs(weights_TS: np.ndarray) -> tuple[tuple[int, int], ...]:
    """(s, t): the step that writes piece t looks at piece s most.

    The last row and column are eos. A piece whose step looks at eos most comes from nowhere.
    """
    best_T = weights_TS[:-1].argmax(axis=1).tolist()
    return tuple((s, t) for t, s in enumerate(best_T) if s < weights_TS.shape[1] - 1)


def align(model: Translator, sources: Sequence[str], targets: Sequence[str]) -> list[Alignment]:
    """Aligns texts with their translations by this model; blank ones have no pairs.

    A source longer than the model takes is cut in parts as the translator does. They are
    translated once more, since ``targets`` do not say where a part ends.
    """
    owners, parts = [], []
    for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
        cut = model.parts(source) if target.strip() else []
        translated = [target] if len(cut) == 1 else model.translate(cut)
        owners += [i] * len(cut)
        parts += [
            (model.source.encode(s), model.target.encode(t))
            for s, t in zip(cut, translated, strict=True)
        ]
    whole = [Alignment()] * len(sources)
    for i, part in zip(owners, _align(model, parts), strict=True):
        whole[i] += part
    return whole


def _align(model: Translator, parts: list[tuple[list[int], list[int]]]) -> list[Alignment]:
    """Aligns pairs of ids, each ending with eos; similar lengths run together."""
    size, found = model.config.decode.batch_size, [Alignment()] * len(parts)
    order = sorted(range(len(parts)), key=lambda i: [len(ids) for ids in parts[i]])
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        rows = batch([parts[i][0] for i in chosen], [parts[i][1] for i in chosen], size, 8)
        weights_BTS = np.asarray(_weights(model.params, model.config.model, rows))
        for i, weights_TS in zip(chosen, weights_BTS, strict=False):
            source, target = parts[i]
            found[i] = Alignment(
                tuple(model.source.processor.id_to_piece(source[:-1])),
                tuple(model.target.processor.id_to_piece(target[:-1])),
                pairs(weights_TS[: len(target), : len(source)]),
            )
    return found


@functools.partial(jax.jit, static_argnames="c")
def _weights(params: Tree, c: transformer.Config, rows: dict[str, jax.Array]) -> jax.Array:
    return telling(record(params, c, rows).cross.weights_BLNTS)
