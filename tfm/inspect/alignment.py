"""Word alignment from cross-attention: which source piece each target piece comes from.

Which layer and head align best differs between models: ``tfm evaluate --alignment`` tries them all
on pairs whose alignment is known.
"""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tfm.data import languages
from tfm.data.tokenizer import Tokenizer, normalise
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


class Method(NamedTuple):
    """How alignments are read off cross-attention, [L,N,T,S] of a pair.

    Attributes:
      layer: decoder layer, from 1; 0 is the mean over all.
      head: from 1; 0 is the mean over all.
      shift: whether a target piece is aligned by the step that reads it, in place of the one that
        writes it (Chen 2020, "Accurate word alignment induction from neural machine translation").
      rest: a source piece that no target piece attends to most is aligned to the one that attends
        to it most, if with at least this weight; above 1 it is not.
    """

    layer: int
    head: int = 0
    shift: bool = False
    rest: float = 2.0

    def __str__(self) -> str:
        head = f".{self.head}" if self.head else ""
        rest = f":{self.rest:g}" if self.rest <= 1 else ""
        return f"{self.layer or 'all'}{head}{'+shift' if self.shift else ''}{rest}"


def method(text: str, arch: Architecture) -> Method:
    """Reads a method as it is written: LAYER[.HEAD][+shift][:REST], "all" for a mean over layers.

    Without text, that of ``alignment_layer``.

    Raises:
      ValueError: no such method, or the model has no such layer or head.
    """
    if not text:
        return Method(alignment_layer(arch.decoder_layers) + 1)
    match = re.fullmatch(r"(all|\d+)(?:\.(\d+))?(\+shift)?(?::(\d*\.?\d+))?", text)
    if match is None:
        raise ValueError(f"alignment by {text!r}: write LAYER[.HEAD][+shift][:REST], such as 2:0.1")
    layer, head, shift, rest = match.groups()
    found = Method(
        0 if layer == "all" else int(layer), int(head or 0), bool(shift), float(rest or 2)
    )
    if found.layer > arch.decoder_layers or found.head > arch.heads or layer == "0":
        raise ValueError(
            f"alignment by {text!r}: the model has layers 1 to {arch.decoder_layers} and heads 1 "
            f"to {arch.heads}"
        )
    return found


def methods(arch: Architecture) -> list[Method]:
    """All that ``evaluate`` tries: layers, heads, their means, with and without shift and rest."""
    return [
        Method(layer, head, shift, rest)
        for layer in range(arch.decoder_layers + 1)
        for head in range(arch.heads + 1 if layer else 1)
        for shift in (False, True)
        for rest in ((2.0,) if head or shift else (2.0, 0.3, 0.2, 0.1))
    ]


def alignment_layer(layers: int) -> int:
    """The decoder layer whose cross-attention aligns best: the penultimate (Garg 2019, §3.1)."""
    return max(0, layers - 2)


def alignment_weights(weights_BLNTS: jax.Array) -> jax.Array:
    """The mean over heads of the cross-attention of ``alignment_layer``: [B,T,S]."""
    return weights_BLNTS[:, alignment_layer(weights_BLNTS.shape[1])].mean(axis=1)


def pairs(weights_TS: np.ndarray, rest: float = 2.0) -> tuple[tuple[int, int], ...]:
    """(s, t): the step of target piece t attends to source piece s most.

    The last row and column are eos. A piece whose step attends to eos most is not aligned.

    Args:
      rest: as in ``Method``.
    """
    best_T = weights_TS[:-1].argmax(axis=1).tolist()
    found = [(s, t) for t, s in enumerate(best_T) if s < weights_TS.shape[1] - 1]
    missing = set(range(weights_TS.shape[1] - 1)) - {s for s, _ in found}
    if rest <= 1 and len(best_T):
        best_S = weights_TS[:-1].argmax(axis=0).tolist()
        found += [(s, best_S[s]) for s in missing if weights_TS[best_S[s], s] >= rest]
    return tuple(sorted(found, key=lambda pair: (pair[1], pair[0])))


