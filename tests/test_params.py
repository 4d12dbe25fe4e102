import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import params
from tfm.params import Param

pytestmark = pytest.mark.usefixtures("quick_compile")

DECLARATION = {
    "a": Param((3, 4), ("embed", "mlp"), params.normal(1.0)),
    "b": {"c": Param((5,), ("mlp",), params.zeros), "d": Param((2,), ("mlp",), params.ones)},
}


def test_init_gives_the_declared_shapes_dtypes_and_values():
    tree = params.init(jax.random.key(0), DECLARATION, jnp.bfloat16)
    abstract = params.abstract(DECLARATION, jnp.bfloat16)
    assert jax.tree.structure(tree) == jax.tree.structure(abstract)
    for x, spec in zip(jax.tree.leaves(tree), jax.tree.leaves(abstract), strict=True):
        assert (x.shape, x.dtype) == (spec.shape, spec.dtype)
    np.testing.assert_array_equal(tree["b"]["c"], np.zeros(5))
    np.testing.assert_array_equal(tree["b"]["d"], np.ones(2))


def test_a_new_parameter_does_not_change_the_others():
    key = jax.random.key(7)
    before = params.init(key, DECLARATION)
    # It sorts first, so keys assigned in tree order would all change.
    more = {"_new": Param((9,), ("mlp",), params.normal(1.0))} | DECLARATION
    after = params.init(key, more)
    np.testing.assert_array_equal(before["a"], after["a"])


def test_parameters_of_the_same_shape_differ():
    p = Param((64,), ("mlp",), params.normal(1.0))
    tree = params.init(jax.random.key(0), {"x": p, "y": p, "z": {"x": p}})
    drawn = np.stack(jax.tree.leaves(tree))
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 0.5  # 4 standard errors of 64 draws


def test_stacked_layers_differ_and_do_not_depend_on_depth():
    key = jax.random.key(0)
    deep = params.init(key, params.stack(DECLARATION, 4))
    shallow = params.init(key, params.stack(DECLARATION, 2))
    assert deep["a"].shape == (4, 3, 4)
    np.testing.assert_array_equal(deep["a"][:2], shallow["a"])
    assert len(np.unique(np.asarray(deep["a"]))) == deep["a"].size


def test_stacked_layers_use_the_fans_of_one_layer():
    layer = {"w": Param((30, 50), ("embed", "mlp"), params.xavier())}
    w = params.init(jax.random.key(0), params.stack(layer, 8))["w"]
    assert np.isclose(w.var(), 2 / 80, rtol=0.05)
    assert np.abs(w).max() <= np.sqrt(6 / 80)


def test_xavier_uses_the_given_axes_as_fans():
    w = params.xavier(0, (1, 2))(jax.random.key(0), (20, 6, 10), jnp.float32)
    assert np.isclose(w.var(), 2 / (20 + 60), rtol=0.1)
    w = params.xavier((0, 1))(jax.random.key(0), (6, 10, 20), jnp.float32)
    assert np.isclose(w.var(), 2 / (60 + 20), rtol=0.1)


def test_unstack_inverts_stack():
    stacked = params.init(jax.random.key(0), params.stack(DECLARATION, 3))
    trees = params.unstack(stacked, 3)
    assert len(trees) == 3
    again = jax.tree.map(lambda *xs: jnp.stack(xs), *trees)
    jax.tree.map(np.testing.assert_array_equal, stacked, again)


def test_axes_include_the_stacked_dimension():
    assert params.axes(params.stack(DECLARATION, 3))["a"] == ("layers", "embed", "mlp")


def test_count_and_table_agree_with_the_arrays():
    declaration = params.stack(DECLARATION, 3)
    tree = params.init(jax.random.key(0), declaration)
    assert params.count(declaration) == sum(x.size for x in jax.tree.leaves(tree)) == 57
    lines = params.table(declaration).splitlines()
    assert [line.split() for line in lines] == [
        ["a", "3x3x4", "layers", "embed", "mlp", "36"],
        ["b/c", "3x5", "layers", "mlp", "15"],
        ["b/d", "3x2", "layers", "mlp", "6"],
        ["total", "57"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_param_with_axes_that_do_not_fit_its_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 4\).*\('embed',\)"):
        Param((3, 4), ("embed",), params.zeros)
