import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import positions
from tfm.attention import linear as lin
from tfm.attention.linear import linear

pytestmark = pytest.mark.usefixtures("quick_compile")

B, N, K, T, H = 2, 4, 2, 11, 8
SEGMENTS = np.array([[1, 1, 1, 1, 1, 2, 2, 2, 3, 0, 0], [1] * 9 + [0] * 2])
POSITIONS = np.array([[0, 1, 2, 3, 4, 0, 1, 2, 0, 0, 0], [*range(9), 0, 0]])


@pytest.fixture
def qkv(rng):
    return [rng.normal(size=shape) for shape in ((B, T, N, H), (B, T, K, H), (B, T, K, H))]


def single(arrays):
    return [jnp.asarray(x, jnp.float32) for x in arrays]


def phi(x):
    return np.where(x > 0, x + 1, np.exp(x))


def rotated(x, position):
    """Su 2021, §3.2.2; channels i and i + H/2 are a pair."""
    angle = position * 10_000.0 ** (-np.arange(H // 2) / (H // 2))
    pairs = (x[: H // 2] + 1j * x[H // 2 :]) * np.exp(1j * angle)
    return np.concatenate([pairs.real, pairs.imag])


def loop(q, k, v, causal, rotary):
    """Katharopoulos 2020, eq. 4; with rotary positions Su 2021, eq. 19."""
    out = np.zeros(q.shape)
    rotate = rotated if rotary else lambda x, position: x
    for b, t, n in np.ndindex(B, T, N):
        above, below = np.zeros(H), 0.0
        for s in range(t + 1 if causal else T):
            if SEGMENTS[b, s] == SEGMENTS[b, t] != 0:
                fq, fk = phi(q[b, t, n]), phi(k[b, s, n // (N // K)])
                weight = rotate(fq, POSITIONS[b, t]) @ rotate(fk, POSITIONS[b, s])
                above += weight * v[b, s, n // (N // K)]
                below += fq @ fk
        out[b, t, n] = above / below if below else 0.0
    return out


def rotation(positions_BT):
    return positions.Rotary().rotation(jnp.asarray(positions_BT))


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("chunk", [3, 64])
def test_chunks_give_what_the_loop_gives(qkv, causal, rotary, chunk):
    """With packed rows and padding."""
    expected = loop(*qkv, causal, rotary)
    got = jax.jit(
        lambda *x: linear(
            *x,
            segments_BT=jnp.asarray(SEGMENTS),
            causal=causal,
            rotate=rotation(POSITIONS) if rotary else None,
            chunk=chunk,
        )
    )(*single(qkv))
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.all(np.asarray(got)[SEGMENTS == 0] == 0)


def test_one_sentence_a_row_needs_no_segments(qkv):
    ones = jnp.ones((B, T), jnp.int32)
    np.testing.assert_array_equal(linear(*single(qkv)), linear(*single(qkv), segments_BT=ones))


@pytest.mark.parametrize("rotary", [False, True])
def test_a_state_of_constant_size_is_the_causal_form(qkv, rotary):
    """The rows of the batch are two hypotheses, each of which continues the other at every step."""
    q, k, v = (x.swapaxes(1, 2) for x in single(qkv))
    expected = lin.linear_heads_first(
        q, k, v, jnp.ones((B, T), jnp.int32), causal=True,
        rotate=rotation(np.broadcast_to(np.arange(T), (B, T))) if rotary else None,
    )  # fmt: skip
    state = lin.empty_state(1, K, B, H)
    for t in range(T):
        rows = (np.arange(B) + t) % B  # which row each hypothesis reads at step t
        newest = lambda x, rows=rows, t=t: x[rows, :, t].swapaxes(0, 1)[None]  # noqa: E731
        rotate = rotation(np.full((1, B), t)) if rotary else None
        state = lin.reorder_state(state, jnp.array([[1, 0]]))
        state = lin.update_state(state, newest(k), newest(v), rotate)
        found = lin.attend_state(state, newest(q), rotate)
        np.testing.assert_allclose(found[0].swapaxes(0, 1)[rows], expected[:, :, t], atol=3e-6)
    assert sum(x.size for x in state) == B * K * H * (H + 1)


def test_gradients_are_finite_and_zero_for_later_keys(qkv):
    segments = jnp.asarray(SEGMENTS)

    def loss(*x):
        return jnp.square(linear(*x, segments_BT=segments, causal=True, chunk=4)[:, :3]).sum()

    for grad in jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*single(qkv)):
        assert np.all(np.isfinite(grad))
        assert np.all(grad[:, 3:] == 0) and np.all(np.abs(grad[:, :3]).max(axis=(2, 3)) > 0)


@pytest.mark.parametrize("causal", [False, True])
def test_memory_grows_with_the_length_and_not_with_its_square(causal):
    """XLA counts a loop's body once, so its flops say nothing here; its buffers do."""

    def memory(length):
        x = jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)
        loss = lambda *x: jnp.square(linear(*x, causal=causal)).sum()  # noqa: E731
        compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(x, x, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert 1.8 < memory(2048) / memory(1024) < 2.2


def test_its_signature_has_only_what_it_can_compute(qkv):
    """It forms neither scores nor weights."""
    for name in ("mask", "bias", "scale", "soft_cap", "dropout_rate", "key", "return_weights"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
            linear(*single(qkv), **{name: None})


def test_one_hot_values_show_the_weights(qkv):
    """As the docstring advises whoever wants them."""
    q, k, v = single(qkv)
    one_hot = jnp.broadcast_to(jnp.eye(T)[None, :, None], (B, T, K, T))
    weights = linear(q, k, one_hot, causal=True)
    values = jnp.repeat(v, N // K, axis=2)
    expected = jnp.einsum("btns,bsnh->btnh", weights, values)
    np.testing.assert_allclose(linear(q, k, v, causal=True), expected, atol=1e-5)


def test_queries_and_keys_of_different_number_are_an_error():
    with pytest.raises(ValueError, match="9 queries and 7 keys: use attend between two sequences"):
        linear(jnp.ones((1, 9, 2, 4)), jnp.ones((1, 7, 2, 4)), jnp.ones((1, 7, 2, 4)))
