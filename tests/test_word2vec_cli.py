import json

import numpy as np
import pytest

from tfm.word2vec import vectors

pytestmark = pytest.mark.usefixtures("quick_compile")

TOPICS = ("abcdef", "uvwxyz")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Sentences of one topic each, and their word by word translation: a → aa."""
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


def test_from_text_to_neighbours_and_scores(command, text, tmp_path):
    out = tmp_path / "a.bin"
    code, _, err = command("embed", "train", text / "a.txt", "--output", out, *SMALL)
    assert code == 0 and "3,000 words, 12 different ones" in err and "words/s" in err
    assert sorted(vectors.read(out).words) == sorted("".join(TOPICS))

    code, printed, _ = command("embed", "neighbours", out, "a", "b", "--minus", "u", "--count", "3")
    found = [line.split("\t") for line in printed.decode().splitlines()]
    assert code == 0 and {word for word, _ in found} <= set("cdef") and len(found) == 3

    pairs = [f"a\t{w}\t{9 if w in TOPICS[0] else 1}" for w in "bcduvw"] + ["a\tqq\t5"]
    (tmp_path / "pairs.tsv").write_text("\n".join(pairs))
    (tmp_path / "questions.txt").write_text(": letters\na b u v\na b u qq\n")
    code, printed, _ = command(
        *("embed", "evaluate", out, "--similarity", tmp_path / "pairs.tsv"),
        *("--analogies", tmp_path / "questions.txt"),
    )
    scores = json.loads(printed)
    assert code == 0 and scores["pairs.tsv"]["known"] == 6 and scores["pairs.tsv"]["asked"] == 7
    assert scores["pairs.tsv"]["spearman"] > 0.8
    assert (scores["questions.txt"]["known"], scores["questions.txt"]["asked"]) == (1, 2)


def test_two_languages_from_their_sentences(command, text, tmp_path):
    for name in "ab":
        out = tmp_path / f"{name}.txt"
        assert command("embed", "train", text / f"{name}.txt", "--output", out, *SMALL)[0] == 0
    code, printed, err = command(
        *("embed", "align", tmp_path / "a.txt", tmp_path / "b.txt", "--held-out", "0.25"),
        *("--source-text", text / "a.txt", "--target-text", text / "b.txt"),
        *("--source-output", tmp_path / "turned.bin"),
    )
    assert code == 0, err
    scores = json.loads(printed)
    assert (scores["pairs"], scores["held_out"]) == (9, 3)
    assert scores["csls_precision_at_5"] >= scores["csls_precision_at_1"]
    turned = vectors.read(tmp_path / "turned.bin").table_VD
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), 1.0, rtol=1e-5)

    (tmp_path / "dictionary").write_text("a aa\nu uu\n")
    again = (tmp_path / "a.txt", tmp_path / "b.txt", "--dictionary", tmp_path / "dictionary")
    code, printed, _ = command("embed", "align", *again, "--held-out", "0.5")
    assert code == 0 and json.loads(printed)["held_out"] == 1


def test_pieces_instead_of_words(command, text, tmp_path):
    sides = ("--tokenizer", tmp_path / "m.model", "--pieces", "275")
    out = tmp_path / "v.txt"
    options = (*sides, "--output", out, *SMALL, "--epochs", "1")
    code, _, err = command("embed", "train", text / "a.txt", *options)
    assert code == 0, err
    assert (tmp_path / "m.model").exists()
    assert any(word.startswith("▁") for word in vectors.read(out).words)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "--output", "x.bin"), "no text given"),
        (("train", "gone.txt", "--output", "x.bin"), "gone.txt"),
        (("train", "a.txt", "--output", "x.bin", "--pieces", "300"), "--pieces needs --tokenizer"),
        (("evaluate", "v.bin"), "give --similarity or --analogies"),
        (("neighbours", "gone.bin", "a"), "gone.bin: no such file"),
        (("align", "a.bin", "b.bin"), "give --dictionary, or --source-text and --target-text"),
    ],
)
def test_wrong_inputs_end_with_a_line(command, arguments, says):
    code, out, err = command("embed", *arguments)
    assert code == 1 and out == b"" and says in err and "Traceback" not in err
