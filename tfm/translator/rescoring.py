"""Ranks the translations that a search found anew, by their texts."""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import sacrebleu

from tfm.data.languages import language
from tfm.decoding import Decode
from tfm.decoding.mbr import expected_utilities


def utility(name: Literal["chrf", "bleu"], target: str) -> Callable[[str, str], float]:
    """sacreBLEU's chrF, or BLEU with its tokenizer for a language, of one sentence, 0 to 100."""
    metric: Any = sacrebleu.CHRF()
    if name == "bleu":
        tokenizer = language(target).bleu_tokenizer
        metric = sacrebleu.BLEU(tokenize=tokenizer, effective_order=True)
    return lambda hypothesis, reference: metric.sentence_score(hypothesis, [reference]).score


def minimum_bayes_risk(translations: list[Any], decode: Decode, target: str) -> list[Any]:
    """Distinct translations, the one of the largest expected utility first; it is their ``score``.

    Samples weigh as often as they were drawn, those of a beam by their probability.

    Args:
      target: the language's code.
    """
    of_text: dict[str, Any] = {}
    for one in translations:  # several segmentations spell one text: the likeliest stands for it
        kept = of_text.setdefault(one.text, one)
        if one.log_prob > kept.log_prob:
            of_text[one.text] = one
    if len(of_text) == 1 and not np.isfinite(translations[0].log_prob):
        return translations[:1]  # search found nothing
    if decode.mbr_over == "sample":
        counts = collections.Counter(one.text for one in translations)
        weights = [float(counts[text]) for text in of_text]
    else:
        best = max(one.log_prob for one in translations)
        probabilities = dict.fromkeys(of_text, 0.0)
        for one in translations:
            probabilities[one.text] += float(np.exp(one.log_prob - best))
        weights = list(probabilities.values())
    scores = expected_utilities(list(of_text), weights, utility(decode.mbr_utility, target))
    ranked = [
        dataclasses.replace(one, score=float(score))
        for one, score in zip(of_text.values(), scores, strict=True)
    ]
    return sorted(ranked, key=lambda one: -one.score)
