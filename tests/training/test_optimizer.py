import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tfm import config, params
from tfm.params import Param, ones, zeros
from tfm.training import optimizer

DECLARATION = {
    "embedding": Param((5, 4), ("vocab", "embed"), ones),
    "positions": Param((7, 4), ("position", "embed"), ones),
    "layers": params.stack(
        {
            "q": Param((4, 2, 2), ("embed", "heads", "head_dim"), ones),
            "q_bias": Param((2, 2), ("heads", "head_dim"), ones),
            "up": Param((4, 8), ("embed", "mlp"), ones),
            "up_bias": Param((8,), ("mlp",), ones),
            "norm": {"scale": Param((4,), ("norm",), ones)},
        },
        3,
    ),
}
PLAIN = config.Optimizer(
    learning_rate=0.1, warmup=0, schedule="constant", clip=0.0, b1=0.9, b2=0.98, eps=1e-9
)


def settings(**changes):
    return dataclasses.replace(PLAIN, **changes)


def rates(updates, **changes):
    rate = optimizer.schedule(settings(**changes))
    return np.array([float(rate(u - 1)) for u in updates])


def test_warm_up_is_linear_from_the_first_update():
    got = rates([1, 5, 10], warmup=10)
    np.testing.assert_allclose(got, [0.01, 0.05, 0.1], rtol=1e-6)


def test_rsqrt_has_the_shape_of_the_paper():
    updates, warmup, d_model = [1, 7, 399, 400, 401, 1600, 40000], 400, 512
    peak = d_model**-0.5 * warmup**-0.5
    paper = [d_model**-0.5 * min(u**-0.5, u * warmup**-1.5) for u in updates]
    got = rates(updates, learning_rate=peak, warmup=warmup, schedule="rsqrt")
    np.testing.assert_allclose(got, paper, rtol=1e-6)


def test_cosine_ends_at_its_fraction_and_stays_constant():
    got = rates(
        [10, 60, 110, 500], warmup=10, schedule="cosine", decay_updates=110, final_fraction=0.2
    )
    np.testing.assert_allclose(got, [0.1, 0.06, 0.02, 0.02], rtol=1e-5)


def test_constant_schedule():
    np.testing.assert_allclose(rates([1, 1000]), 0.1, rtol=1e-6)


def test_schedule_can_be_traced():
    rate = optimizer.schedule(settings(warmup=10, schedule="rsqrt"))
    assert float(jax.jit(rate)(jnp.int32(39))) == pytest.approx(0.05, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "cosine"}, "optimizer.decay_updates 0: .*later than warmup"),
        ({"schedule": "cosine", "warmup": 9, "decay_updates": 9}, "optimizer.decay_updates 9"),
        ({"schedule": "rsqrt"}, "optimizer.warmup 0"),
        ({"schedule": "linear"}, "optimizer.schedule 'linear': choose from rsqrt, cosine"),
        ({"warmup": -1}, "optimizer.warmup -1"),
        ({"learning_rate": 0.0}, "optimizer.learning_rate 0.0: must be more than 0"),
        ({"final_fraction": 2.0}, "optimizer.final_fraction 2.0"),
        ({"name": "sgd"}, "optimizer.name 'sgd': choose from adam, adamw"),
        ({"weight_decay": 0.1}, "set optimizer.name to adamw"),
        ({"clip": -1.0}, "optimizer.clip -1.0"),
        ({"name": "adamw", "weight_decay": -0.1}, "optimizer.weight_decay -0.1"),
    ],
)
def test_contradictory_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        optimizer.make(settings(**changes), DECLARATION)


def gradients(scale=1.0):
    rng = np.random.default_rng(0)

    def draw(p):
        return jnp.asarray(scale * rng.normal(size=p.shape), jnp.float32)

    return jax.tree.map(draw, DECLARATION, is_leaf=params.is_param)


def all_ones():
    return jax.tree.map(lambda p: jnp.ones(p.shape), DECLARATION, is_leaf=params.is_param)


def run(transformation, grads, steps=1):
    """Parameters, initially all ones, after some steps with the same gradients."""

    @jax.jit
    def step(tree, state):
        updates, state = transformation.update(grads, state, tree)
        return optax.apply_updates(tree, updates), state

    tree = all_ones()
    state = transformation.init(tree)
    for _ in range(steps):
        tree, state = step(tree, state)
    return tree


def assert_close(got, want, rtol=1e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol), got, want)


def adam_by_hand(g, steps, lr=0.1, decay=0.0):
    """Kingma & Ba 2015, algorithm 1, in float64, from θ = 1."""
    g = np.asarray(g, np.float64)
    theta, m, v = np.ones_like(g), 0.0, 0.0
    for t in range(1, steps + 1):
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g**2
        step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.98**t)) + 1e-9)
        theta = theta - lr * (step + decay * theta)
    return theta


def test_adam_by_hand():
    grads = gradients()
    want = jax.tree.map(lambda g: adam_by_hand(g, 3), grads)
    assert_close(run(optimizer.make(PLAIN, DECLARATION), grads, 3), want)


def test_adamw_decays_matrices_only():
    grads = gradients()
    made = optimizer.make(settings(name="adamw", weight_decay=0.3), DECLARATION)
    want = jax.tree.map(
        lambda g, matrix: adam_by_hand(g, 3, decay=0.3 if matrix else 0.0),
        grads,
        {
            "embedding": True,
            "positions": False,
            "layers": {
                "q": True,
                "q_bias": False,
                "up": True,
                "up_bias": False,
                "norm": {"scale": False},
            },
        },
    )
    assert_close(run(made, grads, 3), want)


def test_lion_by_hand():
    # Chen et al. 2023: the first step is the sign of (1-b1)·g, of length the learning rate.
    grads = gradients()
    made = optimizer.make(settings(name="lion", weight_decay=0.3), DECLARATION)
    got = run(made, grads)
    want = 1 - 0.1 * np.sign(grads["positions"])
    np.testing.assert_allclose(got["positions"], want, rtol=1e-6)
    want = 1 - 0.1 * (np.sign(grads["embedding"]) + 0.3)
    np.testing.assert_allclose(got["embedding"], want, rtol=1e-6)


def test_adafactor_by_hand():
    # The first step: v = g² (decay 1 - 1^-0.8 = 0), so g/√v = ±1 has RMS 1, times RMS(θ) = 1.
    grads = gradients()
    got = run(optimizer.make(settings(name="adafactor"), DECLARATION), grads)
    assert_close(got, jax.tree.map(lambda g: 1 - 0.1 * np.sign(g), grads), rtol=1e-4)


def test_adafactor_keeps_two_vectors_for_a_matrix():
    wide = {"table": Param((300, 200), ("vocab", "embed"), zeros)}
    made = optimizer.make(settings(name="adafactor"), wide)
    state = made.init({"table": jnp.zeros((300, 200))})
    assert sum(x.size for x in jax.tree.leaves(state)) < 600


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_clipping_bounds_the_global_norm(scale):
    # Adam's step does not show the gradient's norm, but its first moment, 0.1·g, does.
    grads = gradients(scale)
    made = optimizer.make(settings(clip=0.5), DECLARATION)
    _, state = jax.jit(made.update)(grads, made.init(all_ones()))
    moments = optax.tree.get(state, "mu")
    norm = float(optax.tree.norm(grads))
    factor = 0.1 * min(1.0, 0.5 / norm)
    assert (norm > 0.5) == (scale == 1e3)
    assert_close(moments, jax.tree.map(lambda g: factor * g, grads))
