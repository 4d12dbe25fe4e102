"""Distances, and the schemes that act within attention, against loops in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import attention, positions

pytestmark = pytest.mark.usefixtures("quick_compile")

B, N, K, T, S, H, D = 2, 4, 2, 5, 6, 8, 10


def close(ours, theirs, rel=1e-5):
    assert np.abs(np.asarray(ours) - theirs).max() <= rel * np.abs(theirs).max()


@pytest.fixture
def qkv(rng):
    shapes = (B, N, T, H), (B, K, S, H), (B, K, S, H)
    return [rng.normal(size=shape) for shape in shapes]


def single(*arrays):
    return [jnp.asarray(x, jnp.float32) for x in arrays]


@pytest.mark.parametrize(
    ("queries", "keys", "offset"), [(5, 6, 0), (1, 4, -2), (3, 9, 3), (4, 1, 0)]
)
def test_pick_puts_every_distance_at_its_key_and_spread_is_its_transpose(
    rng, queries, keys, offset
):
    distances = positions.consecutive(queries, keys, offset)
    t, s = np.indices((queries, keys))
    values = jnp.asarray(distances.values_M)[None]
    np.testing.assert_array_equal(distances.pick(values), s - t - offset)
    x = rng.normal(size=(2, queries, len(distances.values_M)))
    picked = distances.pick(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(picked, x[:, t, s - t + queries - 1], rtol=1e-6)
    y = rng.normal(size=(2, queries, keys))
    spread = np.asarray(distances.spread(jnp.asarray(y, jnp.float32)), np.float64)
    np.testing.assert_allclose((x * spread).sum(), (np.asarray(picked) * y).sum(), rtol=1e-5)


def test_queries_at_one_position_pick_their_row(rng):
    row = positions.from_one_position(jnp.arange(6), jnp.array(3))
    all_rows = positions.consecutive(6, 6)
    expected = all_rows.pick(jnp.asarray(all_rows.values_M)[None])[3]
    np.testing.assert_array_equal(row.values_M, expected)
    x = jnp.asarray(rng.normal(size=(2, 4, 6)), jnp.float32)
    np.testing.assert_array_equal(row.pick(x), x)
    np.testing.assert_array_equal(row.spread(x), x)


def test_t5_buckets_are_exact_when_near_and_logarithmic_when_far():
    """Raffel 2020, §2.1, with 8 buckets to a side: 0–3 alone, then 4, 5–7, 8–11, 12 and beyond."""
    distances = jnp.arange(-20, 21)
    past = lambda n: n if n < 4 else min(4 + int(math.log(n / 4) / math.log(16 / 4) * 4), 7)  # noqa: E731
    expected = [past(-d) if d <= 0 else 8 + past(d) for d in distances.tolist()]
    bucket = positions.t5_bucket(distances, buckets=16, max_distance=16)
    np.testing.assert_array_equal(bucket, expected)
    causal = positions.t5_bucket(distances, buckets=8, max_distance=16, bidirectional=False)
    np.testing.assert_array_equal(causal, [past(max(-d, 0)) for d in distances.tolist()])


@pytest.mark.parametrize(("buckets", "far"), [(5, 100), (2, 100), (32, 8)])
def test_t5_buckets_that_cannot_be_are_an_error(buckets, far):
    with pytest.raises(ValueError, match="t5 positions"):
        positions.t5_bucket(jnp.arange(3), buckets=buckets, max_distance=far)


def test_t5_bias_is_the_bucket_s_number(rng):
    table = rng.normal(size=(8, N))
    bias = positions.t5_bias(*single(table), positions.consecutive(T, S), max_distance=6)
    assert bias.shape == (1, N, T, S)
    for t, s in np.ndindex(T, S):
        (bucket,) = np.asarray(positions.t5_bucket(jnp.array([s - t]), buckets=8, max_distance=6))
        np.testing.assert_allclose(bias[0, :, t, s], table[bucket], rtol=1e-6)


def test_alibi_is_one_slope_a_head():
    slopes = positions.alibi_slopes(8)
    np.testing.assert_allclose(slopes, [2.0**-i for i in range(1, 9)])
    np.testing.assert_allclose(
        positions.alibi_slopes(6)[:4], [2.0 ** (-2 * i) for i in (1, 2, 3, 4)]
    )
    np.testing.assert_allclose(positions.alibi_slopes(6)[4:], [2.0**-1, 2.0**-3])
    bias = np.asarray(positions.alibi_bias(positions.consecutive(T, S), 8))
    for t, s in np.ndindex(T, S):
        np.testing.assert_allclose(bias[0, :, t, s], -slopes * abs(s - t), rtol=1e-6)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotation_is_that_of_complex_numbers(rng, interleaved):
    """Su 2021, eq. 34: channel pairs are complex numbers, times e^(i m θ)."""
    x, at = rng.normal(size=(2, 5, 3, H)), rng.integers(0, 50, (2, 5, 1))
    theta = 100.0 ** (-2 * np.arange(H // 2) / H) / 2.5
    pair = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., : H // 2], x[..., H // 2 :])
    rotated = (pair[0] + 1j * pair[1]) * np.exp(1j * at[..., None] * theta)
    parts = [rotated.real, rotated.imag]
    expected = np.stack(parts, -1).reshape(x.shape) if interleaved else np.concatenate(parts, -1)
    got = positions.rotate(
        *single(x), jnp.asarray(at), interleaved=interleaved, base=100.0, scaling=2.5
    )
    close(got, expected)


@pytest.mark.parametrize("interleaved", [False, True])
def test_products_of_rotated_vectors_depend_on_the_distance_alone(rng, interleaved):
    q, k = single(*rng.normal(size=(2, 1, H)))
    rotate = lambda x, at: positions.rotate(x, jnp.array([at]), interleaved=interleaved)  # noqa: E731
    products = [float((rotate(q, p) * rotate(k, p + 3)).sum()) for p in (0, 7, 40)]
    np.testing.assert_allclose(products, products[0], atol=1e-4)
    other = float((rotate(q, 0) * rotate(k, 4)).sum())
    assert abs(other - products[0]) > 1e-2
    with pytest.raises(ValueError, match="even head width, got 7"):
        positions.rotate(q[:, :7], jnp.array([1]))


def softmax(x):
    exp = np.exp(x - x.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def shaw_loop(q, k, v, keys, values, clip):
    """Shaw 2018, eqs. 3 and 4, one pair of tokens at a time."""
    out, groups = np.zeros(q.shape), N // K
    for b, n, t in np.ndindex(B, N, T):
        index = [min(max(s - t, -clip), clip) + clip for s in range(S)]
        kv = n // groups
        scores = [q[b, n, t] @ (k[b, kv, s] + keys[index[s]]) / math.sqrt(H) for s in range(S)]
        weights = softmax(np.array(scores))
        out[b, n, t] = sum(w * (v[b, kv, s] + values[index[s]]) for s, w in enumerate(weights))
    return out


@pytest.mark.parametrize("clip", [1, 3, 9])
def test_shaw_equals_the_loop(rng, qkv, clip):
    keys, values = rng.normal(size=(2, 2 * clip + 1, H))
    distances = positions.consecutive(T, S)
    params = dict(zip(("keys", "values"), single(keys, values), strict=True))
    relative = positions.Shaw(clip).relative(params, distances)
    out, _ = jax.jit(lambda *x: attention.attend_heads_first(*x, relative=relative))(*single(*qkv))
    close(out, shaw_loop(*qkv, keys, values, clip))


def transformer_xl_loop(q, k, w, u, v):
    """Dai 2019, §3.3, the four terms a–d for one pair of tokens at a time."""
    scores = np.zeros((B, N, T, S))
    frequencies = 10_000.0 ** (-2 * np.arange(D // 2) / D)
    for b, n, t, s in np.ndindex(B, N, T, S):
        angles = (t - s) * frequencies
        r = np.concatenate([np.sin(angles), np.cos(angles)]) @ w[:, n]
        key = k[b, n // (N // K), s]
        scores[b, n, t, s] = q[b, n, t] @ key + q[b, n, t] @ r + u[n] @ key + v[n] @ r
    return scores


def test_transformer_xl_equals_the_loop(rng, qkv):
    q, k, _ = qkv
    w, u, offset = rng.normal(size=(D, N, H)), *rng.normal(size=(2, N, H))
    params = dict(zip("wuv", single(w, u, offset), strict=True))
    relative = positions.TransformerXL().relative(params, positions.consecutive(T, S))
    _, weights = jax.jit(lambda *x: attention.attend_heads_first(*x, relative=relative))(
        *single(*qkv)
    )
    close(weights, softmax(transformer_xl_loop(q, k, w, u, offset) / math.sqrt(H)))


def test_a_scheme_computes_over_distances_and_not_over_pairs():
    """At T = S = 256 no intermediate array is as large as [T,S,H] or, for a bias, as [B,T,S]."""
    length, heads = 256, 2
    distances = positions.consecutive(length, length)

    def largest(f, *shapes):
        jaxpr = jax.make_jaxpr(f)(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes))
        return max(v.aval.size for eqn in jaxpr.jaxpr.eqns for v in eqn.outvars)

    pairs = heads * length * length
    q, table = (1, heads, length, 32), (33, 32)
    assert largest(lambda q, a: positions.shaw_scores(q, a, distances), q, table) <= 2.1 * pairs
    bias = largest(lambda t: positions.t5_bias(t, distances), (32, heads))
    assert bias <= 2.1 * pairs
