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
PLACES = np.array([[0, 1, 2, 3, 4, 0, 1, 2, 0, 0, 0], [*range(9), 0, 0]])


@pytest.fixture
def qkv(rng):
    return [rng.normal(size=shape) for shape in ((B, T, N, H), (B, T, K, H), (B, T, K, H))]


def single(arrays):
    return [jnp.asarray(x, jnp.float32) for x in arrays]


def phi(x):
    return np.where(x > 0, x + 1, np.exp(x))


def rotated(x, place):
    """Su 2021, §3.2.2, halves as pairs."""
    angle = place * 10_000.0 ** (-np.arange(H // 2) / (H // 2))
    turned = (x[: H // 2] + 1j * x[H // 2 :]) * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag])


def loop(q, k, v, causal, rotary):
    """Katharopoulos 2020, eq. 4; with rotary positions Su 2021, eq. 19."""
    out = np.zeros(q.shape)
    turn = rotated if rotary else lambda x, place: x
    for b, t, n in np.ndindex(B, T, N):
        above, below = np.zeros(H), 0.0
        for s in range(t + 1 if causal else T):
            if SEGMENTS[b, s] == SEGMENTS[b, t] != 0:
                fq, fk = phi(q[b, t, n]), phi(k[b, s, n // (N // K)])
                weight = turn(fq, PLACES[b, t]) @ turn(fk, PLACES[b, s])
                above += weight * v[b, s, n // (N // K)]
                below += fq @ fk
        out[b, t, n] = above / below if below else 0.0
    return out


def turn(places):
    return lambda x: positions.rotate(x, jnp.asarray(places)[:, None])


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("chunk", [3, 64])
def test_chunks_give_what_the_loop_gives(qkv, causal, rotary, chunk):
    """Packed rows and padding included."""
    expected = loop(*qkv, causal, rotary)
    got = jax.jit(
        lambda *x: linear(
            *x,
            segments_BT=jnp.asarray(SEGMENTS),
            causal=causal,
            turn=turn(PLACES) if rotary else None,
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
    """Two hypotheses that change places at every step, read back in their own order."""
    q, k, v = (x.swapaxes(1, 2) for x in single(qkv))  # rows of the batch as hypotheses
    whole = lin.linear_heads_first(
        q, k, v, jnp.ones((B, T), jnp.int32), causal=True,
        turn=turn(np.broadcast_to(np.arange(T), (B, T))) if rotary else None,
    )  # fmt: skip
    state = lin.empty_state(1, K, B, H)
    for t in range(T):
        reads = (np.arange(B) + t) % B
        now = lambda x, reads=reads, t=t: x[reads, :, t].swapaxes(0, 1)[None]  # noqa: E731
        here = turn(np.full((1, B), t)) if rotary else None
        state = lin.add(lin.follow(state, jnp.array([[1, 0]])), now(k), now(v), here)
        found = lin.read(state, now(q), here)
        np.testing.assert_allclose(found[0].swapaxes(0, 1)[reads], whole[:, :, t], atol=3e-6)
    assert sum(x.size for x in state) == B * K * H * (H + 1)


def test_gradients_are_finite_and_see_no_future(qkv):
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


def test_what_it_cannot_take_is_refused_with_what_to_pass_instead(qkv):
    q, k, v = (jnp.asarray(x, jnp.float32) for x in qkv)
    for setting, words in [
        ({"mask": jnp.ones((1, 1, 1, 1), bool)}, "no mask: pass segments_BT"),
        ({"bias": jnp.zeros((1, 1, 1, 1))}, "no bias: .*rotary"),
        ({"return_weights": True}, "no return_weights: it forms none; pass jnp.eye"),
        ({"dropout_rate": 0.1}, "no dropout_rate: "),
    ]:
        with pytest.raises(ValueError, match=f"linear attention takes {words}"):
            linear(q, k, v, **setting)
    with pytest.raises(ValueError, match=r"9 queries and 7 keys: .*segments_BT, and take attend"):
        linear(jnp.ones((1, 9, 2, 4)), jnp.ones((1, 7, 2, 4)), jnp.ones((1, 7, 2, 4)))
    with pytest.raises(TypeError, match="unexpected keyword argument 'masc'"):
        linear(q, k, v, masc=None)
    off = linear(q, k, v, mask=None, dropout_rate=0.0, return_weights=False)  # as attend is called
    np.testing.assert_array_equal(off, linear(q, k, v))
