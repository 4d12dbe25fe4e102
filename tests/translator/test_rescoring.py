"""Minimum-Bayes-risk decoding against loops in NumPy."""

import collections

import numpy as np
import pytest
import sacrebleu

from tfm.decoding import Decode
from tfm.decoding.mbr import expected_utilities
from tfm.translator import rescoring
from tfm.translator.translator import Translation

pytestmark = pytest.mark.usefixtures("quick_compile")

SAMPLES = ["the cat sat", "the cat sat", "a cat sat", "dogs run", "the cat sits", "a cat sat down"]


def overlap(a, b):
    return len(set(a.split()) & set(b.split())) / len(a.split())


def test_expected_utilities_are_sums_over_all_pairs(rng):
    weights = rng.uniform(size=len(SAMPLES))
    got = expected_utilities(SAMPLES, weights, overlap)
    for i, h in enumerate(SAMPLES):
        expected = sum(
            w * overlap(h, r) for w, r in zip(weights, SAMPLES, strict=True)
        ) / weights.sum()  # fmt: skip
        np.testing.assert_allclose(got[i], expected)


@pytest.mark.parametrize("utility", ["chrf", "bleu"])
@pytest.mark.parametrize("over", ["sample", "beam"])
def test_the_translation_most_like_the_others_comes_first(utility, over):
    log_probs = [-1.0, -1.0, -2.0, -0.5, -3.0, -2.5]
    found = [Translation(t, p, p) for t, p in zip(SAMPLES, log_probs, strict=True)]
    decode = Decode("mbr", mbr_over=over, mbr_utility=utility, samples=6, beam_size=6)
    ranked = rescoring.minimum_bayes_risk(found, decode, "en")

    metric = {"chrf": sacrebleu.sentence_chrf, "bleu": sacrebleu.sentence_bleu}[utility]
    weights = np.ones(6) if over == "sample" else np.exp(log_probs)
    scores = collections.defaultdict(float)
    for h in set(SAMPLES):
        for w, r in zip(weights / weights.sum(), SAMPLES, strict=True):
            scores[h] += w * metric(h, [r]).score
    assert [t.text for t in ranked] == sorted(scores, key=scores.get, reverse=True)
    np.testing.assert_allclose([t.score for t in ranked], sorted(scores.values(), reverse=True))
    assert ranked[0].text != "dogs run"


@pytest.mark.parametrize("over", ["sample", "beam"])
def test_a_translator_decodes_so(untrained, over):
    model, texts = untrained(decode={"max_length": 8}), ["abc", "fed cab", "", "hh"]
    settings = {"samples": 6, "seed": 2} if over == "sample" else {"beam_size": 6}
    found = model.n_best(texts, 6, strategy="mbr", mbr_over=over, **settings)
    candidates = model.n_best(texts, 6, strategy=over, **settings)
    for best, all_found in zip(found, candidates, strict=True):
        assert {t.text for t in best} == {t.text for t in all_found}
        scores = [t.score for t in best]
        assert scores == sorted(scores, reverse=True)
        log_probs = {}
        for t in all_found:
            log_probs[t.text] = max(t.log_prob, log_probs.get(t.text, -np.inf))
        assert all(t.log_prob == pytest.approx(log_probs[t.text], rel=1e-4) for t in best)
    assert model.translate(texts, strategy="mbr", mbr_over=over, batch_size=1, **settings) == [
        best[0].text for best in found
    ]
