"""The page: self-contained, small, complete, and its data are the trace."""

import base64
import json
import re

import numpy as np
import pytest
from report_page import SECTIONS, Page, assert_alone

import tfm
from tfm import inspect
from tfm.inspect.labels import CHINESE, ENGLISH

pytestmark = pytest.mark.usefixtures("quick_compile")

SENTENCE = "ab <cd> & ef"


@pytest.fixture(scope="module")
def traced(tiny_run):
    return inspect.trace(tfm.load(tiny_run), SENTENCE, "AB CD")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_needs_nothing_but_itself(traced, language):
    text = inspect.page(traced, language)
    page = Page(text)
    assert_alone(page, text)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert dict(page.tags)["html"]["lang"] == language
    assert set(re.findall(r'section\("([\w-]+)"', page.scripts["code"])) == SECTIONS
    assert page.scripts["data"] and "{{" not in text


def test_the_data_are_the_trace(traced):
    data = json.loads(Page(inspect.page(traced)).scripts["data"])["trace"]
    for kind in ("encoder", "decoder", "cross"):
        stored = data[kind]["weights"]
        weights = np.frombuffer(base64.b64decode(stored["f16"]), "<f2").reshape(stored["shape"])
        expected = getattr(traced.run, kind).weights_BLNTS[0]
        np.testing.assert_allclose(weights, expected, rtol=1e-3, atol=1e-4)
    assert data["source"]["text"] == SENTENCE
    plain = inspect.as_data(traced)
    again = json.loads(json.dumps(plain, allow_nan=False))
    assert all(again[name] == plain[name] for name in plain if name != "model")  # has tuples
    np.testing.assert_allclose(
        plain["cross"]["scores"], traced.run.cross.scores_BLNTS[0], rtol=1e-3, atol=1e-6
    )
    assert plain["alignment"]["pairs"] == traced.aligned_A2.tolist()
    assert len(plain["beam"]["nodes"]) == len(traced.tree.names)


def test_both_languages_have_every_label_that_the_page_asks_for(traced):
    assert ENGLISH.keys() == CHINESE.keys()
    names = lambda words: {key: set(re.findall(r"{\w+}", w)) for key, w in words.items()}  # noqa: E731
    assert names(ENGLISH) == names(CHINESE)
    code = Page(inspect.page(traced)).scripts["code"]
    asked = set(re.findall(r"\bL\.(\w+)|\b(?:say|paragraph)\(\"(\w+)\"", code))
    asked = {name for pair in asked for name in pair if name}
    assert len(asked) > 40
    assert asked <= ENGLISH.keys(), asked - ENGLISH.keys()


def test_the_command_writes_a_page_or_data(command, tiny_run, tmp_path):
    page = tmp_path / "page.html"
    options = ("--model", tiny_run, "-o", page, "--language", "zh")
    code, out, err = command("inspect", "ab cd", *options)
    assert code == 0, err
    assert out == b"" and str(page) in err
    assert CHINESE["title"] in page.read_text(encoding="utf-8")
    code, out, err = command("inspect", "ab cd", "--model", tiny_run, "--json", "--beam-size", "1")
    assert code == 0, err
    data = json.loads(out)
    assert data["beam"]["size"] == 1 and data["reference"] is None
    code, _, err = command("inspect", " ", "--model", tiny_run, "-o", page)
    assert code == 1 and "empty" in err


def test_twenty_pieces_of_a_small_model_fit_in_three_megabytes(tiny_run):
    """Arrays of the sizes of the preset ``small``; what they hold does not matter."""
    from tfm.inspect.report import _half_floats

    T, L, N = 24, 3, 4
    matrix = len(json.dumps(_half_floats(np.random.default_rng(0).normal(size=(L, N, T, T)))))
    vectors = len(json.dumps(_half_floats(np.zeros((T, 256)))))
    positions = len(json.dumps(_half_floats(np.zeros((64, 256)))))
    page = inspect.page(inspect.trace(tfm.load(tiny_run), "abcdef ghab", beam_size=2))
    assert len(page.encode()) + 3 * 4 * matrix + 2 * vectors + 2 * positions < 3_000_000
