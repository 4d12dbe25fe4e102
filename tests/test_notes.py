"""What the study notes claim about attention and positions, each with its number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import attention, embeddings, masks, positions

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_a_one_hot_vector_times_the_matrix_is_a_row_of_it(rng):
    table = jnp.asarray(rng.normal(size=(50, 16)), jnp.float32)
    ids = jnp.asarray(rng.integers(0, 50, (4, 7)))
    np.testing.assert_array_equal(embeddings.one_hot(ids, 50) @ table, table[ids])


def test_scores_of_unit_normal_vectors_have_variance_h_and_scaled_one(rng):
    q = jnp.asarray(rng.normal(size=(1, 300, 1, 64)), jnp.float32)
    k = jnp.asarray(rng.normal(size=(1, 300, 1, 64)), jnp.float32)
    _, weights = attention.attend(q, k, k, return_weights=True)
    _, raw = attention.attend(q, k, k, scale=1.0, return_weights=True)
    # The logarithm of a softmax row is the row of scores less a constant.
    assert np.isclose(np.log(weights[0, 0]).var(axis=-1).mean(), 1.0, atol=0.05)
    log_raw = np.log(np.maximum(raw[0, 0], 1e-37))
    assert np.isclose(log_raw.var(axis=-1).mean(), 64.0, rtol=0.05)


def test_weights_of_every_query_sum_to_one(rng):
    q, k = jnp.asarray(rng.normal(size=(2, 2, 9, 4, 8)), jnp.float32)
    mask = masks.causal(9)
    _, weights = attention.attend(q, k, k, mask=mask, return_weights=True)
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)


def test_two_matrices_make_the_score_asymmetric(rng, draw):
    """Why Q and K: x Wq Wkᵀ xᵀ can be any bilinear form; one matrix gives a symmetric one."""
    weights = draw(attention.attention_params(16, 1, 1, 16, False))
    x = jnp.asarray(rng.normal(size=(1, 6, 16)), jnp.float32)

    def scores(query_name):
        q, k = (jnp.einsum("btd,dnh->btnh", x, weights[n]["w"]) for n in (query_name, "k"))
        _, attended = attention.attend(q, k, k, return_weights=True)
        log = np.log(np.asarray(attended[0, 0], np.float64))
        # Double differences are free of each row's softmax constant.
        return log - log[:, :1] - (log - log[:, :1])[:1]

    one, two = scores("k"), scores("q")
    np.testing.assert_allclose(one, one.T, atol=1e-3)
    assert np.abs(two - two.T).max() > 1.0


def test_sinusoids_of_different_positions_are_distinct_and_of_one_norm():
    x = np.asarray(positions.sinusoidal(jnp.arange(1024), 64), np.float64)
    np.testing.assert_allclose(np.linalg.norm(x, axis=-1), np.sqrt(32), rtol=1e-6)
    squared = 2 * 32 - 2 * (x @ x.T) + 1e9 * np.eye(len(x))
    assert np.sqrt(squared.min()) > 0.5


@pytest.mark.parametrize("shift", [1, 5, -3, 64])
def test_a_shift_of_the_position_is_one_rotation_wherever_it_starts(shift):
    """sin(a+b) = sin a cos b + cos a sin b, cos(a+b) = cos a cos b - sin a sin b."""
    D = 16
    angles = shift / 10_000 ** (2 * np.arange(D // 2) / D)
    cos, sin = np.diag(np.cos(angles)), np.diag(np.sin(angles))
    rotation = np.block([[cos, sin], [-sin, cos]])
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(D), atol=1e-12)
    start = np.arange(3, 100)
    start, moved = (positions.sinusoidal(jnp.asarray(p), D) for p in (start, start + shift))
    np.testing.assert_allclose(moved, np.asarray(start) @ rotation.T, atol=3e-5)


def test_attention_can_be_a_convolution(rng):
    """Cordonnier 2020, theorem 1, in one dimension: a kernel of width N is N heads, each of which
    attends to one distance; the scores come from relative positions alone.

    The kernel's matrix of distance n is the head's output projection. Queries and keys are zero; a
    bias that is 0 at one distance and -10,000 at all others makes a head attend to that alone.
    """
    width, length, inputs, outputs = 5, 12, 6, 7
    kernel = rng.normal(size=(width, inputs, outputs))
    x = rng.normal(size=(1, length, inputs))
    reach = width // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (0, 0)))
    expected = sum(padded[:, i : i + length] @ kernel[i] for i in range(width))

    zero = jnp.zeros((inputs, width, inputs))
    identity = jnp.broadcast_to(jnp.eye(inputs)[:, None], (inputs, width, inputs))
    weights = {
        "q": {"w": zero}, "k": {"w": zero}, "v": {"w": identity},
        "out": {"w": jnp.asarray(kernel, jnp.float32)},
    }  # fmt: skip
    keys = jnp.pad(jnp.asarray(x, jnp.float32), ((0, 0), (reach, reach), (0, 0)))
    distances = positions.consecutive(length, length + 2 * reach, offset=reach)
    wanted = jnp.arange(width)[:, None] - reach == jnp.asarray(distances.values_M)[None]
    bias = distances.pick(jnp.where(wanted, 0.0, -1e4)[None, :, None])
    got = attention.multi_head(
        weights, jnp.asarray(x, jnp.float32), attention.keys_values(weights, keys), bias=bias
    )
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_masked_keys_have_zero_gradient(rng):
    q, k, v = jnp.asarray(rng.normal(size=(3, 1, 6, 2, 4)), jnp.float32)
    seen = lambda k, v: attention.attend(q, k, v, mask=masks.causal(6))[:, :4].sum()  # noqa: E731
    for grad in jax.grad(seen, argnums=(0, 1))(k, v):
        assert np.all(grad[:, 4:] == 0)
        assert np.all(np.abs(grad[:, :3]).max(axis=(2, 3)) > 0)
