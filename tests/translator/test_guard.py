"""What the guard finds, what it does about it, and what it leaves alone."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfm.data import languages
from tfm.translator import guard
from tfm.translator.guard import problem, repeats

pytestmark = pytest.mark.usefixtures("quick_compile")

EN, ZH = ("Latin",), ("Han",)


@pytest.mark.parametrize(
    ("ids", "times"),
    [
        ([], 0), ([5], 1), ([5, 6], 1), ([5, 5], 2), ([1, 5, 5, 5, 2], 3), ([5, 6] * 4, 4),
        ([1, 2, 3] * 2 + [1], 2), ([1, 2, 3, 4] * 2, 3), (list(range(20)) * 2, 1),
    ],
)  # fmt: skip
def test_repeats(ids, times):
    assert repeats(ids) == times


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=24))
def test_repeats_against_a_search_of_all(ids):
    best = min(len(ids), 1)
    for unit in range(1, 17):
        for start in range(len(ids)):
            times = 1
            while ids[start : start + unit] == ids[start + times * unit :][:unit] and (
                start + (times + 1) * unit <= len(ids)
            ):
                times += 1
            if times > 1:
                best = max(best, times + (unit >= 4))
    assert repeats(ids) == best


@pytest.mark.parametrize(
    ("source", "text", "source_ids", "target_ids", "most", "scripts", "found"),
    [
        ("你好", "", [5, 6], [], 16, EN, "empty"),
        ("你好", " ", [5, 6], [9], 16, EN, "empty"),
        ("", "", [], [], 12, EN, None),
        ("你好", "hi hi hi hi", [5, 6], [7, 7, 7, 7], 16, EN, "looping"),
        ("哈哈哈哈", "ha ha ha ha", [5, 5, 5, 5], [7, 7, 7, 7], 20, EN, None),
        ("你好", "a long one", [5, 6], list(range(15)), 16, EN, "too long"),
        ("你好", "好好好好的日子", [5, 6], [1, 2, 3], 16, EN, "in the wrong script"),
        ("你好吗我的老朋友们", "你好吗我的老朋友们", [5, 6], [1, 2], 16, EN, "in the wrong script"),
        ("I use Linux", "Linux", [5, 6], [1, 2], 16, ZH, None),
        ("一二", "Hello", [5, 6], [1, 2], 16, (), None),
        ("ok", "12:30!", [5, 6], [1, 2], 16, EN, None),
    ],
)  # fmt: skip
def test_problems(source, text, source_ids, target_ids, most, scripts, found):
    assert problem(source, text, source_ids, target_ids, most, scripts) == found


def test_scripts():
    assert languages.language("zh-Hant").scripts == ("Han",)
    assert languages.language("en").scripts == ("Latin",)
    assert languages.language("xx").scripts == ()
    for letter, script in (("中", "Han"), ("é", "Latin"), ("ж", "Cyrillic"), ("の", "Kana")):
        assert languages.in_scripts(letter, (script,))
        assert not languages.in_scripts(letter, ("Thai",))


TEXTS = ["ab cd", "h", "", "abcd efgh", "ab ab ab ab", "a"]


def test_what_is_bad_is_decoded_again_and_scored_as_it_says(untrained):
    """A random model loops; the guard's translations do not."""
    model = untrained(seed=1)
    before, after = (
        [best[0] for best in model.n_best(TEXTS, 1, guard=setting)] for setting in ("off", "on")
    )
    looped = 0
    for text, old, new in zip(TEXTS, before, after, strict=True):
        ids = model.source.encode(text)[:-1]
        what = text and problem(text, old.text, ids, old.tokens[0], 2 * len(ids) + 12, ())
        looped += bool(what)
        assert bool(new.guard) == bool(what)
        if not what:
            assert new == old
            continue
        assert new.guard.startswith(what)
        if "again" in new.guard:
            assert problem(text, new.text, ids, new.tokens[0], 2 * len(ids) + 12, ()) is None
            ((_, scores),) = model.translation_scores([new])
            assert sum(scores) == pytest.approx(new.log_prob, rel=1e-4)
    assert looped
    alone = [model.n_best([text], 1, guard="on", batch_size=1)[0][0].text for text in TEXTS]
    assert alone == [t.text for t in after]  # whatever is beside it
    assert all(bool(t.text) == bool(text) for t, text in zip(after, TEXTS, strict=True))


def test_what_stays_empty_is_copied(untrained):
    model = untrained()
    empty = dataclasses.replace(model.n_best(["ab"], 1)[0][0], text="", tokens=((),))
    calls = []

    def search(texts, decode):
        calls.append(decode)
        return [[empty] for _ in texts]

    settings = model.decode_settings(guard="on")
    ((found,),) = guard.mend(
        ["ab c"], [[empty]], settings, search, model.source, model.target, "en"
    )
    assert (found.text, found.guard, found.log_prob) == ("ab c", "empty: copied", -math.inf)
    assert [c.min_length for c in calls] == [2, 3]
    assert all(c.strategy == "beam" and c.no_repeat_ngram for c in calls)
    assert calls[0].max_length_factor < settings.max_length_factor


def test_a_crop_that_was_asked_for_is_no_runaway(untrained):
    model = untrained()
    found = model.n_best(["abcd efgh"], 1, guard="on", max_length_factor=0.1, max_length_offset=1)
    assert "too long" not in found[0][0].guard
