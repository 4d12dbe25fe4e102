import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import embeddings, params


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (2, 3, 4)])
def test_embedding_is_a_product_with_one_hot_vectors(rng, shape, dtype):
    table = jnp.asarray(rng.normal(size=(37, 16)), dtype)
    ids = jnp.asarray(rng.integers(0, 37, shape))
    rows = np.asarray(table)[np.asarray(ids)]
    np.testing.assert_array_equal(embeddings.one_hot(ids, 37, dtype) @ table, rows)
    for method in ("gather", "one_hot"):
        np.testing.assert_array_equal(embeddings.embed(ids, table, method), rows)


def test_the_one_hot_product_is_exact_where_products_are_rounded():
    """On a TPU or GPU a float32 product may be rounded; the lookup asks for all its bits."""
    table = jax.ShapeDtypeStruct((8, 4), jnp.float32)
    ids = jax.ShapeDtypeStruct((3,), jnp.int32)
    with jax.default_matmul_precision("bfloat16"):
        jaxpr = jax.make_jaxpr(lambda i, t: embeddings.embed(i, t, "one_hot"))(ids, table)
    precisions = [e.params["precision"] for e in jaxpr.eqns if e.primitive.name == "dot_general"]
    assert precisions == [(jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)]


def test_both_lookups_have_the_same_gradient(rng):
    table = jnp.asarray(rng.normal(size=(7, 4)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(5, 4)), jnp.float32)
    ids = jnp.array([1, 3, 1, 1, 6])
    grads = [
        jax.grad(lambda t, m=method: (embeddings.embed(ids, t, m) * weights).sum())(table)
        for method in ("gather", "one_hot")
    ]
    np.testing.assert_allclose(*grads, rtol=1e-6)
    assert np.all(grads[0][0] == 0)  # a class that was not looked up
    np.testing.assert_allclose(grads[0][1], weights[0] + weights[2] + weights[3], rtol=1e-6)


def test_an_id_outside_the_vocabulary_has_no_class():
    classes = embeddings.one_hot(jnp.array([-1, 0, 4, 5]), 5)
    np.testing.assert_array_equal(classes.sum(axis=-1), [0, 1, 1, 0])


def test_an_id_outside_the_vocabulary_is_refused_or_looked_up_as_zeros_or_nan(rng):
    """A compiled function does not know the values and cannot raise."""
    table = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)
    for method, lost in (("one_hot", lambda x: x == 0), ("gather", np.isnan)):
        for wrong in (5, -1):
            with pytest.raises(ValueError, match=f"ids holds {wrong}, but .* are 0 to 4"):
                embeddings.embed(jnp.array([0, wrong]), table, method)
        compiled = jax.jit(lambda ids, m=method: embeddings.embed(ids, table, m))
        assert np.all(lost(compiled(jnp.array([5, 99]))))


def test_logits_are_dot_products_in_float32(rng):
    hidden, table = rng.normal(size=(2, 3, 8)), rng.normal(size=(11, 8))
    scores = embeddings.logits(jnp.asarray(hidden, jnp.float32), jnp.asarray(table, jnp.float32))
    np.testing.assert_allclose(scores, hidden @ table.T, rtol=1e-5, atol=1e-5)
    low = embeddings.logits(jnp.asarray(hidden, jnp.bfloat16), jnp.asarray(table, jnp.float32))
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, hidden @ table.T, atol=0.1)


def test_embedded_vectors_start_with_norm_one():
    table = params.init(jax.random.key(0), {"t": embeddings.embedding_params(500, 64)})["t"]
    assert np.isclose(np.square(table).sum(axis=-1).mean(), 1.0, atol=0.02)
