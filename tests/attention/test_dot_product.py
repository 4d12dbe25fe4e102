import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tfm import attention, layers, masks, params

pytestmark = pytest.mark.usefixtures("quick_compile")

B, T, S, H = 2, 5, 7, 8
HEADS = [(4, 4), (4, 2), (4, 1)]  # multi-head, grouped, multi-query


def reference(q_BTNH, k_BSKH, v_BSKH, mask=None, bias=0.0, scale=None):
    """The definition in float64, keys and values repeated for each group of queries."""
    q, k, v = (np.asarray(x, np.float64).swapaxes(1, 2) for x in (q_BTNH, k_BSKH, v_BSKH))
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat(groups, axis=1), v.repeat(groups, axis=1)
    scores = q @ k.swapaxes(2, 3) * (scale or q.shape[-1] ** -0.5) + bias
    allowed = np.broadcast_to(True if mask is None else np.asarray(mask), scores.shape)
    exp = np.exp(scores - scores.max(-1, keepdims=True)) * allowed
    weights = exp / np.maximum(exp.sum(-1, keepdims=True), 1e-300)
    return (weights @ v).swapaxes(1, 2), weights


@pytest.fixture
def qkv(rng):
    def make(N, K, dtype=jnp.float32):
        shapes = (B, T, N, H), (B, S, K, H), (B, S, K, H)
        return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]

    return make


@pytest.mark.parametrize(("N", "K"), HEADS)
def test_attend_equals_float64(qkv, rng, N, K):
    q, k, v = qkv(N, K)
    out, weights = attention.attend(q, k, v, return_weights=True)
    expected, expected_weights = reference(q, k, v)
    np.testing.assert_allclose(out, expected, atol=2e-6)
    np.testing.assert_allclose(weights, expected_weights, atol=1e-6)
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)


@pytest.mark.parametrize(("N", "K"), HEADS)
@pytest.mark.parametrize("shape", [(B, 1, 1, S), (1, 1, T, S), (B, 1, T, S), (B, "N", T, S)])
def test_masks_and_biases_broadcast(qkv, rng, N, K, shape):
    shape = tuple(N if s == "N" else s for s in shape)
    q, k, v = qkv(N, K)
    mask, bias = rng.random(shape) < 0.6, rng.normal(size=shape)
    out = attention.attend(q, k, v, mask=jnp.asarray(mask), bias=jnp.asarray(bias), scale=0.7)
    np.testing.assert_allclose(out, reference(q, k, v, mask, bias, 0.7)[0], atol=3e-6)


@pytest.mark.parametrize(("N", "K"), HEADS)
def test_attend_equals_jax(qkv, rng, N, K):
    q, k, v = qkv(N, K)
    mask = (
        jnp.asarray(rng.random((B, 1, T, S)) < 0.6).at[..., 0].set(True)
    )  # no empty row: jax.nn gives non-zero output there
    bias = jnp.asarray(rng.normal(size=(B, N, T, S)), jnp.float32)
    theirs = jax.nn.dot_product_attention(q, k, v, bias=bias, mask=mask)
    np.testing.assert_allclose(attention.attend(q, k, v, bias=bias, mask=mask), theirs, atol=2e-6)


