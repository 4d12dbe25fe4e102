import pathlib
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.core.spmd import logical_axis_rules
from jax.sharding import AxisType, PartitionSpec

from tfm import attention, masks, params, positions
from tfm.interop.flax import to_linen, to_nnx

pytestmark = pytest.mark.usefixtures("quick_compile")

B, T, D, N, K, H, V = 8, 6, 16, 4, 2, 4, 8
DECLARATION = attention.attention_params(D, N, K, H, bias=True)
SPLIT = {"heads": "model", "kv_heads": "model"}
RULES = [(axis, SPLIT.get(axis)) for axis in ("heads", "kv_heads", "embed", "head_dim", "norm")]


def attend(weights, x_BTD, *, mask=None, rate=0.0, key=None):
    """Self-attention, the pure function that both kinds of module hold."""
    kv = attention.keys_values(weights, x_BTD)
    return attention.multi_head(weights, x_BTD, kv, mask=mask, dropout_rate=rate, key=key)


@pytest.fixture
def x(rng):
    return jnp.asarray(rng.normal(size=(B, T, D)), jnp.float32)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)  # and the same structure


class LinenModel(linen.Module):
    """Predicts at which position the first token of the row is repeated, which takes attention."""

    @linen.compact
    def __call__(self, tokens_BT):
        x_BTD = linen.Embed(V, D)(tokens_BT)
        x_BTD += to_linen(DECLARATION, attend, name="attention")(x_BTD)
        return linen.Dense(1)(x_BTD)[:, 1:, 0]


class NNXModel(nnx.Module):
    """The same in NNX."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(V, D, rngs=rngs)
        self.attention = to_nnx(DECLARATION, attend, rngs=rngs)
        self.out = nnx.Linear(D, 1, rngs=rngs)

    def __call__(self, tokens_BT):
        x_BTD = self.embed(tokens_BT)
        x_BTD += self.attention(x_BTD)
        return self.out(x_BTD)[:, 1:, 0]


@pytest.fixture
def puzzle(rng):
    """Rows of different tokens but for one repetition of the first; and its position less 1."""
    tokens_BT = np.stack([rng.permutation(V)[:T] for _ in range(64)])
    position_B = rng.integers(1, T, size=64)
    tokens_BT[np.arange(64), position_B] = tokens_BT[:, 0]
    return jnp.asarray(tokens_BT), jnp.asarray(position_B - 1)


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def all_changed(before, after):
    """Whether all weights did but the keys' bias, to which softmax is invariant."""
    unchanged = jax.tree.map(lambda a, b: bool(np.abs(a - b).max() < 1e-3), before, after)
    unchanged["k"].pop("b")
    return not any(jax.tree.leaves(unchanged))


def test_a_linen_model_with_attention_learns(puzzle):
    tokens, labels = puzzle
    model, optimizer = LinenModel(), optax.adam(0.02)
    weights = linen.unbox(model.init(jax.random.key(0), tokens))
    state, before = optimizer.init(weights), weights["params"]["attention"]["weights"]

    def loss_fn(weights):
        return cross_entropy(model.apply(weights, tokens), labels)

    @jax.jit
    def step(weights, state):
        loss, grads = jax.value_and_grad(loss_fn)(weights)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(weights, updates), state, loss

    losses = []
    for _ in range(60):
        weights, state, loss = step(weights, state)
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0], losses
    assert all_changed(before, weights["params"]["attention"]["weights"])


def test_an_nnx_model_with_attention_learns(puzzle):
    tokens, labels = puzzle
    model = NNXModel(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(0.02), wrt=nnx.Param)
    before = model.attention.arrays()

    @nnx.jit
    def step(model, optimizer):
        loss, grads = nnx.value_and_grad(lambda m: cross_entropy(m(tokens), labels))(model)
        optimizer.update(model, grads)
        return loss

    losses = [float(step(model, optimizer)) for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0], losses
    assert all_changed(before, model.attention.arrays())


def test_linen_weights_are_those_of_params_init(x):
    class Key(linen.Module):
        @linen.compact
        def __call__(self):
            return self.make_rng("params")

    model = to_linen(DECLARATION, attend, dtype=jnp.bfloat16)
    key, _ = Key().init_with_output(
        jax.random.key(7)
    )  # the key that Linen derives for a module at this path
    drawn = linen.unbox(model.init(jax.random.key(7), x))
    same(drawn["params"]["weights"], params.init(key, DECLARATION, jnp.bfloat16))
    same(linen.unbox(model.init(jax.random.PRNGKey(7), x)), drawn)


