"""Scores of translations against references, by sacreBLEU, each with its signature.

A signature names tokenizer, case, smoothing and sacreBLEU's version. Only scores with the same
signature are comparable (Post 2018).
"""

from collections.abc import Sequence
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


def _corpus_score(
    metric: BLEU | CHRF, hypotheses: Sequence[str], references: Sequence[str], name: str
) -> Score:
    _check(hypotheses, references)
    value = metric.corpus_score(list(hypotheses), [list(references)]).score
    return Score(value, str(metric.get_signature()), name)


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if len(hypotheses) != len(references):
        raise ValueError(
            f"{len(hypotheses)} hypotheses and {len(references)} references: a score needs one "
            "reference for each hypothesis"
        )
    if not references:
        raise ValueError("no sentence to score: the lists of hypotheses and references are empty")
