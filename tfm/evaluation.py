"""Scores of translations against references, by sacreBLEU, each with its signature.

A signature names tokenizer, case, smoothing and sacreBLEU's version. Only scores with the same
signature are comparable (Post 2018).
"""

import re
from collections.abc import Sequence, Set
from typing import NamedTuple

from sacrebleu.metrics import BLEU, CHRF

from tfm.data import languages


class Score(NamedTuple):
    """A corpus score.

    Attributes:
      value: in [0, 100]; higher is better.
      signature: how the score was computed.
      name: "BLEU", "chrF" or "exact".
    """

    value: float
    signature: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f} ({self.signature})"


def bleu(hypotheses: Sequence[str], references: Sequence[str], language: str) -> Score:
    """Computes corpus BLEU (Papineni et al. 2002) of detokenised, cased text, one reference each.

    Args:
      hypotheses, references: sentences as plain text, in the same order.
      language: code of their language; it selects the tokenizer (see ``languages.Language``).

    Raises:
      ValueError: lists that are empty or differ in length.
    """
    metric = BLEU(tokenize=languages.language(language).bleu_tokenizer)
    return _corpus_score(metric, hypotheses, references, "BLEU")


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Computes corpus chrF2 (Popović 2015): character 6-grams, the same for every language.

    Raises:
      ValueError: lists that are empty or differ in length.
    """
    return _corpus_score(CHRF(), hypotheses, references, "chrF")


def exact_match(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Computes the percentage of hypotheses that equal their reference, up to outer white space.

    Raises:
      ValueError: lists that are empty or differ in length.
    """
    _check(hypotheses, references)
    same = sum(h.strip() == r.strip() for h, r in zip(hypotheses, references, strict=True))
    return Score(100 * same / len(references), "strip:yes|case:mixed", "exact")


Links = Set[tuple[int, int]]


def alignment_error_rate(
    found: Sequence[Links], sure: Sequence[Links], possible: Sequence[Links]
) -> Score:
    """Computes the alignment error rate (Och and Ney 2003), in percent: lower is better.

    1 - (|A∩S| + |A∩P|) / (|A| + |S|), of the links A found, the sure ones S and the possible ones
    P, to which the sure ones are counted too.

    Raises:
      ValueError: lists that are empty or differ in length, or no link in them.
    """
    _check(found, sure)
    right = total = 0
    for a, s, p in zip(found, sure, possible, strict=True):
        right += len(a & s) + len(a & (p | s))
        total += len(a) + len(s)
    if not total:
        raise ValueError("no link to score: all alignments are empty")
    return Score(100 * (1 - right / total), "links:words", "AER")


def read_links(line: str) -> tuple[Links, Links]:
    """Reads (sure, possible) links in the Pharaoh format: ``0-0 1p2 2?2``, p and ? for possible.

    Raises:
      ValueError: something else.
    """
    sure, possible = set(), set()
    for link in line.split():
        match = re.fullmatch(r"(\d+)([-p?])(\d+)", link)
        if match is None:
            raise ValueError(f"{link!r} is no link: write 0-0 for a sure one, 0p0 for a possible")
        pair = int(match[1]), int(match[3])
        possible.add(pair)
        if match[2] == "-":
            sure.add(pair)
    return sure, possible


def _corpus_score(
    metric: BLEU | CHRF, hypotheses: Sequence[str], references: Sequence[str], name: str
) -> Score:
    _check(hypotheses, references)
    value = metric.corpus_score(list(hypotheses), [list(references)]).score
    return Score(value, str(metric.get_signature()), name)


def _check(hypotheses: Sequence, references: Sequence) -> None:
    if len(hypotheses) != len(references):
        raise ValueError(
            f"{len(hypotheses)} hypotheses and {len(references)} references: a score needs one "
            "reference for each hypothesis"
        )
    if not references:
        raise ValueError("no sentence to score: the lists of hypotheses and references are empty")