def test_nnx_weights_are_those_of_params_init():
    piece = to_nnx(DECLARATION, attend, rngs=nnx.Rngs(params=7), dtype=jnp.bfloat16)
    key = nnx.Rngs(params=7).params()
    same(piece.arrays(), params.init(key, DECLARATION, jnp.bfloat16))


def test_a_module_equals_the_pure_function_and_its_weights_can_be_read_and_set(x, draw):
    weights, mask = draw(DECLARATION), masks.causal(T)
    expected = jax.jit(attend)(weights, x, mask=mask)
    module = to_linen(DECLARATION, attend)
    wrapped = jax.jit(module.apply)({"params": {"weights": weights}}, x, mask=mask)
    np.testing.assert_array_equal(wrapped, expected)

    piece = to_nnx(DECLARATION, attend, rngs=nnx.Rngs(0))
    call = nnx.jit(lambda piece, x: piece(x, mask=mask))
    assert np.abs(call(piece, x) - expected).max() > 0.1
    nnx.update(piece.weights, weights)
    same(piece.arrays(), weights)
    np.testing.assert_array_equal(call(piece, x), expected)

    drawn = linen.unbox(module.init(jax.random.key(1), x))["params"]["weights"]
    nnx.update(piece.weights, drawn)  # from Linen to NNX
    np.testing.assert_array_equal(call(piece, x), jax.jit(attend)(drawn, x, mask=mask))


def test_nnx_split_and_merge(x):
    model = NNXModel(nnx.Rngs(0))
    tokens = jnp.arange(12).reshape(2, T) % V
    graph, state = nnx.split(model)
    assert set(state["attention"]["weights"]) == {"q", "k", "v", "out"}

    @jax.jit
    def doubled(state):
        return nnx.merge(graph, jax.tree.map(lambda x: 2 * x, state))(tokens)

    expected = nnx.clone(model)
    nnx.update(expected, jax.tree.map(lambda x: 2 * x, state))
    np.testing.assert_allclose(doubled(state), expected(tokens), rtol=1e-5)
    assert graph == nnx.graphdef(NNXModel(nnx.Rngs(1)))  # so a second model needs no compilation


def test_logical_axes(x):
    expected = jax.tree.map(lambda p: PartitionSpec(*p.axes), DECLARATION, is_leaf=params.is_param)
    boxed = to_linen(DECLARATION, attend).init(jax.random.key(0), x)
    assert linen.get_partition_spec(boxed) == {"params": {"weights": expected}}
    state = nnx.state(to_nnx(DECLARATION, attend, rngs=nnx.Rngs(0)))
    assert nnx.to_pure_dict(nnx.get_partition_spec(state)) == {"weights": expected}


