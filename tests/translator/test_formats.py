"""What is read and written beside plain lines of text."""

import gzip
import json
import math

import numpy as np
import pytest
import tiny

import tfm
from tfm.translator import Translation, formats
from tfm.translator.formats import Found, Record

pytestmark = pytest.mark.usefixtures("quick_compile")

LINES = [b"ab cd", b"", b"fed cab"]


@pytest.fixture(scope="module")
def model(tiny_run):
    return tfm.load(tiny_run)


def run(command, *options, stdin=b""):
    code, out, err = command(*options, stdin=stdin)
    assert code == 0, err
    return out.decode()


def test_json_lines_pass_unknown_fields_through(command, tiny_run, model):
    lines = ['{"text": "ab cd", "x": [1, null]}', '{"id": "q", "text": "", "中": "文"}']
    out = run(command, "translate", "--model", tiny_run, "--input-format", "jsonl",
              "--n-best", 2, "--word-scores", stdin="\n".join(lines).encode())  # fmt: skip
    first, second = map(json.loads, out.splitlines())
    assert first["id"] == 1 and first["text"] == "ab cd" and first["x"] == [1, None]
    assert (second["id"], second["中"]) == ("q", "文")
    assert second["translations"] == [
        {"text": "", "pieces": [], "log_prob": 0.0, "score": 0.0, "words": []}
    ]
    (expected,) = model.n_best(["ab cd"], 2)
    for found, translation in zip(first["translations"], expected, strict=True):
        assert found["text"] == translation.text
        assert "".join(found["pieces"]).replace("▁", " ").strip() == translation.text
        assert found["log_prob"] == pytest.approx(translation.log_prob, abs=1e-4)
        assert sum(x for _, x in found["words"]) == pytest.approx(translation.log_prob, abs=1e-2)
        assert [w for w, _ in found["words"]] == [*translation.text.split(), "</s>"]


def test_rows_keep_their_columns(command, tiny_run, model):
    stdin = b"1\tab cd\tx y\n2\tfed\t"
    options = ("--input-format", "tsv", "--field", 2)
    out = run(command, "translate", "--model", tiny_run, *options, stdin=stdin)
    best = model.translate(["ab cd", "fed"])
    assert out == f"1\tab cd\tx y\t{best[0]}\n2\tfed\t\t{best[1]}\n"


def test_moses_lists(command, tiny_run, model):
    options = ("--output-format", "moses", "--n-best", 2)
    out = run(command, "translate", "--model", tiny_run, *options, stdin=b"ab\n\nfed")
    rows = [line.split(" ||| ") for line in out.splitlines()]
    assert [row[0] for row in rows] == ["0", "0", "1", "2", "2"]
    (best,) = model.n_best(["ab"], 2)
    assert [row[1] for row in rows[:2]] == [t.text for t in best]
    assert float(rows[0][3]) == pytest.approx(best[0].score, abs=1e-4)
    name, value, *_ = rows[0][2].split()
    assert name == "LogProb=" and float(value) == pytest.approx(best[0].log_prob, abs=1e-4)


def test_pieces_and_gzip_by_name(command, tiny_run, tmp_path, model):
    out = tmp_path / "out.gz"
    options = ("--no-detokenize", "--output", out)
    run(command, "translate", "--model", tiny_run, *options, stdin=b"\n".join(LINES))
    first = out.read_bytes()
    found = gzip.decompress(first).decode().split("\n")
    assert found[1] == "" and len(found) == 4
    assert ["".join(line.split()).replace("▁", " ").strip() for line in found[:3]] == (
        model.translate([line.decode() for line in LINES])
    )
    run(command, "translate", "--model", tiny_run, *options, stdin=b"\n".join(LINES))
    assert out.read_bytes() == first  # it holds no time


