"""Documents: what stands between the sentences stays, and no text is lost."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfm.data.languages import language
from tfm.translator import document

pytestmark = pytest.mark.usefixtures("quick_compile")

EN, ZH = language("en"), language("zh")

WORDS = st.sampled_from(
    [
        "我来了。",
        "你好吗？",
        "He left.",
        "Is it 3.5?",
        "“Yes!”",
        "Mr. X",
        "a,b",
        "（对。）",
        "…",
        "😀",
    ]
)
SPACE = st.sampled_from(
    [
        "",
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "\n\n",
        "\u3000",
        "\x0b",
        "\u2028",
        " \n  - ",
        "\n## ",
        "\n1. ",
    ]
)
MARKUP = st.sampled_from(
    ["", "<p>", "</p>", "<br/>", "<b>", "</b>", "<!-- x. Y -->", "---", "<a href='x'>"]
)
DOCUMENT = st.lists(st.tuples(WORDS, SPACE, MARKUP, SPACE), max_size=12).map(
    lambda parts: "".join(map("".join, parts))
)


def identity(text, source=EN, target=EN, change=str):
    parts = document.segments(text)
    return document.assemble(parts, [change(p.text) for p in parts if p.translated], source, target)


@settings(max_examples=300, deadline=None)
@given(DOCUMENT | st.text(max_size=80))
def test_segments_are_the_text_and_untranslated_it_comes_back(text):
    parts = document.segments(text)
    assert "".join(p.text for p in parts) == text
    assert identity(text) == text
    assert identity(text, ZH, ZH) == text
    for part in parts:
        if part.translated:
            assert part.text == part.text.strip()
            assert not re.search("[\n\t\r]|  ", part.text)


@settings(max_examples=200, deadline=None)
@given(DOCUMENT)
def test_the_structure_is_the_same_whatever_sentences_become(text):
    """Line breaks, indents and block tags, in their order, for every pair of languages."""
    skeleton = re.compile(r"\s*[\t\n\r\v\f\u2028\u3000]\s*|\s\s+|</?p>|<br/>")
    for source, target in ((EN, ZH), (ZH, EN)):
        out = identity(text, source, target, change=lambda s: "X")
        assert skeleton.findall(out) == skeleton.findall(text) or "<!--" in text
        assert out.count("X") >= sum(p.translated for p in document.segments(text))


def test_sentences_of_a_line_are_joined_as_the_target_writes_them():
    assert identity("我来了。你好吗？\n好。", ZH, EN, lambda s: "Yes.") == "Yes. Yes.\nYes."
    assert identity("He left. Did he?\nYes.", EN, ZH, lambda s: "好。") == "好。好。\n好。"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Title\n\n- One. Two.\n  * three\n", "# T\n\n- T T\n  * T\n"),
        ("<p>One <b>big</b> house.</p>\n<hr>\n", "<p>T</p>\n<hr>\n"),
        ("<b>One.</b> <i>Two.</i>", "<b>T</b> <i>T</i>"),
        ("a\tb\t\tc", "T\tT\t\tT"),
        ("----\n```\nx\n", "----\n```\nT\n"),
        ("> quoted\r\n\r\n1. first", "> T\r\n\r\n1. T"),
        ("", ""),
        (" \n\t", " \n\t"),
    ],
)
def test_markup(text, expected):
    assert identity(text, change=lambda s: "T") == expected


def test_translated_documents(untrained):
    model = untrained(decode={"beam_size": 2, "max_length_factor": 0.5})
    text = "ab cd. Fab!\n\n  - head\tbad\r\n...\n"
    (best,), (blank,) = document.n_best(model, [text, " \n"], 1)
    parts = [p for p in document.segments(text) if p.translated]
    texts = model.translate([p.text for p in parts])
    lower, upper = language("lower"), language("upper")
    assert best.text == document.assemble(document.segments(text), texts, lower, upper)
    assert blank.text == " \n" and blank.log_prob == 0
    assert [source for source, _ in best.parts] == [p.text for p in parts]


def test_the_command_keeps_every_line_break(command, tiny_run):
    stdin = b"ab cd. Fab!\r\n\r\n  - head\tbad\n\n...\nab"
    code, out, err = command("translate", "--model", tiny_run, "--document", stdin=stdin)
    assert code == 0, err
    skeleton = re.sub(r"[A-Za-z]+|\.(?!\.)|!", "", stdin.decode())
    assert re.sub(r"[A-Za-z]+|\.(?!\.)|!", "", out.decode()).replace(" ", "") == (
        skeleton.replace(" ", "")
    )
    assert "\n  - " in out.decode()
    assert not out.endswith(b"\n")
    assert "translated 6 lines in" in err
