"""The comparison itself: scores with paired bootstrap, scores by length, recall of rare words."""

import collections
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

from tfm import evaluation
from tfm.data.languages import language

Tokenize = Callable[[str], str]

_RARITIES = ((1, 1), (2, 4), (5, 20), (21, None))


class System(NamedTuple):
    """The scores of one system.

    Attributes:
      name: of the system.
      bleu, chrf: of the whole test set.
      interval: half of the 95 % confidence interval of BLEU, by bootstrap.
      p_bleu, p_chrf: the probability that a difference from the first system at least as large
        comes about by chance (paired bootstrap, Koehn 2004); None for the first system.
    """

    name: str
    bleu: float
    chrf: float
    interval: float
    p_bleu: float | None
    p_chrf: float | None


class Bucket(NamedTuple):
    """A part of the test set.

    Attributes:
      label: what it consists of: "11-20", a range of lengths or frequencies.
      size: its sentences, or its words.
      values: a score of each system.
    """

    label: str
    size: int
    values: tuple[float, ...]


class Example(NamedTuple):
    """A sentence on which systems differ.

    Attributes:
      source, reference: of the test set.
      outputs: of each system.
      scores: chrF of each output.
    """

    source: str
    reference: str
    outputs: tuple[str, ...]
    scores: tuple[float, ...]


class Comparison(NamedTuple):
    """What ``compare`` finds.

    Attributes:
      systems: the first one is what the others are compared with.
      lengths: BLEU by the length of the reference, in tokens.
      words: the share of a reference's words that an output has too, in percent, by how often
        a word occurs in all references.
      examples: where the last system is ahead of the first by most; then where it is behind.
      signatures: of BLEU and chrF.
      resamples: of the bootstrap.
    """

    systems: tuple[System, ...]
    lengths: tuple[Bucket, ...]
    words: tuple[Bucket, ...]
    examples: tuple[tuple[Example, ...], tuple[Example, ...]]
    signatures: tuple[str, str]
    resamples: int


def compare(
    sources: Sequence[str],
    references: Sequence[str],
    outputs: Mapping[str, Sequence[str]],
    target: str,
    *,
    resamples: int = 1000,
    examples: int = 10,
) -> Comparison:
    """Compares systems' translations of a test set.

    Args:
      sources, references: the test set, sentence by sentence.
      outputs: name → translations; at least two systems.
      target: code of the language translated into.
      resamples: of the paired bootstrap, whose generator has a fixed seed.
      examples: at most so many sentences in each direction.

    Raises:
      ValueError: fewer than two systems, or lists that differ in length.
    """
    if len(outputs) < 2:
        raise ValueError(f"compare: {len(outputs)} system; two or more can be compared")
    for name, lines in {"sources": sources, **outputs}.items():
        if len(lines) != len(references) or not references:
            raise ValueError(
                f"compare: {name} has {len(lines):,} lines and the references have "
                f"{len(references):,}: line N of one must belong to line N of the other"
            )
    tokens = language(target).bleu_tokenizer
    bleu = BLEU(tokenize=tokens)
    tokenize = _tokenizer(tokens)
    return Comparison(
        _systems(references, outputs, tokens, resamples),
        _by_length(references, outputs, bleu, tokenize),
        _by_word(references, outputs, tokenize),
        _examples(sources, references, outputs, examples),
        (
            evaluation.bleu(references, references, target).signature,
            evaluation.chrf(references, references).signature,
        ),
        resamples,
    )


def _tokenizer(name: str) -> Tokenize:
    """sacreBLEU's tokenizer of that name: text → tokens with spaces between them."""
    return BLEU(tokenize=name).tokenizer


def _systems(
    references: Sequence[str], outputs: Mapping[str, Sequence[str]], tokens: str, resamples: int
) -> tuple[System, ...]:
    metrics = {"BLEU": BLEU(tokenize=tokens), "chrF2": CHRF()}
    named: list[Any] = [(name, list(lines)) for name, lines in outputs.items()]
    found: Any
    _, found = PairedTest(named, metrics, [list(references)], "bs", n_samples=resamples)()
    return tuple(
        System(name, bleu.score, chrf.score, bleu.ci, bleu.p_value, chrf.p_value)
        for name, bleu, chrf in zip(outputs, found["BLEU"], found["chrF2"], strict=True)
    )


def _by_length(
    references: Sequence[str], outputs: Mapping[str, Sequence[str]], bleu: BLEU, tokenize: Tokenize
) -> tuple[Bucket, ...]:
    """BLEU by length, in at most five parts of about equal size."""
    lengths = [len(tokenize(reference).split()) for reference in references]
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    edges = sorted({lengths[order[len(order) * k // 5]] for k in range(5)} | {max(lengths) + 1})
    buckets = []
    for low, high in itertools.pairwise(edges):
        own = [i for i in order if low <= lengths[i] < high]
        scores = (
            bleu.corpus_score([lines[i] for i in own], [[references[i] for i in own]]).score
            for lines in outputs.values()
        )
        label = f"{low}" if high == low + 1 else f"{low}-{high - 1}"
        buckets.append(Bucket(label, len(own), tuple(scores)))
    return tuple(buckets)


def _by_word(
    references: Sequence[str], outputs: Mapping[str, Sequence[str]], tokenize: Tokenize
) -> tuple[Bucket, ...]:
    """Recall of words by their frequency in all references."""
    words = [collections.Counter(tokenize(reference).split()) for reference in references]
    frequency = sum(words, collections.Counter())
    found = {
        name: [collections.Counter(tokenize(line).split()) for line in lines]
        for name, lines in outputs.items()
    }
    buckets = []
    for low, high in _RARITIES:
        rare = {w for w, n in frequency.items() if n >= low and (high is None or n <= high)}
        count = sum(n for own in words for w, n in own.items() if w in rare)
        if count:
            hits = (
                sum(min(n, out[w]) for own, out in zip(words, outs, strict=True)
                    for w, n in own.items() if w in rare)
                for outs in found.values()
            )  # fmt: skip
            label = f"{low}+" if high is None else f"{low}" if low == high else f"{low}-{high}"
            buckets.append(Bucket(label, count, tuple(100 * hit / count for hit in hits)))
    return tuple(buckets)


def _examples(
    sources: Sequence[str],
    references: Sequence[str],
    outputs: Mapping[str, Sequence[str]],
    count: int,
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The sentences with the largest differences of chrF between the first and the last system."""
    chrf = CHRF()
    rows = []
    for source, reference, *lines in zip(sources, references, *outputs.values(), strict=True):
        if lines[0] != lines[-1]:
            scores = tuple(chrf.sentence_score(line, [reference]).score for line in lines)
            rows.append(Example(source, reference, tuple(lines), scores))
    rows.sort(key=lambda row: row.scores[0] - row.scores[-1])
    ahead = [row for row in rows if row.scores[-1] > row.scores[0]][:count]
    behind = [row for row in reversed(rows) if row.scores[-1] < row.scores[0]][:count]
    return tuple(ahead), tuple(behind)
