"""Scaled steps of frequent words."""

from dataclasses import replace

import numpy as np
import pytest

from tfm.word2vec import corpus, huffman, model, step_scale, training
from tfm.word2vec.model import Config

C = Config(width=8, window=3, centres=8, tiles=4, samples=4, min_count=1, epochs=6, subsample=0.02)


def zipf(tmp_path, words=50, sentences=40, length=100):
    """Long sentences, so that few windows are truncated, of words with Zipf's frequencies."""
    rng = np.random.default_rng(0)
    p = 1 / np.arange(1, words + 1)
    text = [[f"w{i}" for i in rng.choice(words, length, p=p / p.sum())] for _ in range(sentences)]
    vocabulary = corpus.count(text, 1)
    return corpus.write(text, vocabulary, tmp_path / "ids"), vocabulary


@pytest.mark.parametrize("method", ["cbow", "skipgram"])
def test_expected_uses_agree_with_counts_over_batches(tmp_path, method):
    c = replace(C, method=method, replicas=1)
    stream, vocabulary = zipf(tmp_path)
    V, updates = len(vocabulary.words), 0
    inputs_V, outputs_V = np.zeros(V), np.zeros(V)
    for _, stack in corpus.batches(c, stream, vocabulary.counts_V, 8):
        for batch in map(model.Batch, *(x[0] for x in stack)):
            context_BTS = np.asarray(model.context_mask(c, batch))
            pairs_BT, centres_BT = context_BTS.sum(axis=2), batch.words_BS[:, c.window : -c.window]
            updates += pairs_BT.any()
            per_prediction = 1 + c.negatives
            if method == "cbow":  # each word of the context has its share of the mean
                shares = context_BTS / np.maximum(pairs_BT, 1)[..., None]
                np.add.at(inputs_V, batch.words_BS, per_prediction * shares.sum(axis=1))
                positive_BT = (pairs_BT > 0).astype(float)
                np.add.at(outputs_V, centres_BT, positive_BT)
            else:
                np.add.at(inputs_V, centres_BT, per_prediction * pairs_BT)
                positive_BT = pairs_BT
                np.add.at(outputs_V, batch.words_BS, context_BTS.sum(axis=1))
            negative_B1 = c.negatives * positive_BT.sum(axis=1, keepdims=True) / c.samples
            np.add.at(
                outputs_V, batch.negatives_BJ, np.broadcast_to(negative_B1, (c.tiles, c.samples))
            )
    want = step_scale.expected_uses(c, vocabulary.counts_V, None)
    frequent = slice(0, 12)
    np.testing.assert_allclose(want["input"][frequent], inputs_V[frequent] / updates, rtol=0.15)
    np.testing.assert_allclose(want["output"][frequent], outputs_V[frequent] / updates, rtol=0.15)
    np.testing.assert_allclose(want["output"].sum(), outputs_V.sum() / updates, rtol=0.06)


def test_every_prediction_uses_the_root_of_the_tree():
    counts = np.array([50, 30, 15, 5])
    paths = huffman.paths(counts)
    c = replace(C, method="cbow", objective="hierarchical", subsample=0)
    outputs_V = step_scale.expected_uses(c, counts, paths)["output"]
    np.testing.assert_allclose(outputs_V, c.tiles * c.centres * np.array([0.2, 0.5, 1.0, 0]))


def test_only_frequent_words_are_scaled_and_one_table_sums_both_uses():
    counts = np.array([10**6, 1000, 10])
    c = replace(C, tiles=64)
    scales, limit = step_scale.step_scales(c, counts), step_scale.MAX_STEP / model.learning_rate(c)
    np.testing.assert_allclose(
        step_scale.step_scales(replace(c, learning_rate=1e-9), counts)["input"], 1
    )
    for name, uses_V in step_scale.expected_uses(c, counts, None).items():
        np.testing.assert_allclose(scales[name] * uses_V, np.minimum(uses_V, limit), rtol=1e-5)
    assert scales["input"][0] < 0.1 and scales["input"][2] == 1
    one = step_scale.expected_uses(replace(c, tables="one"), counts, None)["input"]
    np.testing.assert_allclose(one, sum(step_scale.expected_uses(c, counts, None).values()))


@pytest.mark.parametrize("objective", ["negative", "hierarchical", "softmax"])
@pytest.mark.parametrize("method", ["cbow", "skipgram"])
def test_a_word_that_is_half_the_text_does_not_diverge(tmp_path, monkeypatch, method, objective):
    rng = np.random.default_rng(0)
    text = [[w for x in rng.choice(list("bcdef"), 10) for w in ("a", x)] for _ in range(1500)]
    vocabulary = corpus.count(text, 1)
    stream = corpus.write(text, vocabulary, tmp_path / "ids")
    c = replace(C, method=method, objective=objective, tiles=32, subsample=0, epochs=2)
    c = replace(c, learning_rate=0.1, replicas=1)
    found = training.train(c, stream, vocabulary)
    assert np.linalg.norm(found["input"], axis=1).max() < 20
    monkeypatch.setattr(step_scale, "MAX_STEP", np.inf)
    if method == "skipgram":
        with pytest.raises(FloatingPointError):
            training.train(c, stream, vocabulary)
