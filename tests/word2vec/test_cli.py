"""The commands of ``tfm embed``."""

import gzip
import json
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest

from tfm import terminal
from tfm.cli import embed
from tfm.word2vec import vectors

pytestmark = pytest.mark.usefixtures("quick_compile")

TOPICS = ("abcdef", "uvwxyz")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Sentences of one topic each, and their word-by-word translation, a → aa."""
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    lines = [rng.choice(list(TOPICS[i % 2]), size=6) for i in range(500)]
    (folder / "a.txt").write_text("\n".join(" ".join(line) + "!" for line in lines) + "\n")
    (folder / "b.txt").write_text("\n".join(" ".join(w + w for w in line) for line in lines) + "\n")
    return folder


SMALL = (
    *("--width", "8", "--min-count", "1", "--subsample", "0", "--learning-rate", "0.1"),
    *("--centres", "8", "--tiles", "2"),
)


def test_train_neighbours_and_evaluate(command, text, tmp_path):
    out = tmp_path / "a.bin"
    code, _, err = command("embed", "train", text / "a.txt", "--output", out, *SMALL)
    assert code == 0 and "3,000 words, 12 different ones" in err
    assert "words/s" in err and "compil" in err
    assert sorted(vectors.read(out).words) == sorted("".join(TOPICS))

    code, printed, _ = command("embed", "neighbours", out, "a", "b", "--minus", "u", "--count", "3")
    found = [line.split("\t") for line in printed.decode().splitlines()]
    assert code == 0 and {word for word, _ in found} <= set("cdef") and len(found) == 3

    pairs = [f"a\t{w}\t{9 if w in TOPICS[0] else 1}" for w in "bcduvw"] + ["a\tqq\t5"]
    (tmp_path / "pairs.tsv").write_text("\n".join(pairs))
    (tmp_path / "questions.txt").write_bytes(b": letters\r\na b u v\r\nA b u qq\r\n")
    code, printed, _ = command(
        *("embed", "evaluate", out, "--similarity", tmp_path / "pairs.tsv"),
        *("--analogies", tmp_path / "questions.txt"),
    )
    scores = json.loads(printed)
    assert code == 0 and scores["pairs.tsv"]["known"] == 6 and scores["pairs.tsv"]["asked"] == 7
    assert scores["pairs.tsv"]["spearman"] > 0.8
    assert (scores["questions.txt"]["known"], scores["questions.txt"]["asked"]) == (1, 2)
    assert scores["questions.txt"]["sections"][0]["section"] == "letters"


@pytest.mark.parametrize(
    ("rounds", "says"),
    [
        # 3 seconds for the first quarter, including compilation, then 2 for the rest.
        ([(3.0, 0.25), (4.0, 0.75), (5.0, 1.0)], "5.0s, the first 3.0s .* 375 words/s"),
        ([(4.0, 1.0)], "4.0s, 250 words/s, compilation included"),
    ],
)
def test_speed_leaves_out_the_round_that_includes_compilation(monkeypatch, rounds, says):
    watch = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(terminal, "Stopwatch", lambda: watch)
    speed = embed.Speed(1000)
    for watch.seconds, share in rounds:
        speed.round(share)
    assert re.fullmatch(says, str(speed))


def test_align_by_parallel_text_and_by_a_dictionary(command, text, tmp_path):
    for name in "ab":
        out = tmp_path / f"{name}.txt"
        assert command("embed", "train", text / f"{name}.txt", "--output", out, *SMALL)[0] == 0
    code, printed, err = command(
        *("embed", "align", tmp_path / "a.txt", tmp_path / "b.txt", "--held-out", "0.25"),
        *("--source-text", text / "a.txt", "--target-text", text / "b.txt"),
        *("--source-output", tmp_path / "new" / "aligned.bin"),
    )
    assert code == 0, err
    scores = json.loads(printed)
    assert (scores["pairs"], scores["held_out"]) == (9, 3)
    # The texts match word by word, so a rotation aligns the vectors; by chance it would be 1/12.
    assert all(scores[f"{name}_precision_at_1"] == 1.0 for name in ("csls", "cosine")), scores
    aligned = vectors.read(tmp_path / "new" / "aligned.bin").table_VD
    np.testing.assert_allclose(np.linalg.norm(aligned, axis=1), 1.0, rtol=1e-5)

    (tmp_path / "dictionary").write_text("a aa\nu uu\n")
    again = (tmp_path / "a.txt", tmp_path / "b.txt", "--dictionary", tmp_path / "dictionary")
    code, printed, _ = command("embed", "align", *again, "--held-out", "0.5")
    assert code == 0 and json.loads(printed)["held_out"] == 1


def test_train_on_pieces_of_a_tokenizer(command, text, tmp_path):
    sides = ("--tokenizer", tmp_path / "m.model", "--pieces", "275")
    out = tmp_path / "v.txt"
    options = (*sides, "--output", out, *SMALL, "--epochs", "1")
    code, _, err = command("embed", "train", text / "a.txt", *options)
    assert code == 0, err
    assert (tmp_path / "m.model").exists()
    assert any(word.startswith("▁") for word in vectors.read(out).words)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The current folder, with one file of each kind."""
    monkeypatch.chdir(tmp_path)
    vectors.write(vectors.Vectors(("a", "b"), np.eye(2, 3, dtype=np.float32)), tmp_path / "v.txt")
    (tmp_path / "a.txt").write_text("a\n")  # too little to learn from
    (tmp_path / "zh.txt").write_text("发生这事是免不了的。\n")
    (tmp_path / "zh.gz").write_bytes(gzip.compress("发生这事是免不了的。\n".encode()))
    (tmp_path / "dictionary").write_text("a b\nb a\n")
    (tmp_path / "foreign").write_text("x y\n")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


