"""Against gensim: each reads the other's files, and scores a space the same."""

from pathlib import Path

import numpy as np
import pytest

from tfm.word2vec import analysis, vectors
from tfm.word2vec.vectors import Vectors

keyedvectors = pytest.importorskip("gensim.models.keyedvectors")

WORDS = (*(f"w{i}" for i in range(40)), "我们", "▁the")
NAMES = pytest.mark.parametrize("name", ["vectors.bin", "vectors.txt"])


@pytest.fixture
def space(rng):
    return Vectors(WORDS, rng.normal(size=(len(WORDS), 5)).astype(np.float32))


@pytest.fixture
def theirs(space):
    model = keyedvectors.KeyedVectors(vector_size=5)
    model.add_vectors(list(WORDS), space.table_VD)
    return model


@NAMES
def test_gensim_reads_ours(space, tmp_path, name):
    vectors.write(space, tmp_path / name)
    load = keyedvectors.KeyedVectors.load_word2vec_format
    found = load(str(tmp_path / name), binary=name.endswith("bin"))
    assert tuple(found.index_to_key) == WORDS
    np.testing.assert_array_equal(found.vectors, space.table_VD)


@NAMES
def test_we_read_gensims(space, theirs, tmp_path, name):
    theirs.save_word2vec_format(str(tmp_path / name), binary=name.endswith("bin"))
    found = vectors.read(tmp_path / name)
    assert found.words == WORDS
    np.testing.assert_array_equal(found.table_VD, space.table_VD)


def test_neighbours_and_sums_are_gensims(space, theirs):
    for plus, minus in ((["w1"], []), (["w1", "w2"], ["w3"])):
        query_D = analysis.combination(space, plus, minus)
        ours = analysis.neighbours(space, query_D, 7, without=[*plus, *minus])
        want = theirs.most_similar(positive=plus, negative=minus, topn=7)
        assert [n.word for n in ours] == [word for word, _ in want]
        np.testing.assert_allclose([n.cosine for n in ours], [c for _, c in want], atol=1e-5)


def test_similarity_is_gensims(space, theirs, tmp_path, rng):
    lines = [f"w{a}\tw{b}\t{rng.integers(10)}" for a, b in rng.integers(0, 44, (80, 2))]
    (tmp_path / "pairs.tsv").write_text("\n".join(lines))
    ours = analysis.similarity(space, analysis.read_pairs(lines))
    _, spearman, unknown = theirs.evaluate_word_pairs(str(tmp_path / "pairs.tsv"))
    assert ours.spearman == pytest.approx(spearman[0], abs=1e-6)
    assert 100 * (1 - ours.known / ours.asked) == pytest.approx(unknown)


def test_analogies_are_gensims(tmp_path, rng):
    grid = (rng.normal(size=(6, 1, 5)) + rng.normal(size=(1, 7, 5))).reshape(42, 5)
    table = (grid + 0.5 * rng.normal(size=(42, 5))).astype(np.float32)
    space = Vectors(WORDS, table)
    theirs = keyedvectors.KeyedVectors(vector_size=5)
    theirs.add_vectors(list(WORDS), table)
    rows = rng.integers(0, [5, 5, 7, 7], (120, 4))
    lines = [": grid"]
    lines += [f"w{7 * i + a} w{7 * i + b} w{7 * j + a} w{7 * j + b}" for i, j, a, b in rows]
    lines += ["w1 w2 w3 nowhere"]
    (tmp_path / "questions.txt").write_text("\n".join(lines))
    (ours,) = analysis.analogies(space, analysis.read_questions(lines))
    _, (want, _) = theirs.evaluate_word_analogies(str(tmp_path / "questions.txt"))
    assert ours.right == len(want["correct"]) > 5
    assert ours.known == len(want["correct"]) + len(want["incorrect"]) == 120


def test_two_languages_meet_as_scipy_has_them_meet(rng, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "tools")
    from peers import languages

    V, D = 400, 12
    turn_DD = np.linalg.qr(rng.normal(size=(D, D)))[0]
    table_VD = rng.normal(size=(V, D)) + 0.5  # an offset, and lengths that differ, to be evened out
    heard_VD = rng.uniform(0.5, 2, (V, 1)) * (table_VD + rng.normal(size=(V, D)) * 0.5) @ turn_DD
    source = Vectors(tuple(f"s{i}" for i in range(V)), table_VD.astype(np.float32))
    order = rng.permutation(V)
    target = Vectors(tuple(f"t{i}" for i in order), heard_VD[order].astype(np.float32))
    pairs = [(f"s{i}", f"t{i}") for i in range(V)]
    ours, want = (
        unite(source, target, pairs[:200], pairs[200:])
        for unite in (languages.with_tfm, languages.with_scipy)
    )
    assert ours == want
    assert 0.2 < ours["cosine@1"] < ours["csls@1"] < ours["csls@5"] < 1
