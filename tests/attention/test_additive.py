import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import positions
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
    got, looks = jax.jit(
        lambda *x: additive(
            *x,
            mask=jnp.asarray(mask)[:, None],
            bias=jnp.asarray(bias, jnp.float32)[None],
            return_weights=True,
        )
    )(*arrays)
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(
        looks.sum(-1), np.broadcast_to(mask.any(-1)[:, None], (B, N, T)), atol=1e-6
    )


def test_a_scale_multiplies_scores_and_a_relative_scheme_is_refused(rng):
    shapes = ((B, T, N, H), (B, S, K, H), (B, S, K, H), (N, H))
    arrays = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    scores = additive_scores(*(x.swapaxes(1, 2) for x in arrays[:2]), arrays[3])
    _, weights = additive(*arrays, scale=0.3, return_weights=True)
    np.testing.assert_allclose(weights, jax.nn.softmax(0.3 * scores), atol=1e-6)
    np.testing.assert_array_equal(additive(*arrays, scale=None), additive(*arrays))
    scheme = positions.Relative(scores=lambda q, k: 0.0)
    with pytest.raises(ValueError, match=r"additive attention takes no relative: .* as bias"):
        additive(*arrays, relative=scheme)


def test_the_backward_pass_keeps_no_tangent_of_every_pair():
    q, k, weight = (
        jax.ShapeDtypeStruct(s, jnp.float32) for s in ((B, N, T, H), (B, K, S, H), (N, H))
    )
    _, backward = jax.eval_shape(lambda *x: jax.vjp(additive_scores, *x), q, k, weight)
    assert max(x.size for x in jax.tree.leaves(backward)) <= B * N * T * H
