"""Scores of translations against references, by sacreBLEU, each with its signature.

The signature names the tokenizer, the case, the smoothing and sacreBLEU's version: two scores
compare only where their signatures agree (Post 2018).
"""

from collections.abc import Sequence
from typing import NamedTuple

from sacrebleu.metrics import BLEU, CHRF


class Score(NamedTuple):
    """A corpus score.

    Attributes:
      value: in [0, 100]; higher is better.
      signature: how it was computed.
      name: "BLEU", "chrF" or "exact".
    """

    value: float
    signature: str
    name: str

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f} ({self.signature})"


def bleu(hypotheses: Sequence[str], references: Sequence[str], language: str) -> Score:
    """Corpus BLEU (Papineni et al. 2002) of detokenised text, mixed case, one reference each.

    Args:
      hypotheses, references: plain sentences, in the same order.
      language: of both; picks the tokenizer: sacreBLEU's ``zh`` for Chinese, ``char`` for Japanese
        and Korean (whose own tokenizers need a dictionary), ``13a`` otherwise. A region or script
        is passed over: "zh-Hans" is "zh".

    Raises:
      ValueError: lists that are empty or differ in length.
    """
    _check(hypotheses, references)
    metric = BLEU(tokenize=_tokenizer(language))
    value = metric.corpus_score(list(hypotheses), [list(references)]).score
    return Score(value, str(metric.get_signature()), "BLEU")


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Corpus chrF2 (Popović 2015): character 6-grams, the same for every language.

    Raises:
      ValueError: lists that are empty or differ in length.
    """
    _check(hypotheses, references)
    metric = CHRF()
    value = metric.corpus_score(list(hypotheses), [list(references)]).score
    return Score(value, str(metric.get_signature()), "chrF")


def exact_match(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Per cent of hypotheses equal to their reference, white space at the ends apart.

    Raises:
      ValueError: lists that are empty or differ in length.
    """
    _check(hypotheses, references)
    same = sum(h.strip() == r.strip() for h, r in zip(hypotheses, references, strict=True))
    return Score(100 * same / len(references), "strip:yes|case:mixed", "exact")


def _tokenizer(language: str) -> str:
    base = language.lower().replace("_", "-").split("-")[0]
    return {"zh": "zh", "ja": "char", "ko": "char"}.get(base, "13a")


def _check(hypotheses: Sequence[str], references: Sequence[str]) -> None:
    if len(hypotheses) != len(references):
        raise ValueError(
            f"{len(hypotheses)} hypotheses and {len(references)} references: a score needs one "
            "reference for each hypothesis"
        )
    if not references:
        raise ValueError("no sentence to score: the lists of hypotheses and references are empty")
