"""Weights of fewer bits: the error of each product is bounded, and a row depends on no other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import quantize, transformer
from tfm.quantize import Int8, int8, project
from tfm.transformer import Execution

pytestmark = pytest.mark.usefixtures("quick_compile")

B, D, F = 5, 24, 7


@pytest.fixture
def arrays(rng):
    x = rng.normal(size=(B, D)) * 10.0 ** rng.integers(-3, 4, (B, 1))
    w = rng.normal(size=(D, F)) * 10.0 ** rng.integers(-3, 4, (1, F))
    x[1], w[:, 2] = 0.0, 0.0
    return jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)


def bound(x, w, x_error, w_error):
    """Of |x w - x' w'| where each entry is off by at most so much."""
    x, w = np.abs(np.asarray(x, np.float64)), np.abs(np.asarray(w, np.float64))
    return x @ w_error + x_error @ w + x_error @ w_error


def test_int8_is_off_by_half_a_scale_at_most(arrays):
    _, w = arrays
    q = int8(w, (0,))
    assert q.values.dtype == jnp.int8 and q.scales.shape == (1, F)
    assert np.abs(q.values).max() == 127 and q.dtype == jnp.float32
    largest = np.abs(w).max(axis=0)
    assert (np.abs(w - q.values * q.scales) <= largest / 254 * (1 + 1e-5)).all()
    assert (np.asarray(q.values)[:, 2] == 0).all()


def test_products_of_int8_are_within_the_bound_that_rounding_allows(arrays):
    x, w = arrays
    exact = np.asarray(x, np.float64) @ np.asarray(w, np.float64)
    x_error = np.broadcast_to(np.abs(x).max(axis=1, keepdims=True) / 254, x.shape)
    w_error = np.broadcast_to(np.abs(w).max(axis=0, keepdims=True) / 254, w.shape)
    most = bound(x, w, x_error, w_error) * (1 + 1e-4)
    got = project(x, int8(w, (0,)))
    assert got.dtype == x.dtype and (np.abs(got - exact) <= most).all()
    assert (np.abs(got - exact) > most / 1000).any()  # it does round
    transposed = quantize.product(x, int8(w.T, (1,)), 1)
    np.testing.assert_allclose(transposed, got, rtol=1e-6)


def test_products_of_bfloat16_are_added_in_float32(arrays):
    x, w = arrays
    exact = np.asarray(x, np.float64) @ np.asarray(w, np.float64)
    unit = 2.0**-8
    most = bound(x, w, np.abs(x) * unit, np.abs(w) * unit) * (1 + 1e-4)
    got = project(x, w.astype(jnp.bfloat16))
    assert got.dtype == jnp.float32 and (np.abs(got - exact) <= most).all()
    low = lambda a: np.asarray(a.astype(jnp.bfloat16), np.float64)  # noqa: E731
    np.testing.assert_allclose(got, low(x) @ low(w), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_wider_weight_is_rounded_to_the_activations(arrays, dtype):
    x, w = (a.astype(dtype) for a in arrays)
    got = project(x, w.astype(jnp.float32))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, x @ w)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_a_row_depends_on_no_other(arrays, kind):
    x, w = arrays
    weight = int8(w, (0,)) if kind == "int8" else w.astype(kind)
    alone = jnp.concatenate([project(row[None], weight) for row in x])
    np.testing.assert_allclose(project(x, weight), alone, rtol=1e-4)


def test_heads_are_a_matrix_with_a_scale_for_each_output(rng):
    w = jnp.asarray(rng.normal(size=(4, 3, 6)), jnp.float32)
    for inputs in (1, 2):
        q = quantize.matrix(int8(w, tuple(range(inputs))), inputs)
        flat = int8(quantize.matrix(w, inputs), (0,))
        np.testing.assert_array_equal(q.values, flat.values)
        np.testing.assert_array_equal(q.scales, flat.scales)


ARCH = transformer.Architecture(
    source_vocab=12, target_vocab=11, d_model=16, heads=2, kv_heads=1, d_ff=24, encoder_layers=2,
    decoder_layers=2, norm="rms", activation="swiglu", positions="transformer_xl",
)  # fmt: skip


@pytest.mark.parametrize("unroll", [0, 1])
@pytest.mark.parametrize("tie", ["none", "target-output", "all"])
def test_a_model_in_int8_is_about_the_same_model(draw, rng, tie, unroll):
    arch = dataclasses.replace(ARCH, tie=tie, source_vocab=11)
    trained = draw(transformer.declare(arch))
    tokens = jnp.asarray(rng.integers(4, 11, (3, 5)))
    batch = transformer.single_sentences(tokens, tokens[::-1], 2)

    def logits(kind):
        execution = Execution(weights=kind, unroll=unroll)
        params = transformer.inference_params(trained, arch, execution)
        assert kind == "auto" or "output" not in params["tables"]
        again = transformer.inference_params(params, arch, execution)
        assert jax.tree.structure(again) == jax.tree.structure(params)
        hidden = transformer.forward(params, arch, batch, execution=execution)
        return quantize.product(hidden, transformer.output_table(params, arch), 1), params

    plain, _ = logits("auto")
    for kind, share in (("bfloat16", 0.03), ("int8", 0.1)):
        found, params = logits(kind)
        assert 1e-4 < jnp.abs(found - plain).max() / plain.std() < share, kind
        leaves = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, Int8))
        assert sum(isinstance(x, Int8) for x in leaves) == (
            0 if kind == "bfloat16" else 7 + 2 * 11 + 1
        )
