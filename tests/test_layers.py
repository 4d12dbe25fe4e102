import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import layers

pytestmark = pytest.mark.usefixtures("quick_compile")

ERF = np.vectorize(math.erf)


def float64(*arrays):
    return [np.asarray(a, np.float64) for a in arrays]


@pytest.fixture
def weights(draw):
    return lambda activation: draw(layers.feed_forward_params(6, 10, activation))


def test_layer_norm_equals_numpy(rng):
    x, scale, bias = 3 + 5 * rng.normal(size=(2, 4, 16)), rng.normal(size=16), rng.normal(size=16)
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    got = layers.layer_norm(*(jnp.asarray(a, jnp.float32) for a in (x, scale, bias)))
    np.testing.assert_allclose(got, expected * scale + bias, atol=2e-6)


def test_rms_norm_equals_numpy(rng):
    x, scale = 3 + 5 * rng.normal(size=(2, 4, 16)), rng.normal(size=16)
    expected = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-6) * scale
    got = layers.rms_norm(jnp.asarray(x, jnp.float32), jnp.asarray(scale, jnp.float32))
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_norms_of_bfloat16_are_taken_in_float32(rng):
    """Sums in bfloat16 lose a spread of 2 around a mean of 300; float32 does not."""
    x = jnp.asarray(300 + rng.choice([-2.0, 2.0], size=(4, 256)), jnp.bfloat16)
    got = layers.layer_norm(x, jnp.ones(256), jnp.zeros(256))
    assert got.dtype == jnp.bfloat16
    (x,) = float64(x)
    expected = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_norm_follows_its_parameters(rng, draw, kind):
    weights = draw(layers.norm_params(8, kind))
    x = jnp.asarray(rng.normal(size=(3, 8)), jnp.float32)
    if kind == "layer":
        expected = layers.layer_norm(x, weights["scale"], weights["bias"])
    else:
        expected = layers.rms_norm(x, weights["scale"])
    np.testing.assert_array_equal(layers.norm(weights, x), expected)


def test_feed_forward_relu_equals_numpy(rng, weights):
    w = weights("relu")
    x = rng.normal(size=(2, 3, 6))
    up, up_bias, down, down_bias = float64(*(w[k] for k in ("up", "up_bias", "down", "down_bias")))
    expected = np.maximum(x @ up + up_bias, 0) @ down + down_bias
    got = layers.feed_forward(w, jnp.asarray(x, jnp.float32), "relu")
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_feed_forward_gelu_equals_numpy(rng, weights):
    w = weights("gelu")
    x = rng.normal(size=(2, 3, 6))
    up, up_bias, down, down_bias = float64(*(w[k] for k in ("up", "up_bias", "down", "down_bias")))
    h = x @ up + up_bias
    expected = (h * (1 + ERF(h / math.sqrt(2))) / 2) @ down + down_bias
    got = layers.feed_forward(w, jnp.asarray(x, jnp.float32), "gelu")
    np.testing.assert_allclose(got, expected, atol=2e-3)  # the tanh form is within 5e-4 of erf's


def test_feed_forward_swiglu_equals_numpy(rng, weights):
    w = weights("swiglu")
    assert set(w) == {"gate", "up", "down"}
    x = rng.normal(size=(2, 3, 6))
    gate, up, down = float64(w["gate"], w["up"], w["down"])
    h = x @ gate
    expected = (h / (1 + np.exp(-h)) * (x @ up)) @ down
    got = layers.feed_forward(w, jnp.asarray(x, jnp.float32), "swiglu")
    np.testing.assert_allclose(got, expected, atol=2e-6)


def test_feed_forward_dropout_acts_on_the_activation(weights):
    w = weights("relu") | {"up_bias": jnp.ones(10), "up": jnp.zeros((6, 10))}
    w |= {"down": jnp.eye(10, 6), "down_bias": jnp.zeros(6)}
    x = jnp.zeros((1, 1000, 6))
    out = layers.feed_forward(w, x, "relu", dropout_rate=0.2, key=jax.random.key(0))
    assert set(np.unique(out).tolist()) == {0.0, 1.25}
    assert np.isclose((out == 0).mean(), 0.2, atol=0.02)  # 4 standard errors of 6000 draws


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_a_residual_connection_has_its_norm_before_or_after(rng, draw, placement):
    weights = draw(layers.norm_params(8, "layer"))
    x = jnp.asarray(rng.normal(size=(2, 3, 8)), jnp.float32)
    sublayer = jnp.sin(layers.pre_norm(weights, x, placement))
    y = layers.add_norm(weights, x, sublayer, placement)
    norm = lambda z: layers.norm(weights, z)  # noqa: E731
    expected = x + jnp.sin(norm(x)) if placement == "pre" else norm(x + jnp.sin(x))
    np.testing.assert_allclose(y, expected, atol=1e-6)


def test_deepnorm_weighs_the_shortcut(rng, draw):
    """Wang 2022, figure 2, for 6 + 6 layers."""
    weights = draw(layers.norm_params(8, "layer"))
    x = jnp.asarray(rng.normal(size=(2, 3, 8)), jnp.float32)
    np.testing.assert_array_equal(layers.pre_norm(weights, x, "deepnorm"), x)
    y = layers.add_norm(weights, x, jnp.sin(x), "deepnorm", alpha=3.0)
    np.testing.assert_allclose(y, layers.norm(weights, 3.0 * x + jnp.sin(x)), atol=1e-6)
    both = layers.deepnorm(6, 6)
    np.testing.assert_allclose(both["encoder"], [0.81 * 6 ** (5 / 16), 0.87 * 6 ** (-5 / 16)])
    np.testing.assert_allclose(both["decoder"], [18**0.25, 72**-0.25])


def test_a_residual_connection_drops_the_sublayer_and_never_the_shortcut(draw):
    weights = draw(layers.norm_params(50, "rms"))
    x = jnp.full((2, 20, 50), 3.0)
    options = {"dropout_rate": 0.5, "key": jax.random.key(0)}
    y = layers.add_norm(weights, x, jnp.ones_like(x), "pre", **options)
    assert set(np.unique(y).tolist()) == {3.0, 5.0}
