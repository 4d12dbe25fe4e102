import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import masks, sharding
from tfm.attention import attend_heads_first
from tfm.attention.ring import ring
from tfm.sharding import Layout, Mesh

B, N, H = 4, 4, 8
QUERIES, KEYS, SEGMENTS = (
    ("batch", "heads", "length", None),
    ("batch", "kv_heads", "length", None),
    ("batch", "length"),
)


def packed(rng, length):
    """Segments 1 1 1 2 2 0 ...; the last row is all padding."""
    ends = np.sort(rng.integers(1, length, (B, 2)), axis=1)
    at = np.arange(length)
    segments = np.where(at < ends[:, :1], 1, np.where(at < ends[:, 1:], 2, 0))
    segments[-1] = 0
    return segments.astype(np.int32)


@pytest.mark.parametrize(
    ("sizes", "kv_heads", "T", "S", "causal", "soft_cap"),
    [
        ((1, 1, 1, 8), 4, 16, 16, True, 0.0),
        ((1, 1, 1, 8), 4, 16, 16, False, 0.0),
        ((2, 1, 2, 2), 2, 12, 12, True, 5.0),  # heads in groups, on a mesh of three axes
        ((2, 1, 1, 4), 1, 8, 20, False, 0.0),  # cross-attention, multi-query
    ],
)
def test_equals_attention_over_whole_rows(rng, sizes, kv_heads, T, S, causal, soft_cap):
    q = rng.normal(size=(B, N, T, H)).astype(np.float32)
    k, v = rng.normal(size=(2, B, kv_heads, S, H)).astype(np.float32)
    weight = rng.normal(size=q.shape).astype(np.float32)
    query_segments = packed(rng, T)
    key_segments = query_segments if T == S else packed(rng, S)
    mask = masks.segment(query_segments, key_segments)
    mask = masks.combine(mask, masks.causal(T)) if causal else mask

    def unsharded(q, k, v):
        return attend_heads_first(q, k, v, mask=mask, soft_cap=soft_cap)[0]

    layout = Layout(sharding.make(Mesh(*sizes)))
    body = functools.partial(ring, axis="sequence", causal=causal, soft_cap=soft_cap)
    sharded = layout.shard_map(
        lambda *arrays: (body(*arrays),), [QUERIES, KEYS, KEYS, SEGMENTS, SEGMENTS], [QUERIES]
    )

    def in_a_ring(q, k, v):
        return sharded(q, k, v, query_segments, key_segments)[0]

    def value_and_gradients(f):
        found = lambda *arrays: (f(*arrays) * weight).sum()  # noqa: E731
        return jax.jit(lambda *arrays: (f(*arrays), jax.grad(found, (0, 1, 2))(*arrays)))(q, k, v)

    (out, gradients), (expected, others) = map(value_and_gradients, (in_a_ring, unsharded))
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)
    for a, b in zip(gradients, others, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)
    assert not np.asarray(out)[-1].any()  # a query without keys gives zeros
    assert np.isfinite(jnp.concatenate([g.ravel() for g in gradients])).all()


def test_no_device_ever_holds_a_row_of_keys(rng):
    """Keys are sent from device to device in shards, and never gathered."""
    layout = Layout(sharding.make(Mesh(1, 1, 1, 8)))
    run = layout.shard_map(
        lambda *arrays: (ring(*arrays, axis="sequence"),),
        [QUERIES, KEYS, KEYS, SEGMENTS, SEGMENTS],
        [QUERIES],
    )
    x = jax.ShapeDtypeStruct((B, N, 16, H), jnp.float32)
    ids = jax.ShapeDtypeStruct((B, 16), jnp.int32)
    text = jax.jit(run).lower(x, x, x, ids, ids).compile().as_text()
    assert "all-gather" not in text and "all-reduce" not in text
    assert text.count(f"f32[{B},{N},2,{H}]{{3,2,1,0}} collective-permute(") == 2 * 7
