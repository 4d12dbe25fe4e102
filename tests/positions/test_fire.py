"""FIRE against a float64 loop over pairs of positions, and what it promises of long sentences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import params, positions, ranges
from tfm.positions.fire import FIRE, fire_bias, fire_params

N, HIDDEN = 3, 5


@pytest.fixture
def weights(draw):
    drawn = draw(fire_params(N, HIDDEN, threshold=4.0), seed=1)
    return drawn | {"c": jnp.float32(0.3), "threshold": jnp.float32(-4.0)}  # by its magnitude


def reference(weights, i, j):
    """One bias [N] of query position i and key position j, as the paper writes it."""
    w = {name: np.asarray(x, np.float64) for name, x in weights.items()}
    psi = lambda x: np.log(w["c"] * x + 1)  # noqa: E731
    ratio = np.sign(i - j) * psi(abs(i - j)) / (psi(max(i, abs(w["threshold"]))) + 1e-6)
    return np.maximum(ratio * w["w1"][0] + w["b1"], 0) @ w["w2"] + w["b2"]


def test_it_is_the_loop_over_pairs_in_packed_rows_too(weights):
    """Two rows; the second holds two sentences, whose positions restart."""
    position_BT = np.array([[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 0, 1, 2, 3, 4]], np.int32)
    segments_BT = np.array([[1] * 8, [1] * 3 + [2] * 5])
    bias = np.asarray(fire_bias(weights, positions.consecutive(8, 8), jnp.asarray(position_BT)))
    assert bias.shape == (2, N, 8, 8)
    for b in range(2):
        for t in range(8):
            for s in range(8):
                if segments_BT[b, t] == segments_BT[b, s]:
                    expected = reference(weights, position_BT[b, t], position_BT[b, s])
                    np.testing.assert_allclose(bias[b, :, t, s], expected, rtol=1e-5, atol=1e-6)


def test_a_decoding_step_has_the_bias_of_its_position(weights):
    keys = jnp.arange(7)
    distances = positions.from_one_position(keys, jnp.asarray(6))
    bias = np.asarray(fire_bias(weights, distances, jnp.full((1, 1), 6)))
    assert bias.shape == (1, N, 1, 7)
    for s in range(7):
        np.testing.assert_allclose(bias[0, :, 0, s], reference(weights, 6, s), rtol=1e-5, atol=1e-6)


def test_beyond_the_threshold_the_ratio_stays_within_one(weights):
    """With the identity for a network the bias is the ratio itself."""
    identity = weights | {
        "w1": jnp.ones((1, 1)), "b1": jnp.zeros(1), "w2": jnp.ones((1, 1)), "b2": jnp.zeros(1),
    }  # fmt: skip
    T = 64
    ratio = fire_bias(identity, positions.consecutive(T, T), jnp.arange(T)[None])[0, 0]
    causal = np.asarray(ratio)[np.tril_indices(T)]
    assert causal.min() == 0.0 and 0.9 < causal.max() <= 1.0
    np.testing.assert_allclose(ratio[5:, 0], 1.0, atol=1e-4)  # the first token, seen from any


def test_its_start_and_its_gradients():
    scheme = FIRE(hidden=8, threshold=16.0)
    weights = params.init(jax.random.key(0), scheme.side_params(32, N))
    assert float(weights["threshold"]) == 16.0 and weights["c"].shape == ()

    def total(weights):
        bias = scheme.bias(
            weights,
            positions.consecutive(40, 40),
            jnp.arange(40)[None],
            heads=N,
            bidirectional=True,
        )
        return jnp.square(bias).sum()

    gradients = jax.grad(total)(weights)
    assert all(np.isfinite(x).all() and np.abs(x).max() > 0 for x in jax.tree.leaves(gradients))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="hidden 0: must be from 1"):
        ranges.check(FIRE(hidden=0))
    with pytest.raises(ValueError, match=r"threshold 0\.0: must be more than 0"):
        ranges.check(FIRE(threshold=0.0))
