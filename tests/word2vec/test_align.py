"""Alignment of two languages: the rotation, CSLS, precision, dictionaries."""

import numpy as np
import pytest
from scipy import linalg

from tfm.word2vec import align
from tfm.word2vec.vectors import Vectors, units

V, D = 60, 8
SOURCE = tuple(f"s{i}" for i in range(V))
TARGET = tuple(f"t{i}" for i in range(V))
TRUE = list(zip(SOURCE, TARGET, strict=True))


def rotated(rng, noise):
    """Vectors, and the same vectors rotated and with noise added."""
    x = rng.normal(size=(V, D)).astype(np.float32)
    rotation, _ = np.linalg.qr(rng.normal(size=(D, D)))
    y = x @ rotation.astype(np.float32) + noise * rng.normal(size=(V, D)).astype(np.float32)
    return Vectors(SOURCE, x), Vectors(TARGET, y), rotation


def test_procrustes_finds_the_rotation_and_no_other_is_better(rng):
    source, target, rotation = rotated(rng, 0.0)
    found = align.procrustes(source.table_VD, target.table_VD)
    np.testing.assert_allclose(found, rotation, atol=1e-5)
    noisy = target.table_VD + rng.normal(size=(V, D))
    best = align.procrustes(source.table_VD, noisy)
    want, _ = linalg.orthogonal_procrustes(source.table_VD.astype(float), noisy)
    np.testing.assert_allclose(best, want, atol=1e-5)
    np.testing.assert_allclose(best @ best.T, np.eye(D), atol=1e-5)
    rest = np.linalg.norm(source.table_VD @ best - noisy)
    for _ in range(50):
        other, _ = np.linalg.qr(best + 0.1 * rng.normal(size=(D, D)))
        other *= np.sign((other * best).sum(axis=0))  # qr chooses signs freely
        assert np.linalg.norm(source.table_VD @ other - noisy) > rest


def test_a_rotation_learned_from_half_of_a_dictionary_translates_the_other_half(rng):
    source, target, _ = rotated(rng, 0.02)
    learned, held = align.split(TRUE, 0.5, seed=0)
    assert len(learned) == len(held) == V // 2 and not set(learned) & set(held)
    before = align.precision(source, target, held, 1)
    aligned = align.align(source, target, [*learned, ("unknown", "t1")])
    assert before < 0.2 < align.precision(*aligned[:2], held, 1) == 1.0
    lengths = np.linalg.norm(aligned[0].table_VD, axis=1)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)


def test_split_leaves_at_least_one_word_to_learn_from():
    assert align.split(TRUE, 0, seed=0) == (TRUE, [])
    assert [len(part) for part in align.split(TRUE[:1], 0.9, seed=0)] == [1, 0]
    assert [len(part) for part in align.split(TRUE, 0.999, seed=0)] == [1, V - 1]
    assert align.split([], 0.5, seed=0) == ([], [])
    for share in (1, 1.5, -0.5, float("nan")):
        with pytest.raises(ValueError, match="a held-out share of"):
            align.split(TRUE, share, seed=0)


def test_csls_is_conneaus_formula(rng):
    source, target, _ = rotated(rng, 0.5)
    x, y = units(source.table_VD), units(target.table_VD)
    cosines = x @ y.T
    crowd_x, crowd_y = (np.sort(c, axis=1)[:, -4:].mean(axis=1) for c in (cosines, cosines.T))
    scores = 2 * cosines - crowd_x[:, None] - crowd_y[None]
    want = [[TARGET[j] for j in row] for row in np.argsort(-scores, axis=1)[:, :5]]
    assert align.translate(source, target, SOURCE, 5, nearest=4) == want
    plain = [[TARGET[j] for j in row] for row in np.argsort(-cosines, axis=1)[:, :5]]
    assert align.translate(source, target, SOURCE, 5, nearest=0) == plain != want


def test_precision_takes_any_translation_of_a_word(rng):
    source, target, _ = rotated(rng, 0.3)
    best = align.translate(source, target, SOURCE[:4], 3)
    dictionary = [("s0", best[0][0]), ("s1", best[1][2]), ("s1", best[1][1]), ("s2", "nowhere")]
    wrong = next(word for word in TARGET if word not in best[3])
    dictionary.append(("s3", wrong))
    assert align.precision(source, target, dictionary, 1) == pytest.approx(1 / 3)
    assert align.precision(source, target, dictionary, 2) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="none of 1 pairs"):
        align.precision(source, target, [("x", "y")], 1)


def test_cooccurrence_finds_the_dictionary_of_parallel_sentences(rng):
    words = [f"{i}" for i in range(20)]
    text = [rng.choice(words, 6) for _ in range(400)]
    sides = [[f"s{w}" for w in line] for line in text], [[f"t{w}" for w in line] for line in text]
    for line in sides[1]:
        line.append("t_the")  # in every sentence, so a translation of no word
    spaces = [Vectors(tuple(sorted({w for line in x for w in line})), np.ones((n, 2)))
              for x, n in zip(sides, (20, 21), strict=True)]  # fmt: skip
    found = align.cooccurring(*sides, *spaces)
    assert sorted(found) == sorted((f"s{w}", f"t{w}") for w in words)
    assert align.cooccurring(*sides, *spaces, least=401) == []
    with pytest.raises(ValueError, match="400 source sentences but 399"):
        align.cooccurring(sides[0], sides[1][1:], *spaces)


def test_dice_and_its_threshold():
    sides = [["a"]] * 6 + [["b"]] * 2, [["x"]] * 5 + [["y"]] * 3
    spaces = Vectors(("a", "b"), np.ones((2, 1))), Vectors(("x", "y"), np.ones((2, 1)))
    # Dice: a-x 10/11, b-y 4/5, a-y 2/9.
    assert align.cooccurring(*sides, *spaces, least=1) == [("a", "x"), ("b", "y")]
    assert align.cooccurring(*sides, *spaces, least=1, threshold=0.85) == [("a", "x")]


def test_errors_of_dictionary_files_and_widths(rng):
    assert align.read_dictionary(["a b", "", "a\tc"]) == [("a", "b"), ("a", "c")]
    with pytest.raises(ValueError, match="line 2: 3 words"):
        align.read_dictionary(["a b", "a b c"])
    source, target, _ = rotated(rng, 0.1)
    with pytest.raises(ValueError, match="widths 8 and 7"):
        align.align(source, Vectors(TARGET, target.table_VD[:, :7]), TRUE)
    with pytest.raises(ValueError, match="none of 1 pairs"):
        align.align(source, target, [("x", "y")])
