"""``layers.linear`` against ``x @ W``, under every transformation of JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from jax.test_util import check_grads

from tfm import layers, sharding
from tfm.linear import linear, saveable

pytestmark = pytest.mark.usefixtures("quick_compile")

D, F = 5, 3
SHAPES = [(D,), (4, D), (2, 4, D), (2, 3, 4, D)]


@pytest.fixture
def weight(rng):
    return jnp.asarray(rng.normal(size=(D, F)), jnp.float32)


@pytest.fixture
def normal(rng):
    return lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)


def close(ours, theirs):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, theirs)


def test_layers_and_attention_use_it():
    params = {"up": jnp.ones((4, 8)), "up_bias": jnp.ones(8), "down": jnp.ones((8, 4))}
    text = str(
        jax.make_jaxpr(lambda x: layers.feed_forward(params, x, "relu"))(jnp.ones((2, 3, 4)))
    )
    assert text.count("linear[") + text.count("linear ") == 2


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_matrix_product(normal, weight, shape, dtype):
    x, w = normal(*shape).astype(dtype), weight.astype(dtype)
    for f in (linear, jax.jit(linear)):
        assert f(x, w).dtype == dtype
        np.testing.assert_array_equal(f(x, w), x @ w)
    with jax.disable_jit():
        np.testing.assert_array_equal(linear(x, w), x @ w)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_the_matrix_product(normal, weight, shape):
    x = normal(*shape)
    mix = normal(*shape[:-1], F)
    ours, theirs = (
        jax.grad(lambda x, w, f=f: (jnp.sin(f(x, w)) * mix).sum(), (0, 1))(x, weight)
        for f in (linear, jnp.matmul)
    )
    close(ours, theirs)
    check_grads(linear, (x, weight), order=2, modes=["fwd", "rev"], atol=1e-2, rtol=1e-2)


def test_the_gradient_of_the_weight_is_computed_without_a_transpose(normal, weight):
    """As xᵀ dy: XLA on the CPU is faster than with JAX's own (dyᵀ x)ᵀ."""

    def primitives(f):
        jaxpr = jax.make_jaxpr(jax.grad(lambda w: f(x, w).sum()))(weight)
        return [eqn.primitive.name for eqn in jaxpr.eqns]

    x = normal(2, 4, D)
    assert "transpose" not in primitives(linear)
    assert "transpose" in primitives(jnp.matmul)


@pytest.mark.parametrize("shape", SHAPES)
def test_jvp_and_linearize(normal, weight, shape):
    x, tangents = normal(*shape), (normal(*shape), normal(D, F))
    close(jax.jvp(linear, (x, weight), tangents), jax.jvp(jnp.matmul, (x, weight), tangents))
    for argument, tangent in enumerate(tangents):  # of one argument alone
        one = lambda f, argument=argument: lambda t: f(t, weight) if argument == 0 else f(x, t)  # noqa: E731
        at = ((x, weight)[argument],)
        close(jax.jvp(one(linear), at, (tangent,)), jax.jvp(one(jnp.matmul), at, (tangent,)))
    value, f = jax.linearize(linear, x, weight)
    expected, g = jax.linearize(jnp.matmul, x, weight)
    close((value, f(*tangents)), (expected, g(*tangents)))
    (transposed,) = jax.linear_transpose(lambda x: linear(x, weight), x)(value)
    close(transposed, value @ weight.T)


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
def test_jacobians(normal, weight, jacobian):
    x = normal(2, D)
    ours, theirs = (
        jax.jit(jacobian(lambda x, w, f=f: jnp.tanh(f(x, w)), (0, 1)))(x, weight)
        for f in (linear, jnp.matmul)
    )
    close(ours, theirs)


def test_hessians(normal, weight):
    """Of a loss in both arguments, by forward over reverse and by every other order."""
    x, y = normal(2, D), normal(2, F)

    def loss(arguments, f):
        return jnp.square(jnp.tanh(f(*arguments)) - y).sum()

    for outer in (jax.jacfwd, jax.jacrev):
        for inner in (jax.jacfwd, jax.jacrev):
            ours, theirs = (
                jax.jit(outer(inner(functools.partial(loss, f=f))))((x, weight))
                for f in (linear, jnp.matmul)
            )
            close(ours, theirs)
    close(
        jax.hessian(functools.partial(loss, f=linear))((x, weight)),
        jax.hessian(functools.partial(loss, f=jnp.matmul))((x, weight)),
    )


