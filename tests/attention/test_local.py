import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import masks, positions
from tfm.attention import attend
from tfm.attention.local import block_distances, local

pytestmark = pytest.mark.usefixtures("quick_compile")

B, N, K, T, H = 2, 4, 2, 11, 8


@pytest.fixture
def qkv(rng):
    shapes = (B, T, N, H), (B, T, K, H), (B, T, K, H)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


SEGMENTS = jnp.array([[1, 1, 1, 1, 1, 2, 2, 2, 3, 0, 0], [1] * 9 + [0] * 2])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [1, 2, 3, 4, 11, 50])
def test_blocks_give_what_a_dense_mask_gives(rng, qkv, window, causal):
    """With a bias and a query-dependent term, which know only a block's distances."""
    mask = masks.segment(SEGMENTS, SEGMENTS) & masks.window(T, T, window)
    if causal:
        mask &= masks.causal(T)
    vectors = {n: jnp.asarray(rng.normal(size=(5, H)), jnp.float32) for n in ("keys", "values")}

    def settings(distances):
        return {
            "bias": positions.alibi_bias(distances, N),
            "relative": positions.shaw(vectors, distances),
            "soft_cap": 3.0,
        }

    expected = attend(*qkv, mask=mask, **settings(positions.side_by_side(T, T)))
    got = jax.jit(
        lambda *x: local(
            *x,
            window=window,
            segments_BT=SEGMENTS,
            causal=causal,
            **settings(block_distances(T, window, causal)),
        )
    )(*qkv)
    np.testing.assert_allclose(got, expected, atol=3e-6)


def test_one_sentence_a_row_needs_no_segments(qkv):
    expected = attend(*qkv, mask=masks.window(T, T, 3))
    np.testing.assert_allclose(local(*qkv, window=3), expected, atol=2e-6)


def test_padding_has_zero_and_finite_gradients(qkv):
    loss = lambda *x: jnp.square(local(*x, window=2, segments_BT=SEGMENTS)).sum()  # noqa: E731
    for grad in jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*qkv):
        assert np.all(np.isfinite(grad))
        assert np.all(grad[0, 9:] == 0) and np.any(grad[0, :9] != 0)


@pytest.mark.parametrize("causal", [False, True])
def test_cost_grows_with_the_length_and_not_with_its_square(causal):
    def cost(attention, length):
        x = jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)
        loss = lambda *x: jnp.square(attention(*x)).sum()  # noqa: E731
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(x, x, x).compile()
        return compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes

    near = lambda *x: local(*x, window=16, causal=causal)  # noqa: E731
    ratios = np.divide(cost(near, 1024), cost(near, 512))
    assert np.all(ratios < 2.2) and np.all(ratios > 1.8)
    assert np.all(np.divide(cost(attend, 1024), cost(attend, 512)) > 3.5)


def test_what_it_cannot_take_is_refused_with_what_to_pass_instead(qkv):
    with pytest.raises(ValueError, match="local attention takes no mask: pass segments_BT"):
        local(*qkv, window=3, mask=jnp.ones((1, 1, 1, 1), bool))
    with pytest.raises(ValueError, match=r"no return_weights: .* attend with masks\.window"):
        local(*qkv, window=3, return_weights=True)
    q, k, v = qkv
    with pytest.raises(ValueError, match=r"queries and \d+ keys: take attend"):
        local(q[:, :-1], k, v, window=3)
    np.testing.assert_array_equal(local(*qkv, window=3, mask=None), local(*qkv, window=3))
