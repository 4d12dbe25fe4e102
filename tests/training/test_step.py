import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from tfm import transformer
from tfm.config import Config, Optimizer, Train
from tfm.training import optimizer, step

MODEL = transformer.Architecture(
    source_vocab=11, target_vocab=11, d_model=16, heads=2, d_ff=32, encoder_layers=1,
    decoder_layers=1, dropout=0.0,
)  # fmt: skip
CONFIG = Config(
    model=MODEL,
    optimizer=Optimizer(learning_rate=1e-2, warmup=10),
    train=Train(loss_chunk=16, ema=0.5),
)

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def batch(rng, sentences):
    """Eight rows of unequal length; target and source are equal."""
    lengths = rng.integers(2, 7, 8)
    made = sentences(rng, [(n, n) for n in lengths], source_width=7, target_width=7)
    target = np.where(made.target_segments != 0, made.source, 0).astype(np.int32)
    shifted = np.pad(target, ((0, 0), (1, 0)), constant_values=2)[:, :-1]
    return made._replace(target=target, target_input=shifted)


@functools.cache
def start(experiment, rule=None):
    """(initial state, jitted update) of an experiment."""
    rule = rule or optimizer.make(experiment.optimizer, transformer.declare(experiment.model))
    return step.init_state(experiment, rule), jax.jit(
        functools.partial(step.update, experiment=experiment, optimizer=rule)
    )


def repeat(batch, times, *args):
    state, update = start(*args)
    found = []
    for _ in range(times):
        state, metrics = update(state, batch)
        found.append(metrics)
    return state, found


def table(weights):
    return np.asarray(weights["tables"]["target"], np.float64)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_loss_falls_and_metrics_are_means_over_real_tokens(batch):
    state, found = repeat(batch, 80, CONFIG)
    assert found[0].nll > 2.0  # ln 11 is 2.4
    assert found[-1].nll < 0.2
    assert found[-1].correct == 1.0
    assert found[-1].loss > found[-1].nll  # smoothing adds to it
    assert int(state.step) == 80
    assert found[0].target_tokens == (batch.target_segments != 0).sum()
    assert found[0].source_tokens == (batch.source_segments != 0).sum()


@pytest.fixture(scope="module")
def one_and_many():
    """Two steps of plain SGD: Adam would hide the size of the gradient."""
    rule = optax.sgd(0.1)

    def run(batch, parts):
        return repeat(batch, 2, tiny.change(CONFIG, train={"accumulate": parts}), rule)

    return run


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_give_the_same_update(batch, one_and_many, parts):
    (one, metrics), (many, same) = (one_and_many(batch, n) for n in (1, parts))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(metrics, same, rtol=1e-6)


def test_micro_batches_must_divide_the_rows(batch):
    with pytest.raises(ValueError, match=r"train\.accumulate 3: must divide data\.rows 8"):
        repeat(batch, 1, tiny.change(CONFIG, train={"accumulate": 3}))


def test_update_that_is_not_finite_changes_only_the_counters(batch):
    state, update = start(CONFIG)
    state, _ = update(state, batch)
    poisoned = state.replace(
        params=jax.tree.map(lambda x: x.at[(0,) * x.ndim].set(jnp.nan), state.params)
    )
    after, _ = update(poisoned, batch)
    after, metrics = update(after, batch)
    assert not np.isfinite(metrics.loss)
    assert metrics.bad_steps == after.bad_steps == 2
    assert int(after.step) == int(state.step) + 2
    for name in ("params", "optimizer", "average"):
        assert_equal(getattr(after, name), getattr(poisoned, name))

    next_state, metrics = update(after.replace(params=state.params), batch)
    assert metrics.bad_steps == next_state.bad_steps == 0
    assert np.isfinite(metrics.loss)
    assert (table(next_state.params) != table(state.params)).any()


def test_gradient_that_is_not_finite_is_skipped_though_the_loss_is_finite(batch, monkeypatch):
    gradients = step._gradients

    def overflowing(*args):
        sums, found = gradients(*args)
        return sums, jax.tree.map(lambda g: g * jnp.inf, found)

    monkeypatch.setattr(step, "_gradients", overflowing)
    state, update = start(tiny.change(CONFIG, train={"ema": 0.0}), optax.sgd(0.1))
    after, metrics = update(state, batch)
    assert np.isfinite(metrics.loss) and metrics.bad_steps == 1
    assert_equal(after.params, state.params)


def test_exponential_moving_average(batch):
    state, update = start(CONFIG)
    expected, decays = table(state.params), []
    for made in range(12):
        state, _ = update(state, batch)
        decays.append(min(0.5, (1 + made) / (10 + made)))
        expected = decays[-1] * expected + (1 - decays[-1]) * table(state.params)
        np.testing.assert_allclose(table(state.average), expected, rtol=1e-6, atol=1e-7)
    assert decays[0] == 0.1 and decays[-1] == 0.5  # both regimes occurred
    assert state.weights is state.average


def test_without_an_average_weights_are_the_parameters():
    state, _ = start(tiny.change(CONFIG, train={"ema": 0.0}))
    assert state.average is None
    assert state.weights is state.params


def test_dropout_depends_on_the_step_alone(batch):
    state, update = start(tiny.change(CONFIG, model={"dropout": 0.3}))
    loss_at = lambda n: float(update(state.replace(step=jnp.int32(n)), batch)[1].loss)  # noqa: E731
    losses = [loss_at(n) for n in (0, 1, 2)]
    assert len(set(losses)) == 3
    assert loss_at(1) == losses[1]


def test_initial_parameters_depend_on_the_seed_alone():
    of = lambda **changes: start(tiny.change(CONFIG, **changes))[0].params  # noqa: E731
    assert_equal(of(), of(optimizer={"name": "lion"}))
    assert (table(of()) != table(of(train={"seed": 1}))).any()