@pytest.mark.parametrize(
    ("in_axes", "shapes"),
    [
        ((0, None), ((6, 4, D), (D, F))),
        ((1, None), ((4, 6, D), (D, F))),
        ((2, None), ((4, D, 6), (D, F))),
        ((0, None), ((6, D), (D, F))),
        ((None, 0), ((4, D), (6, D, F))),
        ((None, 2), ((2, 4, D), (D, F, 6))),
        ((0, 0), ((6, 4, D), (6, D, F))),
        ((1, 2), ((4, 6, D), (D, F, 6))),
        ((-1, 1), ((D, 6), (D, 6, F))),
    ],
)
def test_vmap_over_inputs_and_weights(normal, in_axes, shapes):
    arrays = tuple(normal(*shape) for shape in shapes)
    mapped = lambda f: jax.vmap(f, in_axes)  # noqa: E731
    close(mapped(linear)(*arrays), mapped(jnp.matmul)(*arrays))
    loss = lambda f: lambda *xs: jnp.sin(mapped(f)(*xs)).sum()  # noqa: E731
    close(jax.grad(loss(linear), (0, 1))(*arrays), jax.grad(loss(jnp.matmul), (0, 1))(*arrays))
    each = lambda f: mapped(jax.grad(lambda x, w: jnp.sin(f(x, w)).sum(), (0, 1)))  # noqa: E731
    close(each(linear)(*arrays), each(jnp.matmul)(*arrays))
    tangents = tuple(normal(*shape) for shape in shapes)
    close(jax.jvp(mapped(linear), arrays, tangents), jax.jvp(mapped(jnp.matmul), arrays, tangents))


def test_nested_vmap(normal):
    """Over inputs, weights, and both."""
    x, w = normal(2, 3, 4, D), normal(3, D, F)
    nested = lambda f: jax.vmap(jax.vmap(f), (0, None))(x, w)  # noqa: E731
    close(nested(linear), nested(jnp.matmul))


@pytest.mark.parametrize("policy", [None, saveable])
def test_recomputation_changes_no_gradient(normal, weight, policy):
    x = normal(2, 4, D)
    loss = lambda x, w: jnp.sin(linear(jnp.sin(linear(x, w)), w.T)).sum()  # noqa: E731
    again = jax.checkpoint(loss, policy=policy)
    close(jax.grad(again, (0, 1))(x, weight), jax.grad(loss, (0, 1))(x, weight))


def test_its_results_are_what_a_policy_of_checkpoint_saves(normal, weight):
    """With ``saveable`` the product is not computed again."""

    def products(policy):
        f = jax.checkpoint(lambda x: jnp.sin(linear(x, weight)).sum(), policy=policy)
        text = str(jax.make_jaxpr(jax.grad(f))(normal(4, D)))
        return text.count("linear")

    assert products(saveable) == 1 < products(None)


def test_on_a_mesh_it_gives_what_one_device_gives(normal):
    """With inputs and weights sharded over any axis."""
    mesh = sharding.make(sharding.Mesh(data=2, tensor=4))
    x, w = normal(4, 8), normal(8, 16)
    loss = lambda x, w: jnp.sin(linear(x, w)).sum()  # noqa: E731
    expected = jax.value_and_grad(loss, (0, 1))(x, w)
    put = lambda array, *names: jax.device_put(array, NamedSharding(mesh, PartitionSpec(*names)))  # noqa: E731
    for names in [("tensor", None), (None, "tensor"), (None, None)]:
        sharded = jax.jit(jax.value_and_grad(loss, (0, 1)))(put(x, "data", None), put(w, *names))
        close(sharded, expected)


@pytest.mark.parametrize(
    ("x", "w", "message"),
    [
        ((4, 6), (D, F), r"weight_DF \[D,F\] has shape \(5, 3\), but D is 6 in x"),
        ((4, D), (F, D), r"weight_DF \[D,F\] has shape \(3, 5\), but D is 5 in x"),
        ((4, D), (D,), r"weight_DF has shape \(5,\); it must have 2 dimensions \[D,F\]"),
        ((4, D), (2, D, F), r"weight_DF has shape \(2, 5, 3\); it must have 2 dimensions"),
        ((), (D, F), r"x has shape \(\); it must have 1 or more dimensions \[...,D\]"),
    ],
)
def test_shapes_that_do_not_fit_are_an_error(x, w, message):
    with pytest.raises(ValueError, match=f"linear: .*{message}"):
        linear(jnp.ones(x), jnp.ones(w))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(linear, jnp.ones(x), jnp.ones(w))


def test_different_dtypes_are_an_error():
    with pytest.raises(ValueError, match="x is bfloat16 and weight_DF float32; cast one"):
        linear(jnp.ones((4, D), jnp.bfloat16), jnp.ones((D, F)))
