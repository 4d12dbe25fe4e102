"""Where sentences end."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfm.translator.split import sentences


@pytest.mark.parametrize(
    "text",
    [
        "我来了。|你好吗？|好！",
        "他说：“你好！”|他走了。|“真的？”|她问。",
        "我……我不知道。|走吧",
        "这（真的。没错）很好。|对",
        "版本是3.5。|价格为1,000.50元。",
        "He left.| She stayed.",
        "It is 3.14 now.| Good.",
        "Mr. Smith met Dr. J. R. Brown at 5 p.m. on Main St. Yes.",
        "See Fig. 3, e.g. the U.S. map.| Then stop!",
        "“Why?” he asked.| “Because.”| She smiled.",
        "Wait... what?| No...| Never.",
        "1. First item.| 2. Second.",
        "He said (it was late. Really.) and left.| Bye.",
        "So do I.| He left.",
        "No.| He stayed, see No. 5 of Dec. 2020.| Well",
        "Yahoo! is old.| OK?!| Yes",
        "我用 Python 3.11 写的。|很好!|真的?|是",
        "www.example.com is up.| OK a.b.c",
        "",
        "。",
        "...",
    ],
)  # fmt: skip
def test_sentences(text):
    expected = text.split("|")
    assert sentences("".join(expected)) == expected


TEXT = st.text(alphabet="aB我。，.!？…（()[】“”\"' \t\n\u30003,;<b>/", max_size=200)


@settings(max_examples=300, deadline=None)
@given(TEXT | st.text(max_size=80))
def test_joined_they_are_the_text(text):
    found = sentences(text)
    assert "".join(found) == text
    assert all(found) or text == ""


@pytest.mark.parametrize(
    "unit", ["a. ", "(", "()", "A.", "。", "我(", " ", "'", "“a”", "... ", "."]
)
def test_time_is_linear(unit):
    def seconds(count):
        text, start = unit * count, time.process_time()
        sentences(text)
        return time.process_time() - start

    seconds(1000)
    short = min(seconds(10_000) for _ in range(3))
    assert seconds(80_000) < 8 * 4 * short + 0.05
