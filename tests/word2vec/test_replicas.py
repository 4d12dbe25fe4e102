"""Merging of replicas that learn in parallel."""

import logging
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.word2vec import corpus, huffman, model, replicas, step, step_scale, training
from tfm.word2vec.model import Config

pytestmark = pytest.mark.usefixtures("quick_compile")

WORDS = "abcdefghijkl"
C = Config(width=8, window=2, min_count=1, subsample=0, centres=4, tiles=2, samples=4, epochs=1)


@pytest.fixture
def text(tmp_path):
    """A stream in which words close in the alphabet are neighbours."""
    rng = np.random.default_rng(0)
    at = np.clip(np.cumsum(rng.integers(-1, 2, (200, 9)), axis=1) + 5, 0, len(WORDS) - 1)
    sentences = [[WORDS[i] for i in row] for row in at]
    vocabulary = corpus.count(sentences, 1)
    return corpus.write(sentences, vocabulary, tmp_path / "ids"), vocabulary


def first_round(c, text):
    stream, vocabulary = text
    _, batches = next(corpus.batches(c, stream, vocabulary.counts_V, 5))
    rng = np.random.default_rng(1)
    tables = {
        name: jnp.asarray(rng.normal(size=(len(WORDS), c.width)), jnp.float32)
        for name in model.declare(c, len(WORDS))
    }
    return tables, batches


def after(c, text, devices, paths=None, step_scales=None, merge_scales=None):
    tables, batches = first_round(c, text)
    mesh = replicas.make_mesh(c, jax.devices()[:devices])
    assert mesh.size == devices
    ones = {name: np.ones((len(table), 1), np.float32) for name, table in tables.items()}
    at = replicas.replicate(mesh, (tables, paths, step_scales, merge_scales or ones))
    return replicas.train_round(c, mesh, at[0], replicas.shard_batches(mesh, batches), *at[1:])


@pytest.mark.parametrize("objective", ["negative", "hierarchical"])
@pytest.mark.parametrize("devices", [1, 2, 4])
def test_changes_of_four_replicas_are_added_up_on_any_number_of_devices(text, devices, objective):
    c = replace(C, replicas=4, objective=objective)
    counts_V = text[1].counts_V
    paths = huffman.paths(counts_V) if objective == "hierarchical" else None
    paths, step_scales = jax.tree.map(
        jnp.asarray, (paths, step_scale.step_scales(c, counts_V, paths))
    )
    start, batches = first_round(c, text)
    merge_scales = replicas.merge_scales(c, counts_V, 5, paths)
    got, loss = after(c, text, devices, paths, step_scales, merge_scales)
    alone = [
        step.updates(c, start, jax.tree.map(lambda x, r=r: x[r], batches), paths, step_scales)
        for r in range(4)
    ]
    for name, table in start.items():
        changes = [np.asarray(one[name], np.float64) - np.asarray(table) for one in alone]
        assert min(np.abs(change).max() for change in changes) > 0.01
        np.testing.assert_allclose(got[name], table + merge_scales[name] * sum(changes), atol=2e-6)
    first = jax.tree.map(lambda x: x[0, 0], batches)
    np.testing.assert_allclose(loss, step.loss(c, got, first, paths), rtol=1e-5)


def test_one_replica_equals_updates_in_order(text):
    c = replace(C, replicas=1)
    start, batches = first_round(c, text)
    want = jax.jit(step.updates, static_argnums=0)(c, start, jax.tree.map(lambda x: x[0], batches))
    got, _ = after(c, text, 1)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1e-6)


def test_changes_of_rare_rows_are_summed_and_of_frequent_rows_averaged():
    counts_V = np.array([10**7] + [10**4] * 10_000 + [1])
    c = Config(tiles=16, replicas=4, subsample=0)
    for scale_V1 in replicas.merge_scales(c, counts_V, 100, None).values():
        first, *rest, last = scale_V1[:, 0]
        assert first == pytest.approx(1 / 4, abs=1e-3) and last > 0.95
        assert 0.26 < min(rest) == max(rest) < 0.8
    alone = replicas.merge_scales(replace(c, replicas=1), counts_V, 1000, None)
    assert all((scale_V1 == 1).all() for scale_V1 in alone.values())


def zipf(tmp_path):
    """A text of a small vocabulary, whose words are used often between merges."""
    rng = np.random.default_rng(0)
    p = 1 / np.arange(1, 201)
    sentences = [[f"w{i}" for i in rng.choice(200, 25, p=p / p.sum())] for _ in range(2000)]
    vocabulary = corpus.count(sentences, 1)
    return corpus.write(sentences, vocabulary, tmp_path / "ids"), vocabulary


@pytest.mark.parametrize("objective", ["negative", "hierarchical", "softmax"])
@pytest.mark.parametrize("method", ["cbow", "skipgram"])
def test_vectors_of_frequent_words_do_not_diverge_with_many_replicas(
    tmp_path, monkeypatch, method, objective
):
    text = zipf(tmp_path)
    c = Config(method=method, objective=objective, width=16, min_count=1, subsample=0, epochs=3)
    ends = {}
    for count in (1, 8):
        losses = []
        tables = training.train(
            replace(c, replicas=count),
            *text,
            lambda share, loss, losses=losses: losses.append(loss),
        )
        ends[count] = losses[-1]
        assert max(np.linalg.norm(table, axis=1).max() for table in tables.values()) < 8
    assert ends[8] < 1.15 * ends[1]
    if (method, objective) == ("cbow", "softmax"):  # diverges without the scales
        ones = lambda c, counts_V, *_: dict.fromkeys(  # noqa: E731
            ("input", "output"), np.ones((len(counts_V), 1), np.float32)
        )
        monkeypatch.setattr(replicas, "merge_scales", ones)
        with pytest.raises(FloatingPointError, match="the number of replicas"):
            training.train(replace(c, replicas=8), *text)


def test_an_average_word_is_a_centre_six_times_in_a_round():
    for vocab in (10_000, 100_000):
        c = Config(tiles=16)
        assert replicas.local_updates(c, vocab) * 256 == pytest.approx(6 * vocab, rel=0.01)
    assert replicas.local_updates(Config(), 10) == 8


@pytest.mark.parametrize(("count", "devices", "used"), [(1, 8, 1), (4, 3, 2), (6, 8, 6), (8, 3, 2)])
def test_every_device_gets_the_same_number_of_replicas(count, devices, used):
    assert replicas.make_mesh(replace(C, replicas=count), jax.devices()[:devices]).size == used


def test_the_number_of_devices_does_not_affect_what_is_learned(text, caplog):
    stream, vocabulary = text
    c = replace(C, method="cbow", epochs=3)
    with caplog.at_level(logging.INFO):
        want = training.train(c, stream, vocabulary, devices=jax.devices()[:1])
        got = training.train(c, stream, vocabulary)
    lines = [line for line in caplog.messages if "replica(s)" in line]
    assert lines == ["2 replica(s) on 1 cpu device(s)", "2 replica(s) on 2 cpu device(s)"]
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1e-5)
