"""Alignment and the probability of each piece of translations, in few compiled shapes."""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tfm import transformer
from tfm.data.tokenizer import BOS
from tfm.inspect.activations import activations
from tfm.inspect.alignment import Alignment, alignment_weights, pairs
from tfm.params import Tree
from tfm.transformer import Architecture, Batch, Execution
from tfm.translator import Translator, buckets, programs

_ROWS = 4  # of a batch


class Annotation(NamedTuple):
    """What the model thinks of a translation, piece by piece.

    Attributes:
      alignment: of the pieces.
      probabilities: of each target piece, given the source and the pieces before it.
    """

    alignment: Alignment = Alignment()
    probabilities: tuple[float, ...] = ()

    def __add__(self, other: "Annotation") -> "Annotation":
        """The annotation of two texts, one after the other."""
        probabilities = self.probabilities + other.probabilities
        return Annotation(self.alignment + other.alignment, probabilities)


def annotate(model: Translator, texts: Sequence[tuple[str, str]]) -> list[Annotation]:
    """Annotates each (source, translation).

    Empty texts, sources longer than the model takes, and translations longer than the model's own
    have no pieces. What is compiled depends on the source's padded length alone: see ``warm_up``.
    """
    limit = model.experiment.data.source_length
    found, ids, sizes = [Annotation()] * len(texts), {}, []
    for i, (source, target) in enumerate(texts):
        pair = model.source.encode(source), model.target.encode(target)
        size = buckets.length(len(pair[0]), limit)
        fits = len(pair[0]) <= limit and len(pair[1]) <= _target_width(model, size)
        if source.strip() and target.strip() and fits:
            ids[i] = pair
            sizes.append((size, i))
    chosen = [i for _, i in sizes]
    for S, batch in buckets.group([size for size, _ in sizes], _ROWS):
        rows = [chosen[k] for k in batch]
        annotated = _annotate(model, [ids[i] for i in rows], S)
        for i, annotation in zip(rows, annotated, strict=True):
            found[i] = annotation
    return found


def warm_up(model: Translator) -> Iterator[int]:
    """Compiles all that ``annotate`` needs; yields each padded length that is done."""
    limit = model.experiment.data.source_length
    for S in buckets.lengths(limit):
        _annotate(model, [([BOS], [BOS])], S)
        yield S


def _target_width(model: Translator, source_tokens: int) -> int:
    decode = model.experiment.decode
    return programs.max_target_tokens(model.arch, decode, source_tokens)


def _annotate(
    model: Translator, pairs_of_ids: Sequence[tuple[list[int], list[int]]], S: int
) -> list[Annotation]:
    """Annotates pairs of ids, each ending with eos, whose sources are padded to S."""
    sides = zip(*pairs_of_ids, strict=True)
    widths = (S, _target_width(model, S))
    source_BS, target_BT = (
        buckets.pad(side, _ROWS, width) for side, width in zip(sides, widths, strict=True)
    )
    batch = transformer.single_sentences(source_BS, target_BT, bos=BOS)
    out = _program(model.params, model.arch, batch, target_BT, model.execution)
    weights_BTS, probabilities_BT = map(np.asarray, out)
    return [
        Annotation(
            Alignment(
                tuple(model.source.id_to_piece(source[:-1])),
                tuple(model.target.id_to_piece(target[:-1])),
                pairs(weights_BTS[row, : len(target), : len(source)]),
            ),
            tuple(probabilities_BT[row, : len(target) - 1].tolist()),
        )
        for row, (source, target) in enumerate(pairs_of_ids)
    ]


@functools.partial(jax.jit, static_argnames=("arch", "execution"))
def _program(
    params: Tree, arch: Architecture, batch: Batch, target_BT: jax.Array, execution: Execution
) -> tuple[jax.Array, jax.Array]:
    """The weights to align by [B,T,S], and the probability of each target piece [B,T]."""
    run = activations(params, arch, batch, execution)
    log_probs_BTV = jax.nn.log_softmax(run.logits_BTV.astype(jnp.float32))
    log_probs_BT1 = jnp.take_along_axis(log_probs_BTV, target_BT[..., None], axis=-1)
    return alignment_weights(run.cross.weights_BLNTS), jnp.exp(log_probs_BT1[..., 0])
