import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from tfm import transformer
from tfm.config import Config, Optimizer, Train
from tfm.training import optimizer, step

MODEL = transformer.Config(
    source_vocab=11, target_vocab=11, d_model=16, heads=2, d_ff=32, encoder_layers=1,
    decoder_layers=1, dropout=0.0,
)  # fmt: skip
CONFIG = Config(
    model=MODEL, optimizer=Optimizer(learning_rate=1e-2, warmup=10), train=Train(loss_chunk=16)
)


@pytest.fixture
def batch(rng, sentences):
    """Eight rows of unequal length; the target repeats the source."""
    lengths = rng.integers(2, 7, 8)
    made = sentences(rng, [(n, n) for n in lengths], source_width=7, target_width=7)
    target = np.where(made["target_segments"] != 0, made["source"], 0).astype(np.int32)
    shifted = np.pad(target, ((0, 0), (1, 0)), constant_values=2)[:, :-1]
    return made | {"target": target, "target_input": shifted}


def start(c):
    """(state, update) of a config."""
    rule = optimizer.make(c.optimizer, transformer.declare(c.model))
    state = jax.jit(functools.partial(step.init_state, c, rule))()
    return state, jax.jit(functools.partial(step.update, c=c, optimizer=rule))


def repeat(c, batch, times):
    state, update = start(c)
    found = []
    for _ in range(times):
        state, metrics = update(state, batch)
        found.append(metrics)
    return state, found


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_loss_falls_and_metrics_are_means_over_real_tokens(batch):
    state, found = repeat(CONFIG, batch, 60)
    assert found[0].nll == pytest.approx(np.log(11), rel=0.2)  # near uniform before training
    assert found[-1].nll < 0.1 < found[0].nll
    assert found[-1].correct == 1.0
    assert int(state.step) == 60
    assert found[0].target_tokens == (batch["target_segments"] != 0).sum()
    assert found[0].source_tokens == (batch["source_segments"] != 0).sum()


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_add_up_to_the_whole(batch, parts):
    def after_two(n):
        # Plain steps along the gradient: an update rule that divides by it would hide its size.
        c = tiny.change(CONFIG, train={"accumulate": n}, optimizer={"eps": 1.0, "clip": 0.0})
        return repeat(c, batch, 2)

    (whole, metrics), (parts_state, parts_metrics) = after_two(1), after_two(parts)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(parts_state.params)):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6 * np.abs(a).max())
    for a, b in zip(metrics[-1], parts_metrics[-1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_micro_batches_must_divide_the_rows(batch):
    with pytest.raises(ValueError, match=r"train\.accumulate 3: .* data\.rows 8"):
        repeat(tiny.change(CONFIG, train={"accumulate": 3}), batch, 1)


def test_a_bad_update_changes_nothing_but_the_counts(batch):
    c = tiny.change(CONFIG, train={"ema": 0.9})
    state, update = start(c)
    state, _ = update(state, batch)
    poisoned = state.replace(params=jax.tree.map(lambda x: x.at[(0,) * x.ndim].set(jnp.nan), state.params))
    after, metrics = update(poisoned, batch)
    after, metrics = update(after, batch)
    assert not np.isfinite(metrics.loss)
    assert metrics.bad_steps == after.bad_steps == 2
    assert int(after.step) == int(state.step) + 2
    for name in ("params", "optimizer", "average"):
        assert_equal(getattr(after, name), getattr(poisoned, name))

    cured, metrics = update(after.replace(params=state.params), batch)
    assert metrics.bad_steps == cured.bad_steps == 0
    assert np.isfinite(metrics.loss)
    assert not np.array_equal(
        cured.params["tables"]["target"]["table"], state.params["tables"]["target"]["table"]
    )


def test_a_gradient_that_overflows_is_caught_even_if_the_loss_is_finite(batch, monkeypatch):
    gradients = step._gradients

    def overflowing(*args):
        sums, found = gradients(*args)
        return sums, jax.tree.map(lambda g: g * jnp.inf, found)

    monkeypatch.setattr(step, "_gradients", overflowing)
    state, update = start(CONFIG)
    after, metrics = update(state, batch)
    assert np.isfinite(metrics.loss) and metrics.bad_steps == 1
    assert_equal(after.params, state.params)
    assert_equal(after.optimizer, state.optimizer)


def test_average_is_the_exponential_moving_one(batch):
    c = tiny.change(CONFIG, train={"ema": 0.5})
    state, update = start(c)
    name = lambda s: np.asarray(s["tables"]["target"]["table"], np.float64)  # noqa: E731
    expected = name(state.params)
    decays = []
    for made in range(8):
        state, _ = update(state, batch)
        decays.append(min(0.5, (1 + made) / (10 + made)))
        expected = decays[-1] * expected + (1 - decays[-1]) * name(state.params)
        np.testing.assert_allclose(name(state.average), expected, rtol=1e-6, atol=1e-7)
    assert decays[0] == 0.1 and decays[-1] < 0.5 and min(0.5, 9 / 18) == 0.5
    assert state.weights is state.average


def test_without_an_average_the_weights_are_the_parameters():
    state, _ = start(CONFIG)
    assert state.average is None
    assert state.weights is state.params


def test_dropout_differs_between_steps_and_repeats_with_them(batch):
    c = tiny.change(CONFIG, model={"dropout": 0.3})
    state, update = start(c)
    loss_at = lambda n: float(update(state.replace(step=jnp.int32(n)), batch)[1].loss)  # noqa: E731
    losses = [loss_at(n) for n in (0, 1, 2)]
    assert len(set(losses)) == 3
    assert loss_at(1) == losses[1]

    other, other_update = start(tiny.change(c, train={"seed": 5}))
    reseeded = other_update(other.replace(params=state.params), batch)[1].loss
    assert float(reseeded) != losses[0]


def test_parameters_follow_from_the_seed_alone():
    (a, _), (b, _) = start(CONFIG), start(tiny.change(CONFIG, optimizer={"name": "lion"}))
    (other, _) = start(tiny.change(CONFIG, train={"seed": 1}))
    assert_equal(a.params, b.params)
    table = lambda s: np.asarray(s.params["tables"]["source"]["table"])  # noqa: E731
    assert not np.array_equal(table(a), table(other))
