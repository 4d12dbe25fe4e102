"""The losses against loops, updates, and what training learns."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tfm import params
from tfm.word2vec import analysis, corpus, huffman, model, step, step_scale, training
from tfm.word2vec.model import Batch, Config
from tfm.word2vec.vectors import Vectors

pytestmark = pytest.mark.usefixtures("quick_compile")

V, D = 12, 8
SMALL = Config(width=D, window=2, centres=3, tiles=4, samples=5, negatives=2)
METHODS = [("cbow", "mean"), ("cbow", "sum"), ("skipgram", "mean")]
OBJECTIVES = ["negative", "hierarchical", "softmax"]
COUNTS = [40, 30, 20, 9, 8, 7, 6, 5, 4, 3, 2, 1]


def tables(c, seed=0):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=(V, D)), jnp.float32) for name in model.declare(c, V)}


def batch(c, seed=0):
    """Tiles of random words with sentence boundaries inside; the last one ends in padding."""
    rng = np.random.default_rng(seed)
    S = c.centres + 2 * c.window
    sentences = np.sort(rng.integers(1, 4, (c.tiles, S)), axis=1)
    sentences[-1, -c.window - 1 :] = 0
    return Batch(
        *(
            jnp.asarray(x, jnp.int32)
            for x in (
                rng.integers(0, V, (c.tiles, S)),
                sentences,
                rng.integers(1, c.window + 1, (c.tiles, c.centres)),
                rng.integers(0, V, (c.tiles, c.samples)),
            )
        ),
        jnp.float32(0.05),
    )


def predictions(c, b):
    """Yields (tile, centre, context words) of every centre, by loops."""
    words, sentences, windows = (np.asarray(x) for x in b[:3])
    for i, t in itertools.product(range(c.tiles), range(c.centres)):
        at = t + c.window
        if sentences[i, at] == 0:
            continue
        context = [
            s
            for s in range(at - windows[i, t], at + windows[i, t] + 1)
            if s != at and sentences[i, s] == sentences[i, at]
        ]
        yield i, words[i, at], [words[i, s] for s in context]


def reference(c, b, inputs, outputs, paths):
    """The loss of Mikolov 2013a and b by loops over pairs, in float64."""
    inputs, outputs = np.asarray(inputs, np.float64), np.asarray(outputs, np.float64)

    def log_sigmoid(x):
        return -np.log1p(np.exp(-x))

    def cost(hidden, word, tile):
        if c.objective == "softmax":
            scores = outputs @ hidden
            return np.log(np.exp(scores).sum()) - scores[word]
        if c.objective == "hierarchical":
            path = [
                (n, code)
                for n, code in zip(paths.nodes_VL[word], paths.codes_VL[word], strict=True)
                if code >= 0
            ]
            return -sum(
                log_sigmoid((1 - 2 * int(code)) * (outputs[n] @ hidden)) for n, code in path
            )
        samples = np.asarray(b.negatives_BJ)[tile]
        negative = np.mean([log_sigmoid(-(outputs[s] @ hidden)) for s in samples])
        return -log_sigmoid(outputs[word] @ hidden) - c.negatives * negative

    total = 0.0
    for tile, centre, context in predictions(c, b):
        if c.method == "skipgram":
            total += sum(cost(inputs[centre], word, tile) for word in context)
        elif context:
            hidden = inputs[context].sum(axis=0) / (len(context) if c.combine == "mean" else 1)
            total += cost(hidden, centre, tile)
    return total


def dense_loss(c, b, paths, tree):
    """The loss as a function of whole tables."""
    inputs, outputs = tree["input"], tree.get("output", tree["input"])
    targets, shared = model.target_ids(c, b, paths), model.shared_ids(c, b, V)
    rows = inputs[model.input_ids(c, b)], outputs[targets], outputs[shared]
    return model.loss(c, b, paths, *rows)


def test_the_context_is_the_window_within_the_sentence_without_the_centre():
    b = batch(SMALL)
    mask = np.asarray(model.context_mask(SMALL, b))
    assert set(np.unique(mask)) == {0.0, 1.0}
    counts = {}
    for tile, _, context in predictions(SMALL, b):
        counts[tile] = counts.get(tile, 0) + len(context)
    assert [counts.get(i, 0) for i in range(SMALL.tiles)] == mask.sum(axis=(1, 2)).tolist()
    assert all(mask[:, t, t + SMALL.window].sum() == 0 for t in range(SMALL.centres))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("method", "combine"), METHODS)
def test_the_loss_is_that_of_the_papers(method, combine, objective):
    c = replace(SMALL, method=method, combine=combine, objective=objective)
    paths, b, tree = huffman.paths(COUNTS), batch(c), tables(c)
    want = reference(c, b, tree["input"], tree["output"], paths)
    np.testing.assert_allclose(dense_loss(c, b, paths, tree), want, rtol=1e-5)


@pytest.mark.parametrize(
    ("objective", "kept"),
    [*((o, "two") for o in OBJECTIVES), ("negative", "one"), ("softmax", "one")],
)
@pytest.mark.parametrize("method", ["cbow", "skipgram"])
def test_an_update_is_gradient_descent_on_the_whole_tables(method, objective, kept):
    c = replace(SMALL, method=method, objective=objective, tables=kept)
    paths, b, tree = huffman.paths(COUNTS), batch(c), tables(c)
    gradients = jax.grad(lambda t: dense_loss(c, b, paths, t))(tree)
    after = step.update(c, tree, b, paths)
    for name, table in tree.items():
        want = table - b.learning_rate * gradients[name]
        np.testing.assert_allclose(after[name], want, atol=1e-5)
        assert np.abs(want - table).max() > 1e-3


def test_updates_apply_batches_in_order():
    c = SMALL
    several = [batch(c, seed) for seed in range(3)]
    want = tables(c)
    for b in several:
        want = step.update(c, want, b)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *several)
    got = step.updates(c, tables(c), stacked)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1e-6)
    centres = sum(1 for _ in predictions(c, several[0]))
    loss = step.loss(c, want, several[0])
    np.testing.assert_allclose(loss, dense_loss(c, several[0], None, want) / centres, rtol=1e-5)


def test_tables_sharded_over_devices_learn_the_same():
    c = SMALL
    mesh = Mesh(np.array(jax.devices()), ("x",))
    sharding = NamedSharding(mesh, PartitionSpec(None, "x"))
    stacked = jax.tree.map(lambda x: x[None], batch(c))
    updates = jax.jit(step.updates, static_argnums=0)
    want = updates(c, tables(c), stacked)
    got = updates(c, jax.device_put(tables(c), sharding), stacked)
    assert got["input"].sharding.is_equivalent_to(sharding, 2)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1e-6)


def test_softplus_is_log_one_plus_exp_and_its_derivative_the_sigmoid():
    x = jnp.array([-100.0, -3.0, 0.0, 3.0, 100.0])
    np.testing.assert_allclose(model.softplus(x), np.logaddexp(0, np.asarray(x)), 1e-6, 1e-9)
    derivative = jax.vmap(jax.grad(model.softplus))(x)
    np.testing.assert_allclose(
        derivative, 1 / (1 + np.exp(-np.asarray(x, np.float64))), rtol=1e-5, atol=1e-9
    )


TOPICS = ["abcdef", "uvwxyz"]


def learn(tmp_path, seed=0, combine="mean", **settings):
    """Learns vectors from a text whose sentences have one of two topics each."""
    rng = np.random.default_rng(0)
    text = [list(rng.choice(list(TOPICS[i % 2]), size=8)) for i in range(600)]
    c = Config(
        width=D, window=3, subsample=0, min_count=1, tiles=2, centres=8, samples=16, seed=seed,
        combine=combine,
    )  # fmt: skip
    c = replace(c, **{"epochs": 3, "learning_rate": 0.1 if combine == "mean" else 0.05} | settings)
    vocabulary = corpus.count(text, c.min_count)
    stream = corpus.write(text, vocabulary, tmp_path / "ids")
    losses = []
    found = training.train(c, stream, vocabulary, lambda share, loss: losses.append((share, loss)))
    return Vectors(vocabulary.words, np.asarray(found["input"])), losses


@pytest.mark.parametrize(
    "settings",
    [
        *({"method": m, "combine": x, "objective": o} for m, x in METHODS for o in OBJECTIVES),
        {"method": "cbow", "tables": "one"},
        {"method": "skipgram", "tables": "one", "learning_rate": 0.03},
    ],
    ids=lambda s: "-".join(map(str, s.values())),
)
def test_nearest_neighbours_share_a_topic(tmp_path, settings):
    space, losses = learn(tmp_path, **settings)
    shares, values = zip(*losses, strict=True)
    assert shares == tuple(sorted(shares)) and shares[-1] == 1.0 and values[-1] < values[0]
    for topic in TOPICS:
        for word in topic:
            query_D = analysis.combination(space, [word])
            nearest = analysis.neighbours(space, query_D, 5, without=[word])
            assert {found.word for found in nearest} == set(topic) - {word}


@pytest.mark.parametrize("settings", [{}, {"method": "cbow", "replicas": 2}])
def test_the_seed_determines_the_vectors(tmp_path, settings):
    first, again, other = (learn(tmp_path, seed=s, **settings)[0].table_VD for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-2


def test_divergence_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(step_scale, "MAX_STEP", np.inf)
    text = [["a", "b", "c", "d"]] * 500
    c = Config(width=4, min_count=1, subsample=0, learning_rate=1e30, objective="softmax")
    vocabulary = corpus.count(text, 1)
    stream = corpus.write(text, vocabulary, tmp_path / "ids")
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        training.train(c, stream, vocabulary)


def test_a_text_that_subsampling_empties_is_an_error(tmp_path):
    text = [["a", "b"]] * 5
    vocabulary = corpus.count(text, 1)
    stream = corpus.write(text, vocabulary, tmp_path / "ids")
    c = Config(width=4, min_count=1, subsample=1e-12, epochs=1)
    with pytest.raises(ValueError, match="no word of the text was left by subsample 1e-12"):
        training.train(c, stream, vocabulary)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epochs": 0}, "epochs 0: must be 1 or more"),
        ({"centres": 0}, "centres 0"),
        ({"window": 0}, "window 0"),
        ({"seed": -1}, "seed -1: must be from 0 to 4,294,967,295"),
        ({"subsample": -1.0}, "subsample -1.0"),
        ({"replicas": -1}, "replicas -1"),
        ({"exponent": float("nan")}, "exponent nan: must be from -2 to 2"),
        ({"method": "glove"}, "method 'glove': choose from cbow, skipgram"),
    ],
)
def test_settings_out_of_range_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        training.train(Config(**settings), np.zeros(1, np.int32), None)


def test_settings_that_exclude_each_other_are_refused():
    with pytest.raises(ValueError, match="tables must be 'two'"):
        Config(tables="one", objective="hierarchical")


def test_inputs_start_small_and_outputs_at_zero():
    tree = params.init(jax.random.key(0), model.declare(Config(), 1000))
    assert np.abs(tree["input"]).max() <= 0.005
    np.testing.assert_allclose(tree["input"].std(), 0.01 / 12**0.5, rtol=0.02)
    assert not tree["output"].any()