def align(
    model: Translator, texts: Sequence[Sequence[tuple[str, str]]], by: Method | None = None
) -> list[Alignment]:
    """Aligns texts with their translations by this model; blank ones have no pairs.

    Args:
      texts: of each text, the (source, translation) of its parts: ``Translation.parts``, or one
        pair. No part is longer than the model takes.
      by: that of ``alignment_layer`` by default.

    Raises:
      ValueError: an ensemble, which has no attention of its own.
    """
    if isinstance(model.arch, tuple):
        raise ValueError("alignments are those of one model, not of an ensemble")
    return align_by(model, texts, [by or method("", model.arch)])[0]


def align_by(
    model: Translator, texts: Sequence[Sequence[tuple[str, str]]], by: Sequence[Method]
) -> list[list[Alignment]]:
    """The alignments of ``align`` for each of several methods."""
    owners, parts = [], []
    for i, text in enumerate(texts):
        for source, target in text:
            if source.strip() and target.strip():
                owners.append(i)
                parts.append((model.source.encode(source), model.target.encode(target)))
    found = [[Alignment()] * len(texts) for _ in by]
    for i, own in zip(owners, _align(model, parts, by), strict=True):
        for k, part in enumerate(own):
            found[k][i] += part
    return found


def _align(
    model: Translator, parts: list[tuple[list[int], list[int]]], by: Sequence[Method]
) -> list[list[Alignment]]:
    """Aligns pairs of ids, each ending with eos; pairs of similar lengths run together."""
    size = model.experiment.decode.batch_size
    found: list[list[Alignment]] = [[]] * len(parts)
    order = sorted(range(len(parts)), key=lambda i: [len(ids) for ids in parts[i]])
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        rows = batch([parts[i][0] for i in chosen], [parts[i][1] for i in chosen], size, 8)
        run = _weights(model.params, model.arch, rows, model.execution, tuple(by))
        weights = [np.asarray(weights_BTS) for weights_BTS in run]
        for k, i in enumerate(chosen):
            source, target = parts[i]
            pieces = (
                tuple(model.source.id_to_piece(source[:-1])),
                tuple(model.target.id_to_piece(target[:-1])),
            )
            found[i] = [
                Alignment(*pieces, pairs(w[k, : len(target), : len(source)], m.rest))
                for m, w in zip(by, weights, strict=True)
            ]
    return found


@functools.partial(jax.jit, static_argnames=("arch", "execution", "by"))
def _weights(
    params: Tree, arch: Architecture, rows: Batch, execution: Execution, by: tuple[Method, ...]
) -> list[jax.Array]:
    """[B,T,S] of each method; of a shifted one, row t is of the step that reads target piece t."""
    weights_BLNTS = activations(params, arch, rows, execution).cross.weights_BLNTS
    found = []
    for one in by:
        layers = slice(one.layer - 1, one.layer) if one.layer else slice(None)
        heads = slice(one.head - 1, one.head) if one.head else slice(None)
        weights_BTS = weights_BLNTS[:, layers, heads].mean(axis=(1, 2))
        found.append(jnp.roll(weights_BTS, -1, axis=1) if one.shift else weights_BTS)
    return found


def word_links(
    alignment: Alignment, source: str, target: str, tokenizers: tuple[Tokenizer, Tokenizer]
) -> set[tuple[int, int]]:
    """Words of ``languages.words`` of which any pieces are aligned, both counted from 0."""
    texts = normalise(source), normalise(target)
    s, t = (_words_of(tok, text) for tok, text in zip(tokenizers, texts, strict=True))
    return {(a, b) for i, j in alignment.pairs for a in s[i] for b in t[j]}


def _words_of(tokenizer: Tokenizer, text: str) -> list[list[int]]:
    """The words that each piece of a text is part of."""
    words, result, end = languages.words(text), [], 0
    for piece in tokenizer.pieces(text):
        start = end
        if len(piece) == 6 and piece.startswith("<0x"):  # bytes spell a letter together
            end += int(piece[3:5], 16) & 0xC0 != 0x80
            start = end - 1
        else:
            end += len(piece) - (end == 0 and piece.startswith("\u2581"))
        result.append([k for k, (a, b) in enumerate(words) if a < end and b > start])
    return result
