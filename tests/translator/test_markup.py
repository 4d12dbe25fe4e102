"""Markup inside sentences: none lost, none twice, and where it belongs by a known alignment."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfm
from tfm.translator import markup
from tfm.translator.markup import piece_ends, put_back, take_out

pytestmark = pytest.mark.usefixtures("quick_compile")


def word_for_word(text, order=None):
    """A translation in capitals, its words in another order, perfectly aligned."""
    marked = take_out(text)
    words = marked.text.split(" ") if marked.text else []
    order = order or list(range(len(words)))
    target = [words[i].upper() for i in order]
    ends = piece_ends(words, marked.text), piece_ends(target, " ".join(target))
    return put_back(marked, " ".join(target), *ends, [(s, t) for t, s in enumerate(order)])


@pytest.mark.parametrize(
    ("text", "order", "expected"),
    [
        ("a <b>big</b> house", None, "A <b>BIG</b> HOUSE"),
        ("a <b>big</b> house", [0, 2, 1], "A HOUSE <b>BIG</b>"),
        ("<i>a b</i> c", [2, 0, 1], "C <i>A B</i>"),
        ("press <br/>enter %s", None, "PRESS <br/>ENTER%s"),
        ("{0}files in", [1, 0], "IN {0}FILES"),
        ("a <b></b> c", None, "A <b></b>C"),
        ("<b><i>x</i></b>", None, "<b><i>X</i></b>"),
        ("{0}", None, "{0}"),
        ("1 < 2 and 50% of", None, "1 < 2 AND 50% OF"),
    ],
)
def test_by_a_known_alignment(text, order, expected):
    assert word_for_word(text, order) == expected


PARTS = st.lists(
    st.sampled_from(["a", "bc", " ", "  ", "<b>", "</b>", "{0}", "%s ", "<br/>", "&nbsp;", "我"]),
    max_size=12,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(PARTS)
def test_no_mark_is_lost_and_none_comes_twice(text):
    marked = take_out(text)
    assert marked.text == " ".join(marked.text.split())
    marks = [mark for _, mark in marked.marks]
    out = word_for_word(text)
    for mark in marks:
        assert out.count(mark) == marks.count(mark)
    for mark in set(marks):
        out = out.replace(mark, "")
    assert re.sub(r"\s", "", out) == re.sub(r"\s", "", marked.text).upper()


def test_the_command_keeps_markup(command, tiny_run):
    stdin = b"ab <b>cd</b>\nfed {0}\n"
    code, out, err = command("translate", "--model", tiny_run, "--markup", stdin=stdin)
    assert code == 0, err
    first, second = out.decode().splitlines()
    best = tfm.load(tiny_run).translate(["ab cd", "fed"])
    assert first.replace("<b>", "").replace("</b>", "").split() == best[0].split()
    assert first.index("<b>") < first.index("</b>")
    assert second.replace("{0}", "").strip() == best[1]
    assert "{0}" in second
    assert markup.take_out("ab <b>cd</b>").text == "ab cd"
