"""Files of vectors, analysis, and initial tables of a translation model."""

import gzip
import struct
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tfm.word2vec import analysis, tables, vectors
from tfm.word2vec.vectors import Vectors

WORDS = ("king", "queen", "man", "woman", "apple", "我们", "▁the", "naïve")


@pytest.fixture
def space(rng):
    return Vectors(WORDS, rng.normal(size=(len(WORDS), 6)).astype(np.float32))


def royal():
    """Vectors for which king − man + woman is exactly queen."""
    rows = {"king": (1, 1, 0), "man": (1, 0, 0), "woman": (0, 0, 1), "queen": (0, 1, 1)}
    extra = {"apple": (1, -1, 1), "pear": (1, -1, 0.8)}
    table = np.array([*rows.values(), *extra.values()], np.float32)
    return Vectors(tuple(rows | extra), table)


@pytest.mark.parametrize("name", ["vectors.bin", "vectors.txt"])
def test_files_are_read_back_bit_for_bit(space, tmp_path, name):
    vectors.write(space, tmp_path / name)
    back = vectors.read(tmp_path / name)
    assert back.words == WORDS
    np.testing.assert_array_equal(back.table_VD, space.table_VD)
    assert vectors.read(tmp_path / name, most=3).words == WORDS[:3]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_text_format_is_word2vecs(tmp_path):
    table = np.array([[1, -0.5], [0, 2e-5]], np.float32)
    vectors.write(Vectors(("a", "bc"), table), tmp_path / "v.txt")
    assert (tmp_path / "v.txt").read_text() == "2 2\na 1.0 -0.5\nbc 0.0 2e-05\n"
    (tmp_path / "c.txt").write_text("2 2\na 1.0 -0.5 \nbc 0.0 2e-05 \n")  # as the C program ends
    np.testing.assert_array_equal(vectors.read(tmp_path / "c.txt").table_VD, table)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("v.txt", b"hello\n", "words width"),
        ("v.txt", b"2 2\na 1 2\n", "entry 2 of 2: missing"),
        ("v.txt", b"1 2\na 1 2 3\n", "entry 1 of 1: 3 numbers instead of 2"),
        ("v.txt", b"1 1\na b\n", "entry 1 of 1"),
        ("v.bin", b"1 2\na \x00\x00", "read as binary: entry 1 of 1: the file ends inside"),
        ("v.txt.gz", b"1 1\na 1\n", "damaged gzip file"),
        ("v.txt.gz", gzip.compress(b"1 1\na 1\n" * 99, mtime=0)[:-20], "damaged gzip file"),
    ],
)
def test_a_malformed_file_is_an_error(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        vectors.read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "as_name"),
    [
        ("v.txt", "v.vec.gz"),
        ("v.bin", "v.bin.gz"),
        ("v.bin", "GoogleNews"),  # the name does not tell the format
        ("v.bin", "v.model.gz"),
    ],
)
def test_public_files_are_read_plain_or_compressed_in_either_format(space, tmp_path, name, as_name):
    vectors.write(space, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    there = tmp_path / as_name
    there.write_bytes(gzip.compress(content) if there.suffix == ".gz" else content)
    back = vectors.read(there)
    assert back.words == WORDS
    np.testing.assert_array_equal(back.table_VD, space.table_VD)


@pytest.mark.parametrize("name", ["v.txt", "v.bin"])
def test_repeated_words_and_bad_utf8_are_left_out_and_counted(tmp_path, name, caplog):
    rows = {b"a": 1, b"caf\xe9": 2, b"b": 3, b"A": 4, b"caf": 6}
    entries = [*rows.items(), (b"a", 5)]
    entries.insert(2, (b"a", 7))  # between others, so that later rows move up
    number = (lambda x: struct.pack("<f", x)) if name == "v.bin" else (lambda x: b"%d" % x)
    content = b"".join(word + b" " + number(x) + b"\n" for word, x in entries)
    (tmp_path / name).write_bytes(b"7 1\n" + content)
    found = vectors.read(tmp_path / name)
    assert found.words == ("a", "b", "A", "caf")  # the first one's vector is kept
    np.testing.assert_array_equal(found.table_VD, [[1], [3], [4], [6]])
    assert "of 7 entries 3 are left out: 2 of words that occurred before, 1 not" in caplog.text


def test_an_output_that_cannot_be_written_is_found_early(space, tmp_path):
    vectors.check_output(tmp_path / "new" / "folder" / "v.txt")
    vectors.check_output(tmp_path / "new" / "folder" / "v.txt")
    assert not list((tmp_path / "new" / "folder").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/v\.txt: cannot be written"):
        vectors.check_output(tmp_path / "file" / "v.txt")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        vectors.check_output(tmp_path)
    with pytest.raises(ValueError, match=r"leave out \.gz"):
        vectors.write(space, tmp_path / "v.txt.gz")
    with pytest.raises(ValueError, match="local disk only"):
        vectors.check_output(Path("gs://bucket/v.txt"))


def test_a_missing_file_and_a_word_with_a_space_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        vectors.read(tmp_path / "none.bin")
    with pytest.raises(ValueError, match="white space"):
        vectors.write(Vectors(("a b",), np.ones((1, 2))), tmp_path / "v.txt")
    assert not list(tmp_path.iterdir())


def test_neighbours_agree_with_a_full_sort(space):
    query = space.table_VD[0] * 3
    cosines = [
        np.dot(query, row) / np.linalg.norm(query) / np.linalg.norm(row) for row in space.table_VD
    ]
    order = np.argsort(cosines)[::-1]
    found = analysis.neighbours(space, query, 3)
    assert [n.word for n in found] == [WORDS[i] for i in order[:3]]
    np.testing.assert_allclose([n.cosine for n in found], np.sort(cosines)[:-4:-1], rtol=1e-5)
    assert len(analysis.neighbours(space, query, 99, without=["king"])) == len(WORDS) - 1


def test_neighbours_of_a_zero_vector_are_refused(space):
    for plus, minus in [(["king"], ["king"]), (["king", "man"], ["man", "king"])]:
        with pytest.raises(ValueError, match=r"-king cancel out|-man -king cancel out"):
            analysis.combination(space, plus, minus)
    with pytest.raises(ValueError, match="no word given"):
        analysis.combination(space, [])
    for count in (0, -1):
        with pytest.raises(ValueError, match=f"a count of {count}"):
            analysis.neighbours(space, space.table_VD[0], count)


def test_a_word_is_looked_up_as_written_then_in_lower_case(rng):
    cased = Vectors(("us", "US", "Paris", "king", "we"), rng.normal(size=(5, 3)))
    assert [cased.row(word) for word in ("US", "us", "KING", "Paris", "paris")] == [
        1,
        0,
        3,
        2,
        None,
    ]
    pairs = analysis.read_pairs(["US\tParis\t1", "us\tKing\t2", "we\tus\t5", "paris\twe\t3"])
    found = analysis.similarity(cased, pairs)
    assert (found.known, found.asked) == (3, 4)
    u = cased.units_VD
    want = stats.spearmanr([u[1] @ u[2], u[0] @ u[3], u[4] @ u[0]], [1, 2, 5])[0]
    assert found.spearman == pytest.approx(want)
    questions = analysis.read_questions([": a", "US Paris us KING", "US paris us king"])
    assert [s.known for s in analysis.analogies(cased, questions)] == [1]
    near = analysis.neighbours(cased, analysis.combination(cased, ["KING"]), 9, without=["KING"])
    assert "king" not in {n.word for n in near} and len(near) == 4


def test_king_minus_man_plus_woman_is_queen():
    space = royal()
    query = analysis.combination(space, ["king", "woman"], ["man"])
    assert analysis.neighbours(space, query, 1, ["king", "woman", "man"])[0].word == "queen"
    with pytest.raises(ValueError, match="'emperor' is not among the 6"):
        analysis.combination(space, ["emperor"])


def test_analogies_count_right_known_and_asked():
    lines = [": royal", "man king woman queen", "King man queen woman", "man king woman apple"]
    lines += [": fruit", "man king apple pear", "man king woman banana"]
    scores = analysis.analogies(royal(), analysis.read_questions(lines))
    assert scores == [("royal", 2, 3, 3), ("fruit", 0, 1, 2)]
    first_three = analysis.analogies(royal(), analysis.read_questions(lines), most=3)
    assert [s.known for s in first_three] == [0, 0]
    with pytest.raises(ValueError, match="line 2: not four words"):
        analysis.read_questions([": a", "b c d"])


def test_similarity_is_spearmans_correlation(space, rng):
    lines = ["# from somewhere", "Word 1\tWord 2\tHuman"]
    names = [(a, b) for i, a in enumerate(WORDS[:5]) for b in WORDS[:i]]
    scores = rng.integers(0, 5, len(names)).tolist()  # with ties
    lines += [f"{a}\t{b.upper()}\t{s}" for (a, b), s in zip(names, scores, strict=True)]
    lines.append("king\tunknown\t3")
    found = analysis.similarity(space, analysis.read_pairs(lines))
    units = {w: v / np.linalg.norm(v) for w, v in zip(WORDS, space.table_VD, strict=True)}
    ranks = [stats.rankdata(x) for x in (scores, [units[a] @ units[b] for a, b in names])]
    assert found.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1], rel=1e-6)
    assert (found.known, found.asked) == (len(names), len(names) + 1)