@pytest.mark.parametrize(
    ("kind", "field", "line", "message"),
    [
        ("jsonl", "", "x", "in line 2: not JSON"),
        ("jsonl", "", "[]", "in line 2: not a JSON object"),
        ("jsonl", "a", '{"text": ""}', 'in line 2: has no text in field "a"'),
        ("jsonl", "", '{"text": 1}', 'in line 2: has no text in field "text"'),
        ("jsonl", "", '{"text": "", "translations": 1}', "in line 2: has a field"),
        ("jsonl", "", r'{"text": "\ud800"}', "in line 2: holds half of a surrogate pair"),
        ("tsv", "2", "a", "in line 2: has 1 column"),
        ("tsv", "0", "a\tb", "it is the number of a column"),
        ("text", "a", "a", "lines of text have no fields"),
    ],
)
def test_lines_that_cannot_be_read(kind, field, line, message):
    good = {"jsonl": '{"text": "a", "a": "b"}', "tsv": "a\tb", "text": ""}[kind]
    with pytest.raises(ValueError, match=message):
        list(formats.records([good, line], "in", kind, field))


def test_an_infinite_score_is_null_in_json_and_bars_cannot_break_a_list():
    lost = Found(Translation("a ||| b", -math.inf, -math.inf, guard="copied"), "a ||| b")
    row = formats.written("jsonl", Record(3, "x"), [lost])
    assert json.loads(row)["translations"][0] == {
        "text": "a ||| b", "pieces": [], "log_prob": None, "score": None, "guard": "copied",
    }  # fmt: skip
    row = formats.written("moses", Record(3, "x"), [lost])
    assert row.count("|||") == 3


def test_words_add_up_their_pieces():
    pieces, scores = ["▁a", "b", "▁", "c", "</s>"], [-1.0, -2.0, -3.0, -4.0, -5.0]
    found = formats.words(pieces, scores, spaces=True)
    assert found == (("ab", -3.0), ("c", -7.0), ("</s>", -5.0))
    assert formats.words(["▁我", "们", "</s>"], [-1, -2, -3], spaces=False) == (
        ("我", -1), ("们", -2), ("</s>", -3),
    )  # fmt: skip


def test_reading_takes_one_line_at_a_time():
    def endless():
        while True:
            yield '{"text": "a"}'

    records = formats.records(endless(), "in", "jsonl")
    assert [next(records).number for _ in range(3)] == [1, 2, 3]


def test_word_scores_and_perplexity_of_given_pairs(command, tiny_run, tmp_path, model):
    source = tiny.write(tmp_path / "source", ["ab cd", "fed"])
    target = tiny.write(tmp_path / "target", ["AB CD", "FED"])
    options = ("score", "--model", tiny_run, "--source", source, "--target", target)
    rows = [row.split("\t") for row in run(command, *options, "--words").splitlines()]
    assert [row[1] for row in rows] == ["AB CD </s>", "FED </s>"]
    expected = model.score(["ab cd", "fed"], ["AB CD", "FED"])
    for row, total in zip(rows, expected, strict=True):
        assert float(row[0]) == pytest.approx(total, abs=1e-4)
        assert sum(map(float, row[2].split())) == pytest.approx(total, abs=1e-4)
    summary = run(command, *options, "--summary")
    tokens = sum(len(model.target.encode(t)) for t in ("AB CD", "FED"))
    assert summary.startswith(f"pairs 2, tokens {tokens}, log-probability ")
    perplexity = np.exp(-sum(expected) / tokens)
    assert float(summary.split()[-1]) == pytest.approx(perplexity, rel=1e-3)


def test_scores_of_translations_are_of_their_very_tokens(model):
    """Of a text in parts, too; they add up to the log-probability that search reports."""
    texts = ["abc de", " ".join(["abc de fab"] * 6), ""]
    found = [best for own in model.n_best(texts, 2) for best in own]
    for translation, (pieces, scores) in zip(found, model.translation_scores(found), strict=True):
        assert sum(scores) == pytest.approx(translation.log_prob, rel=1e-4, abs=1e-4)
        assert [p for p in pieces if p != "</s>"] == list(model.pieces(translation))