def test_the_logical_axes_shard_the_weights_on_a_mesh(x):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    with jax.set_mesh(mesh), logical_axis_rules(RULES):
        module = to_linen(DECLARATION, attend)
        specs = linen.get_partition_spec(jax.eval_shape(module.init, jax.random.key(0), x))
        shardings = linen.logical_to_mesh_sharding(specs, mesh, RULES)
        boxed = jax.jit(module.init, out_shardings=shardings)(jax.random.key(0), x)
        wrapped = linen.unbox(boxed)["params"]["weights"]
        sharded = jax.jit(module.apply)(boxed, x)
        piece = to_nnx(DECLARATION, attend, rngs=nnx.Rngs(0))
    for weights in (wrapped, piece.arrays()):
        shards = {leaf.addressable_shards[0].data.shape for leaf in jax.tree.leaves(weights["q"])}
        assert shards == {(D, N // 2, H), (N // 2, H)}
        assert weights["out"]["w"].addressable_shards[0].data.shape == (N // 2, H, D)
    np.testing.assert_allclose(sharded, attend(jax.device_get(wrapped), x), atol=1e-5)


def test_linen_vmap_adds_a_logical_axis(x):
    class Layer(linen.Module):
        @linen.compact
        def __call__(self, x):
            return to_linen(DECLARATION, attend, name="piece")(x)

    vmapped = linen.vmap(
        Layer,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=None,
        axis_size=3,
        metadata_params={linen.PARTITION_NAME: "layers"},
    )
    boxed = vmapped().init(jax.random.key(0), x)["params"]["piece"]["weights"]["q"]["w"]
    assert boxed.get_partition_spec() == PartitionSpec("layers", "embed", "heads", "head_dim")
    assert boxed.value.shape == (3, D, N, H)


def test_dropout_key_is_an_argument(x, draw):
    weights = draw(DECLARATION)
    piece = to_nnx(DECLARATION, attend, rngs=nnx.Rngs(0))
    nnx.update(piece.weights, weights)
    module, variables = to_linen(DECLARATION, attend), {"params": {"weights": weights}}

    one, two = (module.apply(variables, x, rate=0.5, key=jax.random.key(seed)) for seed in (1, 2))
    expected = attend(weights, x, rate=0.5, key=jax.random.key(1))
    np.testing.assert_allclose(one, expected, atol=1e-6)
    np.testing.assert_allclose(piece(x, rate=0.5, key=jax.random.key(1)), expected, atol=1e-6)
    assert np.abs(one - two).max() > 0.01
    np.testing.assert_allclose(piece(x), attend(weights, x), atol=1e-6)
    with pytest.raises(ValueError, match="key is None"):
        piece(x, rate=0.5)


def test_a_declaration_may_be_one_param_or_none():
    table, ids = positions.learned_params(5, D), jnp.arange(3)

    def lookup(table_TD, ids):
        return positions.learned(ids, table_TD)

    piece = to_nnx(table, lookup, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(piece(ids), piece.arrays()[:3])
    out, variables = to_linen(table, lookup).init_with_output(jax.random.key(0), ids)
    np.testing.assert_array_equal(out, linen.unbox(variables)["params"]["weights"][:3])

    def fixed(_, ids):
        return positions.sinusoidal(ids, D)

    np.testing.assert_array_equal(to_nnx({}, fixed, rngs=nnx.Rngs(0))(ids), fixed({}, ids))
    out, _ = to_linen({}, fixed).init_with_output(jax.random.key(0), ids)
    np.testing.assert_array_equal(out, fixed({}, ids))


@pytest.mark.parametrize("wrap", [to_linen, lambda *piece: to_nnx(*piece, rngs=nnx.Rngs(0))])
def test_an_invalid_declaration_or_function_is_refused(wrap):
    with pytest.raises(ValueError, match=r"nested dict of .*Param, got ArrayImpl at 'q/w'"):
        wrap({"q": {"w": jnp.ones(3)}}, attend)
    with pytest.raises(ValueError, match=r"got list at 'layers'"):
        wrap({"layers": [DECLARATION]}, attend)
    with pytest.raises(ValueError, match=r"got NoneType at 'b'"):
        wrap({"b": None}, attend)
    with pytest.raises(ValueError, match=r"second argument is the function .* got dict"):
        wrap(DECLARATION, DECLARATION)
    with pytest.raises(ValueError, match=r"rngs must be an nnx.Rngs, got int"):
        to_nnx(DECLARATION, attend, rngs=0)


def test_weights_that_differ_from_the_declaration_are_refused(x, draw):
    weights = draw(DECLARATION)
    narrow = weights | {"q": {"w": weights["q"]["w"][:, :1], "b": weights["q"]["b"]}}
    missing = weights | {"out": {"w": weights["out"]["w"]}}
    extra = weights | {"gate": jnp.ones(3)}

    def linen_with(tree):
        return to_linen(DECLARATION, attend).apply({"params": {"weights": tree}}, x)

    def nnx_with(tree):
        piece = to_nnx(DECLARATION, attend, rngs=nnx.Rngs(0))
        nnx.update(piece.weights, tree)
        return piece(x)

    shape = r"weight 'q/w' is declared \(16, 4, 4\), given \(16, 1, 4\)"
    with pytest.raises(ValueError, match=f"to_linen: {shape}"):
        linen_with(narrow)
    with pytest.raises(ValueError, match=f"to_nnx: {shape}"):
        nnx_with(narrow)
    with pytest.raises(ValueError, match=r"weight 'out/b' is declared \(16,\), given nothing"):
        linen_with(missing)
    for given in (linen_with, nnx_with):
        with pytest.raises(ValueError, match=r"weight 'gate' is declared nowhere, given \(3,\)"):
            given(extra)


@pytest.mark.slow
def test_the_research_example_learns_to_recall():
    folder = pathlib.Path(__file__).parents[2] / "experiments"
    example = runpy.run_path(str(folder / "research_example.py"))
    found = {variant: example["train"](variant, steps=200) for variant in example["VARIANTS"]}
    assert min(near for *_, near, _ in found.values()) > 0.95, found
    assert found["softmax"][-1] > 0.95 and found["local, 8"][-1] < 0.5, found