ALIGN = ("align", "v.txt", "v.txt")


@pytest.mark.parametrize("share", ["0", "0.2"])
def test_align_without_held_out_pairs(command, files, share):
    outputs = ("--source-output", "new/s.txt", "--target-output", "new/t.bin")
    code, printed, err = command(
        "embed", *ALIGN, "--dictionary", "dictionary", "--held-out", share, *outputs
    )
    assert code == 0, err
    scores = json.loads(printed)
    assert (scores.pop("pairs"), scores.pop("held_out")) == (2, 0)
    assert len(scores) == 4 and set(scores.values()) == {None}
    aligned = [vectors.read(files / "new" / name).units_VD for name in ("s.txt", "t.bin")]
    np.testing.assert_allclose(aligned[0], aligned[1][::-1], atol=1e-6)  # a is b, and b is a


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "--output", "x.bin"), "no text given"),
        (("train", "gone.txt", "--output", "x.bin"), "gone.txt"),
        (("train", "a.txt", "--output", "x.bin", "--pieces", "300"), "--pieces needs --tokenizer"),
        (("train", "a.txt", "--output", "a.txt/x.bin"), "a.txt/x.bin: cannot be written"),
        (("train", "a.txt", "--output", "x.vec.gz"), "leave out .gz"),
        (("train", "zh.txt", "--output", "x.bin"), "zh.txt: '发生这事是免不了的' would be a word"),
        (("train", "pipe", "--output", "x.bin"), "pipe: not a file"),
        (("evaluate", "v.bin"), "give --similarity or --analogies"),
        (("neighbours", "gone.bin", "a"), "gone.bin: no such file"),
        (("neighbours", "v.txt"), "no word given"),
        (("neighbours", "v.txt", "a", "--minus", "a"), "+a -a cancel out"),
        (("neighbours", "v.txt", "a", "--count", "-1"), "--count -1: must be 1 or more"),
        (("align", "a.bin", "b.bin"), "give --dictionary, or --source-text and --target-text"),
        (
            (*ALIGN, "--dictionary", "dictionary", "--source-text", "a.txt"),
            "excludes parallel text",
        ),
        ((*ALIGN, "--dictionary", "dictionary", "--held-out", "1"), "--held-out 1.0: must be 0 or"),
        (
            (*ALIGN, "--dictionary", "dictionary", "--held-out", "-0.5"),
            "--held-out -0.5: must be 0 or",
        ),
        ((*ALIGN, "--dictionary", "foreign"), "none of 1 pairs of words"),
        ((*ALIGN, "--source-text", "zh.gz", "--target-text", "a.txt"), "zh.gz: '发生"),
        (
            (*ALIGN, "--dictionary", "dictionary", "--target-output", "a.txt/x.bin"),
            "a.txt/x.bin: cannot be written",
        ),
    ],
)
def test_wrong_inputs_end_in_one_line(command, files, arguments, says):
    before = sorted(files.iterdir())
    code, out, err = command("embed", *arguments)
    assert code == 1 and out == b"" and says in err and "Traceback" not in err
    assert sorted(files.iterdir()) == before
