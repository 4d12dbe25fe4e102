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
    """With a bias and relative terms, which are given the distances of a block only."""
    mask = masks.segment(SEGMENTS, SEGMENTS) & masks.window(T, T, window)
    if causal:
        mask &= masks.causal(T)
    vectors = {n: jnp.asarray(rng.normal(size=(5, H)), jnp.float32) for n in ("keys", "values")}

    def terms(distances):
        return {
            "bias": positions.alibi_bias(distances, N),
            "relative": positions.Shaw(clip=2).relative(vectors, distances),
            "soft_cap": 3.0,
        }

    expected = attend(*qkv, mask=mask, **terms(positions.consecutive(T, T)))
    got = jax.jit(
        lambda *x: local(
            *x,
            window=window,
            segments_BT=SEGMENTS,
            causal=causal,
            **terms(block_distances(T, window, causal)),
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


def test_its_signature_has_neither_a_mask_nor_weights_to_return(qkv):
    """A mask is given as segments, window and causality; the weights are those of blocks."""
    for name in ("mask", "return_weights"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            local(*qkv, window=3, **{name: None})


def test_it_takes_scale_and_dropout_as_attend_does(qkv):
    """One block holds the whole row: its scores are those of ``attend``, with empty neighbours."""
    mask = masks.segment(SEGMENTS, SEGMENTS)
    expected = attend(*qkv, mask=mask, scale=0.3)
    got = local(*qkv, window=T, segments_BT=SEGMENTS, scale=0.3)
    np.testing.assert_allclose(got, expected, atol=2e-6)
    drop = lambda key: local(*qkv, window=2, dropout_rate=0.5, key=key)  # noqa: E731
    with pytest.raises(ValueError, match=r"dropout_rate is 0\.5, but key is None"):
        drop(None)
    np.testing.assert_array_equal(drop(jax.random.key(0)), drop(jax.random.key(0)))
    assert np.abs(drop(jax.random.key(0)) - drop(jax.random.key(1))).max() > 0.1


def test_queries_and_keys_of_different_number_are_an_error(qkv):
    q, k, v = qkv
    with pytest.raises(ValueError, match="10 queries and 11 keys: use attend between two"):
        local(q[:, :-1], k, v, window=3)
