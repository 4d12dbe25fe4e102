"""The phrasebook's own word alignment."""

import numpy as np
import pytest

from tfm import evaluation
from tfm.data import languages, phrasebook
from tfm.data.phrasebook import grammar
from tfm.data.phrasebook.alignment import render


def words(text):
    return [text[a:b] for a, b in languages.words(text)]


def test_words():
    assert words("我用GPU，don't 3.5") == ["我", "用", "GPU", "，", "don't", "3", ".", "5"]


@pytest.mark.parametrize("split", ["dev", "test"])
def test_links_are_of_the_sentences_words(split):
    for index in range(0, 600, 3):
        zh, en = map(words, phrasebook.pair(split, index))
        gold = phrasebook.alignment(split, index)
        assert gold.sure <= gold.possible
        assert all(s < len(zh) and t < len(en) for s, t in gold.possible)
        # Every Chinese word is linked, and the full stop to the full stop.
        assert len({s for s, _ in gold.possible}) > 0.8 * len(zh)
        assert (len(zh) - 1, len(en) - 1) in gold.possible
        assert evaluation.read_links(str(gold)) == (gold.sure, gold.possible)


def test_parts_are_the_sentence():
    for number, (frame, lines) in enumerate(
        zip(grammar.compiled(), grammar.templates(), strict=True)
    ):
        fillers = tuple(number % len(table) for table in frame.tables)
        found = [table[k] for table, k in zip(frame.tables, fillers, strict=True)]
        sides = (lines[0].split()[1], grammar.zh_part), (lines[1].strip(), grammar.en_part)
        for (template, part), text in zip(sides, frame.render(fillers), strict=True):
            pieces = render(template, frame.slots, found, part)
            joined = "".join(p.text for p in pieces)
            assert joined[0].upper() + joined[1:] == text


def test_a_few_by_hand():
    index = next(i for i in range(2000) if phrasebook.pair("test", i)[0].endswith("吃五个芒果。"))
    zh, en = map(words, phrasebook.pair("test", index))
    sure = {(zh[s], en[t]) for s, t in phrasebook.alignment("test", index).sure}
    assert {("吃", "eat"), ("五", "five"), ("芒", "mangos"), ("今", "tonight")} <= sure
    assert ("吃", "mangos") not in sure


def test_error_rate_against_the_formula():
    rng = np.random.default_rng(0)
    draw = lambda n: {tuple(x) for x in rng.integers(0, 4, (n, 2)).tolist()}  # noqa: E731
    found, sure = [draw(5), draw(3)], [draw(4), draw(2)]
    possible = [s | draw(3) for s in sure]
    a, s, p = (
        {(i, *link) for i, own in enumerate(side) for link in own}
        for side in (found, sure, possible)
    )
    expected = 100 * (1 - (len(a & s) + len(a & p)) / (len(a) + len(s)))
    rate = evaluation.alignment_error_rate(found, sure, possible)
    assert rate.value == pytest.approx(expected)
    assert evaluation.alignment_error_rate(sure, sure, possible).value == 0
    with pytest.raises(ValueError, match="no link"):
        evaluation.alignment_error_rate([set()], [set()], [set()])
