import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import layers
from tfm.attention.additive import additive, additive_scores

pytestmark = pytest.mark.usefixtures("quick_compile")

B, N, K, T, S, H = 2, 4, 2, 5, 6, 8


def loop(q, k, v, weight, mask, bias):
    """Bahdanau 2015, §A.1.2, one query at a time: e = vᵀ tanh(W s + U h), then a mean."""
    out = np.zeros(q.shape)
    for b, t, n in np.ndindex(B, T, N):
        kv = n // (N // K)
        scores = [weight[n] @ np.tanh(q[b, t, n] + k[b, s, kv]) + bias[n, t, s] for s in range(S)]
        exp = np.exp(np.array(scores)) * mask[b, t]
        if exp.sum():
            out[b, t, n] = (exp / exp.sum()) @ v[b, :, kv]
    return out


def test_additive_equals_the_loop(rng):
    q, k, v = (rng.normal(size=shape) for shape in ((B, T, N, H), (B, S, K, H), (B, S, K, H)))
    weight, bias = rng.normal(size=(N, H)), rng.normal(size=(N, T, S))
    mask = rng.random((B, T, S)) < 0.6
    mask[0, 2] = False
    expected = loop(q, k, v, weight, mask, bias)
    arrays = (jnp.asarray(x, jnp.float32) for x in (q, k, v, weight))
    got, weights = jax.jit(
        lambda *x: additive(
            *x,
            mask=jnp.asarray(mask)[:, None],
            bias=jnp.asarray(bias, jnp.float32)[None],
            return_weights=True,
        )
    )(*arrays)
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(
        weights.sum(-1), np.broadcast_to(mask.any(-1)[:, None], (B, N, T)), atol=1e-6
    )


@pytest.fixture
def arrays(rng):
    shapes = ((B, T, N, H), (B, S, K, H), (B, S, K, H), (N, H))
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def test_its_vector_scales_the_scores(arrays):
    """There is no ``scale``: a multiple of w multiplies every score."""
    q, k, v, weight = arrays
    scores = additive_scores(q.swapaxes(1, 2), k.swapaxes(1, 2), weight)
    _, weights = additive(q, k, v, 0.3 * weight, return_weights=True)
    np.testing.assert_allclose(weights, jax.nn.softmax(0.3 * scores), atol=1e-6)


def test_a_soft_cap_keeps_scores_and_bias_within_it(arrays):
    q, k, _, weight = arrays
    bias = jnp.zeros((1, 1, T, S)).at[..., 0].set(100.0)
    scores = additive_scores(q.swapaxes(1, 2), k.swapaxes(1, 2), weight) + bias
    _, weights = additive(*arrays, bias=bias, soft_cap=2.0, return_weights=True)
    expected = jax.nn.softmax(2.0 * jnp.tanh(scores / 2.0))
    np.testing.assert_allclose(weights, expected, atol=1e-6)


def test_dropout_needs_a_key_and_is_that_of_attend(arrays):
    """Weights are returned as they are before dropout; the output is the mean by what is left."""
    out, weights = additive(*arrays, return_weights=True)
    with pytest.raises(ValueError, match=r"dropout_rate is 0\.5, but key is None"):
        additive(*arrays, dropout_rate=0.5)
    dropped, same = additive(*arrays, dropout_rate=0.5, key=jax.random.key(0), return_weights=True)
    np.testing.assert_array_equal(same, weights)
    kept = layers.dropout(weights, 0.5, jax.random.key(0))
    values = jnp.repeat(arrays[2].swapaxes(1, 2), N // K, axis=1)
    np.testing.assert_allclose(dropped.swapaxes(1, 2), kept @ values, atol=1e-6)
    assert np.abs(dropped - out).max() > 0.1


def test_its_signature_has_neither_relative_terms_nor_a_scale(arrays):
    for name in ("relative", "scale"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            additive(*arrays, **{name: None})


def test_the_backward_pass_keeps_no_tangent_of_every_pair():
    q, k, weight = (
        jax.ShapeDtypeStruct(s, jnp.float32) for s in ((B, N, T, H), (B, K, S, H), (N, H))
    )
    _, backward = jax.eval_shape(lambda *x: jax.vjp(additive_scores, *x), q, k, weight)
    assert max(x.size for x in jax.tree.leaves(backward)) <= B * N * T * H
