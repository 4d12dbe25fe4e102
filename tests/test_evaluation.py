"""Scores: BLEU by hand, tokenizers by language, signatures, errors."""

import math

import pytest
import sacrebleu

from tfm import evaluation

HYPOTHESES = ["the cat sat on the mat .", "a dog ran home", "he reads"]
REFERENCES = ["the cat sat on a mat .", "the dog ran home", "he reads"]


def test_bleu_by_hand():
    # Matched of possible n-grams: 6+3+2 of 7+4+2, 4+2+1 of 6+3+1, 2+1 of 5+2, 1+0 of 4+1.
    precisions = [11 / 13, 7 / 10, 3 / 7, 1 / 5]
    expected = 100 * math.exp(sum(map(math.log, precisions)) / 4)
    score = evaluation.bleu(HYPOTHESES, REFERENCES, "en")
    assert score.value == pytest.approx(expected, abs=1e-9)
    assert score.name == "BLEU"


@pytest.mark.parametrize(
    ("language", "tokenizer"),
    [
        ("en", "13a"),
        ("de", "13a"),
        ("zh", "zh"),
        ("zh-Hans", "zh"),
        ("zh_TW", "zh"),
        ("yue", "zh"),
        ("ja", "char"),
        ("ko", "char"),
    ],
)
def test_the_language_selects_the_tokenizer_and_the_signature_names_it(language, tokenizer):
    signature = evaluation.bleu(["我 喝 茶 a"], ["我 喝 茶 a"], language).signature
    assert f"|tok:{tokenizer}|" in signature
    assert f"version:{sacrebleu.__version__}" in signature
    assert "case:mixed" in signature


def test_chinese_is_scored_by_character():
    # One wrong character of nine: with 13a the sentence is one wrong word and BLEU is 0.
    hypothesis, reference = ["我昨天买了三本书。"], ["我昨天买了四本书。"]
    assert evaluation.bleu(hypothesis, reference, "zh").value > 50
    assert evaluation.bleu(hypothesis, reference, "en").value == pytest.approx(0, abs=1e-6)


def test_bleu_is_cased():
    assert evaluation.bleu(["He reads a book"], ["he reads a book"], "en").value < 100


def test_chrf_of_equal_and_disjoint_text_and_its_signature():
    assert evaluation.chrf(REFERENCES, REFERENCES).value == pytest.approx(100)
    score = evaluation.chrf(["xyz"], ["abc"])
    assert score.value == 0
    assert score.name == "chrF"
    assert "nc:6|nw:0" in score.signature


def test_exact_match_counts_sentences():
    score = evaluation.exact_match(["a b ", "c", "D"], ["a b", "c", "d"])
    assert score.value == pytest.approx(200 / 3)


def test_a_score_prints_its_signature():
    score = evaluation.bleu(REFERENCES, REFERENCES, "en")
    assert str(score) == f"BLEU 100.00 ({score.signature})"


@pytest.mark.parametrize(
    "score",
    [lambda h, r: evaluation.bleu(h, r, "en"), evaluation.chrf, evaluation.exact_match],
)
def test_bad_lists_are_refused(score):
    with pytest.raises(ValueError, match="2 hypotheses and 1 references"):
        score(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="no sentence to score"):
        score([], [])
