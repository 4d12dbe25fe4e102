import random

import pytest

from tfm.translator.split import split


def fits(limit):
    return lambda part: len(part) <= limit


def test_a_text_that_fits_is_not_split():
    assert split("one. two. three.", fits(16)) == ["one. two. three."]
    assert split("", fits(3)) == [""]


@pytest.mark.parametrize(
    ("text", "limit", "parts"),
    [
        ("我去。你来！他走？", 6, ["我去。你来！", "他走？"]),
        ("It is 3.14 now. He left. Yes.", 16, ["It is 3.14 now.", " He left. Yes."]),
        ("天气好，我们走，去公园，看花", 8, ["天气好，我们走，", "去公园，看花"]),
        ("aa bb cc dd", 6, ["aa bb ", "cc dd"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("短。这一句很长很长很长。短", 5, ["短。", "这一句很长", "很长很长。", "短"]),
    ],
)
def test_it_splits_at_the_best_boundaries_there_are(text, limit, parts):
    assert split(text, fits(limit)) == parts


def test_a_short_sentence_is_not_split_because_another_is_long():
    parts = split("Hello there. " + "x" * 40 + " Bye now.", fits(14))
    assert "Hello there." in parts[0]
    assert parts[-1].endswith("Bye now.")


@pytest.mark.parametrize("limit", [1, 2, 7, 30])
def test_parts_joined_are_the_text_and_each_fits(limit):
    rng = random.Random(limit)
    for _ in range(50):
        text = "".join(rng.choices("ab 。，.,!？😀\t", k=rng.randint(1, 120)))
        parts = split(text, fits(limit))
        assert "".join(parts) == text
        assert all(0 < len(part) <= limit for part in parts)


def test_a_character_that_does_not_fit_is_left_to_the_caller():
    assert split("ab", lambda part: "b" not in part) == ["a", "b"]


def test_work_grows_with_the_text_and_not_with_its_square():
    seen = 0

    def count(part):
        nonlocal seen
        seen += len(part)
        return len(part) <= 60

    split("x" * 3000, count)
    assert seen < 3000 * 60 + 10 * 3000
