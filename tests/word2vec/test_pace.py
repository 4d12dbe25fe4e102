from dataclasses import replace

import numpy as np
import pytest

from tfm.word2vec import corpus, huffman, model, pace, training
from tfm.word2vec.model import Config

C = Config(width=8, window=3, centres=8, tiles=4, samples=4, min_count=1, epochs=6, subsample=0.02)


def zipf(tmp_path, words=50, sentences=40, length=100):
    """Long sentences, so that few windows are cut, of words as unequal as language has them."""
    rng = np.random.default_rng(0)
    p = 1 / np.arange(1, words + 1)
    text = [[f"w{i}" for i in rng.choice(words, length, p=p / p.sum())] for _ in range(sentences)]
    vocabulary = corpus.count(text, 1)
    return corpus.write(text, vocabulary, tmp_path / "ids"), vocabulary


@pytest.mark.parametrize("method", ["cbow", "skipgram"])
def test_the_guesses_foreseen_are_those_of_the_batches(tmp_path, method):
    c = replace(C, method=method, replicas=1)
    stream, vocabulary = zipf(tmp_path)
    V, updates = len(vocabulary.words), 0
    read_V, met_V = np.zeros(V), np.zeros(V)
    for _, stack in corpus.batches(c, stream, vocabulary.counts_V, 8):
        for batch in map(model.Batch, *(x[0] for x in stack)):
            near_BTS = np.asarray(model.near(c, batch))
            pairs_BT, centres_BT = near_BTS.sum(axis=2), batch.words_BS[:, c.window : -c.window]
            updates += pairs_BT.any()
            each = 1 + c.negatives
            if method == "cbow":  # a word of the mean has its share in the guess
                shares = near_BTS / np.maximum(pairs_BT, 1)[..., None]
                np.add.at(read_V, batch.words_BS, each * shares.sum(axis=1))
                right_BT = (pairs_BT > 0).astype(float)
                np.add.at(met_V, centres_BT, right_BT)
            else:
                np.add.at(read_V, centres_BT, each * pairs_BT)
                right_BT = pairs_BT
                np.add.at(met_V, batch.words_BS, near_BTS.sum(axis=1))
            wrong_B1 = c.negatives * right_BT.sum(axis=1, keepdims=True) / c.samples
            np.add.at(met_V, batch.negatives_BJ, np.broadcast_to(wrong_B1, (c.tiles, c.samples)))
    want = pace.guesses(c, vocabulary.counts_V, None)
    frequent = slice(0, 12)
    np.testing.assert_allclose(want["input"][frequent], read_V[frequent] / updates, rtol=0.15)
    np.testing.assert_allclose(want["output"][frequent], met_V[frequent] / updates, rtol=0.15)
    np.testing.assert_allclose(want["output"].sum(), met_V.sum() / updates, rtol=0.06)


def test_the_root_of_the_tree_is_met_in_every_guess():
    counts = np.array([50, 30, 15, 5])
    paths = huffman.paths(counts)
    c = replace(C, method="cbow", objective="hierarchical", subsample=0)
    met_V = pace.guesses(c, counts, paths)["output"]
    np.testing.assert_allclose(met_V, c.tiles * c.centres * np.array([0.2, 0.5, 1.0, 0]))


def test_paces_slow_the_frequent_alone_and_one_table_adds_up():
    counts = np.array([10**6, 1000, 10])
    c = replace(C, tiles=64)
    paces, most = pace.paces(c, counts), pace.FARTHEST / model.rate(c)
    np.testing.assert_allclose(pace.paces(replace(c, learning_rate=1e-9), counts)["input"], 1)
    for name, met_V in pace.guesses(c, counts, None).items():
        np.testing.assert_allclose(paces[name] * met_V, np.minimum(met_V, most), rtol=1e-5)
    assert paces["input"][0] < 0.1 and paces["input"][2] == 1
    one = pace.guesses(replace(c, tables="one"), counts, None)["input"]
    np.testing.assert_allclose(one, sum(pace.guesses(c, counts, None).values()))


@pytest.mark.parametrize("objective", ["negative", "hierarchical", "softmax"])
@pytest.mark.parametrize("method", ["cbow", "skipgram"])
def test_a_word_that_is_half_the_text_does_not_blow_up(tmp_path, monkeypatch, method, objective):
    rng = np.random.default_rng(0)
    text = [[w for x in rng.choice(list("bcdef"), 10) for w in ("a", x)] for _ in range(1500)]
    vocabulary = corpus.count(text, 1)
    stream = corpus.write(text, vocabulary, tmp_path / "ids")
    c = replace(C, method=method, objective=objective, tiles=32, subsample=0, epochs=2)
    c = replace(c, learning_rate=0.1, replicas=1)
    found = training.train(c, stream, vocabulary)
    assert np.linalg.norm(found["input"], axis=1).max() < 20
    monkeypatch.setattr(pace, "FARTHEST", np.inf)
    if method == "skipgram":
        with pytest.raises(FloatingPointError):
            training.train(c, stream, vocabulary)
