"""Forward-mode derivatives and their transposes through the whole model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import attention, masks, transformer
from tfm.transformer import Architecture, Execution

pytestmark = pytest.mark.usefixtures("quick_compile")

ARCH = Architecture(
    source_vocab=7, target_vocab=7, d_model=4, heads=2, d_ff=6, encoder_layers=1,
    decoder_layers=1, dropout=0.0, tie="all", activation="gelu",
)  # fmt: skip
CASES = [
    {},
    {"positions": "t5:buckets=4,max_distance=3", "attention": "local", "window": 1},
    {"positions": "rotary", "attention": "linear", "norm": "rms", "activation": "swiglu"},
    {"positions": "transformer_xl", "norm_placement": "post"},
]


@pytest.fixture
def model(draw, sentences, rng):
    """A function of the embedding table, and the table: gelu, so that it is smooth."""

    def make(execution=Execution(), **changes):
        arch = Architecture(**{**vars(ARCH), **changes})
        params = draw(transformer.declare(arch))
        batch = sentences(rng, [(3, 2), (2, 3)], vocab=7, source_width=3, target_width=3)
        weight = jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32)
        weight *= (batch.target_segments > 0)[..., None]

        def f(table):
            tree = params | {"tables": {"source": table}}
            return transformer.forward(tree, arch, batch, execution=execution) * weight

        return f, params["tables"]["source"]

    return make


@pytest.mark.parametrize("changes", CASES, ids=lambda c: "-".join(map(str, c.values())))
def test_forward_and_reverse_mode_give_the_same_jacobian(model, changes):
    f, table = model(**changes)
    forward, reverse = (jax.jit(j(f))(table) for j in (jax.jacfwd, jax.jacrev))
    assert forward.shape == (2, 3, 4, 7, 4) and np.abs(reverse).max() > 0.1
    np.testing.assert_allclose(forward, reverse, atol=1e-5 * np.abs(reverse).max())


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_a_directional_derivative_is_that_of_finite_differences(model, rng, remat):
    f, table = model(Execution(unroll=1, remat=remat))
    direction = jnp.asarray(rng.normal(size=table.shape), jnp.float32)
    value, derivative = jax.jit(lambda v: jax.jvp(f, (table,), (v,)))(direction)
    np.testing.assert_allclose(value, f(table), atol=1e-6)
    step = 1e-2
    difference = (f(table + step * direction) - f(table - step * direction)) / (2 * step)
    np.testing.assert_allclose(derivative, difference, atol=0.02 * np.abs(difference).max())


def test_the_hessian_is_symmetric_and_that_of_reverse_mode(model):
    f, table = model()
    loss = lambda table: jnp.square(f(table)).sum()  # noqa: E731
    hessian = np.asarray(jax.jit(jax.hessian(loss))(table)).reshape(28, 28)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-4 * np.abs(hessian).max())
    twice = np.asarray(jax.jit(jax.jacrev(jax.jacrev(loss)))(table)).reshape(28, 28)
    np.testing.assert_allclose(hessian, twice, atol=1e-4 * np.abs(hessian).max())
    assert np.abs(hessian).max() > 0.1


def test_multi_head_attention_can_be_differentiated_forwards_and_twice(draw, rng):
    params = draw(attention.attention_params(6, 2, 1, 3, True))
    x = jnp.asarray(rng.normal(size=(1, 4, 6)), jnp.float32)

    def f(x):
        kv = attention.keys_values(params, x)
        return attention.multi_head(params, x, kv, mask=masks.causal(4))

    forward, reverse = (jax.jit(j(f))(x) for j in (jax.jacfwd, jax.jacrev))
    np.testing.assert_allclose(forward, reverse, atol=1e-5)
    direction = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    _, derivative = jax.jvp(f, (x,), (direction,))
    along = functools.partial(jnp.tensordot, b=direction, axes=3)
    np.testing.assert_allclose(derivative, along(reverse), atol=1e-5)
    hessian = jax.jit(jax.hessian(lambda x: jnp.square(f(x)).sum()))(x)
    hessian = np.asarray(hessian).reshape(24, 24)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-4 * np.abs(hessian).max())


def test_vmap_runs_a_batch_of_parameters(model, rng):
    """``vmap`` over parameters, as for an ensemble."""
    f, table = model(Execution(unroll=1))
    tables = jnp.stack([table, 2 * table, table[::-1]])
    expected = np.stack([f(t) for t in tables])
    np.testing.assert_allclose(jax.vmap(f)(tables), expected, atol=1e-5)
