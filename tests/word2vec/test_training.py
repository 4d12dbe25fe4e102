import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tfm import params
from tfm.word2vec import analysis, corpus, huffman, model, pace, step, training
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
    """Tiles of random words, with a sentence border inside and padding at the end of the last."""
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


def guesses(c, b):
    """Loops: for every centre, (its tile, itself, the words around it)."""
    words, sentences, reach = (np.asarray(x) for x in b[:3])
    for i, t in itertools.product(range(c.tiles), range(c.centres)):
        at = t + c.window
        if sentences[i, at] == 0:
            continue
        around = [
            s
            for s in range(at - reach[i, t], at + reach[i, t] + 1)
            if s != at and sentences[i, s] == sentences[i, at]
        ]
        yield i, words[i, at], [words[i, s] for s in around]


def reference(c, b, read, met, paths):
    """The loss by loops in float64: Mikolov 2013a and b, a pair at a time."""
    read, met = np.asarray(read, np.float64), np.asarray(met, np.float64)

    def log_sigmoid(x):
        return -np.log1p(np.exp(-x))

    def cost(hidden, word, tile):
        if c.objective == "softmax":
            scores = met @ hidden
            return np.log(np.exp(scores).sum()) - scores[word]
        if c.objective == "hierarchical":
            way = [
                (n, t)
                for n, t in zip(paths.nodes_VL[word], paths.turns_VL[word], strict=True)
                if t >= 0
            ]
            return -sum(log_sigmoid((1 - 2 * int(t)) * (met[n] @ hidden)) for n, t in way)
        samples = np.asarray(b.negatives_BJ)[tile]
        wrong = np.mean([log_sigmoid(-(met[s] @ hidden)) for s in samples])
        return -log_sigmoid(met[word] @ hidden) - c.negatives * wrong

    total = 0.0
    for tile, centre, around in guesses(c, b):
        if c.method == "skipgram":
            total += sum(cost(read[centre], word, tile) for word in around)
        elif around:
            hidden = read[around].sum(axis=0) / (len(around) if c.combine == "mean" else 1)
            total += cost(hidden, centre, tile)
    return total


def dense_loss(c, b, paths, tree):
    """The loss as a function of whole tables."""
    read, met = tree["input"], tree.get("output", tree["input"])
    own, shared = model.guess_ids(c, b, paths), model.shared_ids(c, b, V)
    return model.loss(c, b, paths, read[model.read_ids(c, b)], met[own], met[shared])


def test_a_centre_sees_its_window_in_its_sentence_and_not_itself():
    b = batch(SMALL)
    seen = np.asarray(model.near(SMALL, b))
    assert set(np.unique(seen)) == {0.0, 1.0}
    counts = {}
    for tile, _, around in guesses(SMALL, b):
        counts[tile] = counts.get(tile, 0) + len(around)
    assert [counts.get(i, 0) for i in range(SMALL.tiles)] == seen.sum(axis=(1, 2)).tolist()
    assert all(seen[:, t, t + SMALL.window].sum() == 0 for t in range(SMALL.centres))


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
    slopes = jax.grad(lambda t: dense_loss(c, b, paths, t))(tree)
    after = step.update(c, tree, b, paths)
    for name, table in tree.items():
        want = table - b.rate * slopes[name]
        np.testing.assert_allclose(after[name], want, atol=1e-5)
        assert np.abs(want - table).max() > 1e-3


def test_a_stack_of_updates_is_one_after_the_other():
    c = SMALL
    several = [batch(c, seed) for seed in range(3)]
    want = tables(c)
    for b in several:
        want = step.update(c, want, b)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *several)
    got = step.updates(c, tables(c), stacked)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1e-6)
    centres = sum(1 for _ in guesses(c, several[0]))
    loss = step.loss(c, want, several[0])
    np.testing.assert_allclose(loss, dense_loss(c, several[0], None, want) / centres, rtol=1e-5)


def test_tables_sharded_over_devices_learn_the_same():
    c = SMALL
    mesh = Mesh(np.array(jax.devices()), ("x",))
    place = NamedSharding(mesh, PartitionSpec(None, "x"))
    stacked = jax.tree.map(lambda x: x[None], batch(c))
    updates = jax.jit(step.updates, static_argnums=0)
    want = updates(c, tables(c), stacked)
    got = updates(c, jax.device_put(tables(c), place), stacked)
    assert got["input"].sharding.is_equivalent_to(place, 2)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1e-6)


def test_softplus_is_log_one_plus_exp_and_its_slope_the_sigmoid():
    x = jnp.array([-100.0, -3.0, 0.0, 3.0, 100.0])
    np.testing.assert_allclose(model.softplus(x), np.logaddexp(0, np.asarray(x)), 1e-6, 1e-9)
    slope = jax.vmap(jax.grad(model.softplus))(x)
    np.testing.assert_allclose(
        slope, 1 / (1 + np.exp(-np.asarray(x, np.float64))), rtol=1e-5, atol=1e-9
    )


TOPICS = ["abcdef", "uvwxyz"]


def learn(tmp_path, seed=0, combine="mean", **settings):
    """Vectors of a text in which a sentence keeps to one of two topics."""
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
def test_words_of_a_topic_come_together(tmp_path, settings):
    space, losses = learn(tmp_path, **settings)
    shares, values = zip(*losses, strict=True)
    assert shares == tuple(sorted(shares)) and shares[-1] == 1.0 and values[-1] < values[0]
    for topic in TOPICS:
        for word in topic:
            query_D = analysis.combination(space, [word])
            nearest = analysis.neighbours(space, query_D, 5, without=[word])
            assert {found.word for found in nearest} == set(topic) - {word}


@pytest.mark.parametrize("settings", [{}, {"method": "cbow", "replicas": 2}])
def test_the_seed_decides_everything(tmp_path, settings):
    first, again, other = (learn(tmp_path, seed=s, **settings)[0].table_VD for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-2


def test_a_diverging_run_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "FARTHEST", np.inf)
    text = [["a", "b", "c", "d"]] * 500
    c = Config(width=4, min_count=1, subsample=0, learning_rate=1e30, objective="softmax")
    vocabulary = corpus.count(text, 1)
    stream = corpus.write(text, vocabulary, tmp_path / "ids")
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        training.train(c, stream, vocabulary)


def test_a_text_that_is_thinned_out_to_nothing_is_told(tmp_path):
    text = [["a", "b"]] * 5
    vocabulary = corpus.count(text, 1)
    stream = corpus.write(text, vocabulary, tmp_path / "ids")
    c = Config(width=4, min_count=1, subsample=1e-12, epochs=1)
    with pytest.raises(ValueError, match="no word of the text was left by subsample 1e-12"):
        training.train(c, stream, vocabulary)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"epochs": 0}, "epochs 0 must be at least 1"),
        ({"centres": 0}, "centres 0"),
        ({"window": 0}, "window 0"),
        ({"seed": -1}, "seed -1 must be at least 0"),
        ({"subsample": -1.0}, "subsample -1.0"),
        ({"replicas": -1}, "replicas -1"),
        ({"tables": "one", "objective": "hierarchical"}, "tables must be 'two'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Config(**settings)


def test_the_declaration_draws_small_inputs_and_no_outputs():
    tree = params.init(jax.random.key(0), model.declare(Config(), 1000))
    assert np.abs(tree["input"]).max() <= 0.005
    np.testing.assert_allclose(tree["input"].std(), 0.01 / 12**0.5, rtol=0.02)
    assert not tree["output"].any()