@pytest.mark.parametrize("K", [1, 2])
def test_shared_keys_are_repeated_keys(qkv, K):
    q, k, v = qkv(4, K)
    many = attention.attend(q, jnp.repeat(k, 4 // K, axis=2), jnp.repeat(v, 4 // K, axis=2))
    np.testing.assert_allclose(attention.attend(q, k, v), many, atol=1e-6)


def test_a_hidden_key_does_not_matter(qkv):
    q, k, v = qkv(4, 2)
    mask = masks.padding(jnp.array([[1, 1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 1, 0, 1]]))
    hidden = ~mask[:, 0, 0, :, None, None]
    out = attention.attend(q, k, v, mask=mask)
    other = attention.attend(q, jnp.where(hidden, 50.0, k), jnp.where(hidden, 1e6, v), mask=mask)
    np.testing.assert_array_equal(out, other)


def test_a_query_with_nothing_to_attend_to_gives_zeros_and_zero_gradients(qkv, rng):
    q, k, v = qkv(4, 2)
    mask = jnp.ones((B, 1, T, S), bool).at[0, 0, 2].set(False).at[1].set(False)
    out, weights = attention.attend(q, k, v, mask=mask, return_weights=True)
    assert np.all(out[0, 2] == 0) and np.all(out[1] == 0) and np.all(weights[1] == 0)
    assert np.all(np.abs(out[0, 1]).max(-1) > 0)

    target = jnp.asarray(rng.normal(size=out.shape), jnp.float32)
    loss = lambda *qkv: ((attention.attend(*qkv, mask=mask) - target) ** 2).sum()  # noqa: E731
    dq, dk, dv = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v)
    for grad in (dq, dk, dv):
        assert np.all(np.isfinite(grad))
        assert np.all(grad[1] == 0) and np.any(grad[0] != 0)
    assert np.all(dq[0, 2] == 0)


def test_gradients_equal_finite_differences(qkv):
    q, k, v = qkv(2, 1)
    mask = masks.causal(T, S, offset=1)
    f = jax.jit(lambda *x: jnp.sin(attention.attend(*x, mask=mask)).sum())
    check_grads(f, (q, k, v), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


def test_a_soft_cap_keeps_scores_within_it(qkv):
    q, k, v = qkv(4, 2)
    bias = jnp.zeros((1, 1, T, S)).at[..., 0].set(100.0)
    out = attention.attend(q, k, v, bias=bias, soft_cap=2.0)
    groups = np.asarray(k, np.float64).repeat(2, axis=2)
    scores = np.einsum("btnh,bsnh->bnts", np.asarray(q, np.float64), groups) / math.sqrt(H) + bias
    capped = 2.0 * np.tanh(scores / 2.0)
    # The reference with no product of its own: everything is in the bias.
    expected, _ = reference(np.zeros_like(q), k, v, bias=capped)
    np.testing.assert_allclose(out, expected, atol=3e-6)


def test_query_key_norm_bounds_every_score(rng, draw):
    """RMSNorm makes every head's query and key as long as sqrt(H): no score exceeds sqrt(H)."""
    declared = attention.attention_params(16, 4, 2, H, True, qk_norm=True)
    weights = params.init(jax.random.key(0), declared)
    x = jnp.asarray(100 * rng.normal(size=(1, T, 16)), jnp.float32)
    q, (k, _) = attention.queries(weights, x), attention.keys_values(weights, x)
    for y in (q, k):
        np.testing.assert_allclose(jnp.linalg.norm(y, axis=-1), math.sqrt(H), rtol=1e-4)
    weights = draw(declared)
    for name, y in (
        ("q", attention.queries(weights, x)),
        ("k", attention.keys_values(weights, x).k),
    ):
        plain = (
            jnp.einsum("btd,dnh->bnth", x, weights[name]["w"]) + weights[name]["b"][None, :, None]
        )
        expected = layers.rms_norm(plain, weights[f"{name}_norm"]["scale"])
        np.testing.assert_allclose(y, expected, atol=1e-4)


def test_low_precision_input_keeps_float32_softmax(qkv):
    q, k, v = qkv(4, 2, jnp.bfloat16)
    out, weights = attention.attend(q, k, v, return_weights=True)
    assert (out.dtype, weights.dtype) == (jnp.bfloat16, jnp.float32)
    expected, expected_weights = reference(*(x.astype(jnp.float32) for x in (q, k, v)))
    np.testing.assert_allclose(weights, expected_weights, atol=1e-6)
    np.testing.assert_allclose(out.astype(jnp.float32), expected, atol=2e-2)


def test_dropout_acts_on_the_weights(qkv):
    """With one-hot values the output is the dropped weights themselves."""
    q, k, _ = qkv(4, 4)
    q, k = jnp.tile(q, (40, 1, 1, 1)), jnp.tile(k, (40, 1, 1, 1))
    v = jnp.broadcast_to(jnp.eye(S, H)[None, :, None], (2 * 40, S, 4, H))
    run = lambda key: attention.attend(  # noqa: E731
        q, k, v, dropout_rate=0.25, key=key, return_weights=True
    )
    out, weights = run(jax.random.key(1))
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)
    dropped, weights = np.asarray(out)[..., :S], np.asarray(weights).swapaxes(1, 2)
    gone = dropped == 0
    np.testing.assert_allclose(dropped[~gone], weights[~gone] / 0.75, rtol=1e-5)
    assert abs(gone.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / gone.size)
    np.testing.assert_array_equal(run(jax.random.key(1))[0], out)
    assert np.mean((run(jax.random.key(2))[0][..., :S] == 0) == gone) < 0.7
    with pytest.raises(ValueError, match=r"dropout_rate is 0\.25, but key is None"):
        run(None)


def test_heads_that_do_not_divide_are_an_error(qkv):
    q, k, v = qkv(4, 3)
    with pytest.raises(ValueError, match="4 query heads are not a multiple of 3"):
        attention.attend(q, k, v)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("K", [4, 2])
def test_multi_head_equals_numpy(rng, draw, K, bias):
    weights = draw(attention.attention_params(16, 4, K, H, bias))
    assert ("b" in weights["q"]) == ("b" in weights["out"]) == bias
    x, memory = rng.normal(size=(B, T, 16)), rng.normal(size=(B, S, 16))
    mask = rng.random((B, 1, T, S)) < 0.7
    w = jax.tree.map(lambda a: np.asarray(a, np.float64), weights)
    offset = lambda name: w[name].get("b", 0.0)  # noqa: E731
    q = np.einsum("btd,dnh->btnh", x, w["q"]["w"]) + offset("q")
    k, v = (np.einsum("bsd,dnh->bsnh", memory, w[n]["w"]) + offset(n) for n in "kv")
    heads, expected_weights = reference(q, k, v, mask)
    expected = np.einsum("btnh,nhd->btd", heads, w["out"]["w"]) + offset("out")

    kv = attention.keys_values(weights, jnp.asarray(memory, jnp.float32))
    x = jnp.asarray(x, jnp.float32)
    got, got_weights = attention.multi_head(
        weights, x, kv, mask=jnp.asarray(mask), return_weights=True
    )
    np.testing.assert_allclose(got, expected, atol=5e-6)
    np.testing.assert_allclose(got_weights, expected_weights, atol=2e-6)
    alone = attention.multi_head(weights, x, kv, mask=jnp.asarray(mask))
    np.testing.assert_array_equal(alone, got)


def test_self_attention_without_positions_does_not_know_order(rng, draw):
    weights = draw(attention.attention_params(16, 4, 4, 4, True))
    x = jnp.asarray(rng.normal(size=(1, 6, 16)), jnp.float32)
    order = np.array([3, 1, 5, 0, 2, 4])
    run = lambda x: attention.multi_head(weights, x, attention.keys_values(weights, x))  # noqa: E731
    np.testing.assert_allclose(run(x)[:, order], run(x[:, order]), atol=2e-6)


def test_declared_projections_are_initialised_at_the_scale_of_their_whole_matrix():
    """Heads are slices of one D×(N·H) matrix: its fans count, not a head's."""
    declared = attention.attention_params(64, 8, 2, 8, True)
    weights = params.init(jax.random.key(0), declared)
    assert np.isclose(weights["q"]["w"].var(), 2 / (64 + 64), rtol=0.1)
    assert np.isclose(weights["k"]["w"].var(), 2 / (64 + 16), rtol=0.15)
    assert np.isclose(weights["out"]["w"].var(), 2 / (64 + 64), rtol=0.1)