@pytest.mark.parametrize(
    ("lines", "says"),
    [(["a\tb"], "line 1: 2 columns"), (["a\tb\t1", "a\tb\tx"], "line 2: 'x'"), ([], "no pair")],
)
def test_a_malformed_similarity_table_is_an_error(lines, says):
    with pytest.raises(ValueError, match=says):
        analysis.read_pairs(lines)


def test_initial_tables_take_the_vectors_of_pieces(space, rng):
    pieces = ["<pad>", "king", "▁the", "x", "我们"]
    names = ("source", "target")
    drawn = {name: jnp.asarray(rng.normal(size=(5, 6)), jnp.float32) for name in names}
    got, coverage = tables.initial_tables(drawn, {"source": space}, {"source": pieces})
    assert coverage == {"source": 3 / 5}
    assert got["target"] is drawn["target"]
    np.testing.assert_array_equal(
        got["source"][np.array([0, 3])], drawn["source"][np.array([0, 3])]
    )
    rows, want = np.asarray(got["source"])[[1, 2, 4]], space.table_VD[[0, 6, 5]]
    assert np.square(rows).sum(axis=1).mean() == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_allclose(rows / want, (rows / want).mean(), rtol=1e-5)


def test_vectors_of_words_serve_whole_words_and_not_parts_of_words(rng):
    space = Vectors(("the", "The", "cat", "s", "al", "我们", "我", "。"), rng.normal(size=(8, 6)))
    pieces = {
        "▁the": "the", "▁The": "The", "▁CAT": "cat", "▁al": "al", "▁我们": "我们", "我": "我",
        "s": None, "al": None, "cat": None, "▁": None, "▁dog": None, "我s": None, "<pad>": None,
    }  # fmt: skip
    drawn = {"source": jnp.full((len(pieces), 6), 9.0)}
    got, coverage = tables.initial_tables(drawn, {"source": space}, {"source": list(pieces)})
    assert coverage == {"source": 6 / len(pieces)}
    table = np.asarray(got["source"])
    for row, word in zip(table, pieces.values(), strict=True):
        if word is None:
            np.testing.assert_array_equal(row, 9.0)
        else:
            want = space.table_VD[space.ids[word]]
            assert row @ want / np.linalg.norm(row) / np.linalg.norm(want) == pytest.approx(1.0)


def test_vectors_of_pieces_are_matched_exactly(rng):
    space = Vectors(("▁the", "cat", "s"), rng.normal(size=(3, 6)))
    drawn = {"source": jnp.zeros((5, 6))}
    pieces = ["the", "▁cat", "▁The", "s", "▁the"]
    got, _ = tables.initial_tables(drawn, {"source": space}, {"source": pieces})
    assert np.asarray(got["source"]).any(axis=1).tolist() == [False, False, False, True, True]


def test_vectors_that_do_not_fit_a_table_are_refused(space):
    table = {"source": jnp.zeros((2, 6)), "narrow": jnp.zeros((2, 4))}
    for name, pieces, says in [
        ("output", ["king", "x"], "no table 'output'; there are source, narrow"),
        ("narrow", ["king", "x"], "width 6, the model's is 4"),
        ("source", ["king"], "1 pieces, 2 rows"),
        ("source", ["x", "y"], "none of 2 pieces has a vector; train vectors of the run's own"),
    ]:
        with pytest.raises(ValueError, match=says):
            tables.initial_tables(table, {name: space}, {name: pieces})
