"""Training on a mesh gives the numbers of one device, with no needless communication."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec as P

from tfm import params, sharding, transformer
from tfm.config import Config, Data, Optimizer, Train
from tfm.plan import compiled, hlo, traffic
from tfm.positions import T5, Rotary
from tfm.sharding import NO_MESH, Layout, Mesh
from tfm.training import loop, loss, optimizer, step

VOCAB, ROWS, LENGTH = 16, 8, 8
CONFIG = Config(
    model=transformer.Architecture(
        source_vocab=VOCAB, target_vocab=VOCAB, d_model=16, heads=2, d_ff=32, encoder_layers=1,
        decoder_layers=1, dropout=0.1,
    ),
    data=Data(rows=ROWS, source_length=LENGTH, target_length=LENGTH),
    optimizer=Optimizer(learning_rate=1e-2, warmup=10),
    train=Train(loss_chunk=32, ema=0.9),
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def batches():
    """Twenty batches with two sentences packed in each row; target and source are equal."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(20):
        second, end = rng.integers(2, 4, (ROWS, 1)), rng.integers(5, LENGTH + 1, (ROWS, 1))
        at = np.broadcast_to(np.arange(LENGTH), (ROWS, LENGTH))
        segments = np.where(at < second, 1, np.where(at < end, 2, 0)).astype(np.int32)
        positions = np.where(at < second, at, at - second).astype(np.int32)
        tokens = np.where(segments, rng.integers(4, VOCAB, at.shape), 0).astype(np.int32)
        shifted = np.where(positions == 0, 2, np.roll(tokens, 1, axis=1)).astype(np.int32)
        side = (segments, positions)
        made.append(transformer.Batch(tokens, *side, shifted, *side, target=tokens))
    return made


def compile_update(experiment, layout):
    """(initial state, compiled update)."""
    rule = optimizer.make(experiment.optimizer, transformer.declare(experiment.model))
    state = step.abstract_state(experiment, rule, layout)
    init = functools.partial(step.init_state, experiment, rule)
    update = (
        step.jit_update(experiment, rule, layout)
        .lower(state, step.abstract_batch(experiment, layout))
        .compile()
    )
    return jax.jit(init, out_shardings=jax.tree.map(lambda x: x.sharding, state))(), update


def train(experiment, layout, batches):
    """(state after all batches, the losses, the update's text)."""
    state, update = compile_update(experiment, layout)
    losses = []
    for batch in batches:
        batch = jax.tree.map(lambda x: layout.put(x, "batch", "length"), batch)
        state, metrics = update(state, batch)
        losses.append(float(metrics.loss))  # one step at a time: 8 devices share few threads
    return state, np.asarray(losses), update.as_text()


@pytest.fixture(scope="module")
def alone(batches):
    """``train`` on one device without a mesh, once for each experiment."""
    return functools.cache(lambda experiment: train(experiment, NO_MESH, batches))


def layout(*sizes):
    return Layout(sharding.make(Mesh(*sizes)))


def collectives(text):
    """[(kind, elements)] of every collective in a compiled program."""
    kinds = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
    found = []
    for shapes, kind in re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text):
        for sizes in re.findall(r"\w+\[([\d,]*)\]", shapes):
            found.append((kind, math.prod(map(int, filter(None, sizes.split(","))))))
    return found


MESHES = [
    pytest.param((2, 2, 2), id="data2-fsdp2-tensor2"),
    *(
        pytest.param(sizes, id=name, marks=pytest.mark.slow)
        for name, sizes in {
            "data8": (8,), "data4-fsdp2": (4, 2), "data4-tensor2": (4, 1, 2), "fsdp8": (1, 8),
            "sequence2": (2, 1, 2, 2),
        }.items()
    ),
]  # fmt: skip


@pytest.mark.parametrize("sizes", MESHES)
def test_losses_of_20_steps_equal_those_of_one_device(alone, batches, sizes):
    mesh_layout = layout(*sizes)
    _, expected, _ = alone(CONFIG)
    state, losses, text = train(CONFIG, mesh_layout, batches)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert losses[-1] < 0.9 * losses[0]  # it has learned something

    # Weights, moments and average are really sharded.
    weights = state.params["decoder"]["layers"]["ff"]["up"]  # [L,D,F]
    fsdp, tensor = mesh_layout.mesh.shape["fsdp"], mesh_layout.mesh.shape["tensor"]
    shard_shape = (1, 16 // fsdp, 32 // tensor)
    moments = state.optimizer[1].mu["decoder"]["layers"]["ff"]["up"]
    for x in (weights, moments, state.average["decoder"]["layers"]["ff"]["up"]):
        assert {shard.data.shape for shard in x.addressable_shards} == {shard_shape}
    table = state.params["tables"]["target"]
    assert table.addressable_shards[0].data.shape == (VOCAB // tensor, 16 // fsdp)

    # No device receives what it does not need: no collective of a batch's logits or scores.
    logits, scores = ROWS * LENGTH * VOCAB, ROWS * 2 * LENGTH * LENGTH
    assert collectives(text)
    assert max(size for _, size in collectives(text)) < min(logits, scores)


def test_mesh_of_one_device_gives_the_same_bits(alone, batches):
    (state, losses, _), (same, same_losses, _) = alone(CONFIG), train(CONFIG, layout(1), batches)
    np.testing.assert_array_equal(losses, same_losses)
    jax.tree.map(np.testing.assert_array_equal, state, same)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "lookup"), [((4,), "gather"), ((2, 2, 2), "one_hot")])
def test_micro_batches_and_one_hot_lookup_on_a_mesh(alone, batches, sizes, lookup):
    """Neither the mesh nor the micro-batches change a dropout mask."""
    experiment = tiny.change(CONFIG, execution={"lookup": lookup}, train={"accumulate": 2})
    expected, losses = alone(CONFIG)[1], train(experiment, layout(*sizes), batches)[1]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_gradients_are_summed_once_an_update_on_a_data_mesh():
    experiment, mesh_layout = (
        tiny.change(CONFIG, train={"accumulate": 4}, data={"rows": 32}),
        layout(8),
    )
    text = compiled.trace(experiment, mesh_layout).lower().compile().as_text()
    found = traffic.collectives(hlo.parse(text), 8)
    assert {(e.kind, e.times) for e in found} == {("all-reduce", 1)}  # 4 micro-batches
    sent = sum(math.prod(x.shape) for e in found for x in e.shards)
    weights = params.count(transformer.declare(experiment.model))
    assert weights <= sent < weights + 10  # and the sums of the loss


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"positions": Rotary(), "soft_cap": 3.0},  # ring attention
        {"positions": T5()},  # the others all-gather the keys
        {"attention_dropout": 0.2},
        {"attention": "linear"},
        {"attention": "local", "window": 2},
    ],
    ids=["rotary", "t5", "dropout", "linear", "local"],
)
def test_sharded_length(alone, batches, model):
    experiment = tiny.change(CONFIG, model=model)
    found = train(experiment, layout(2, 1, 2, 2), batches[:6])
    np.testing.assert_allclose(found[1], alone(experiment)[1][:6], rtol=1e-5)
    assert ("collective-permute" in found[2]) >= (model.get("positions") == Rotary())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adafactor", "lion", "adamw"])
def test_every_optimizer_can_be_sharded(alone, batches, name):
    experiment = tiny.change(CONFIG, optimizer={"name": name, "learning_rate": 1e-3})
    np.testing.assert_allclose(
        train(experiment, layout(2, 2, 2), batches)[1], alone(experiment)[1], rtol=1e-5
    )


def test_batches_that_cannot_be_sharded_are_refused():
    batch = lambda experiment, *sizes: step.abstract_batch(experiment, layout(*sizes))  # noqa: E731
    nine_rows = tiny.change(CONFIG, data={"rows": 9})
    with pytest.raises(ValueError, match=r"data\.rows 9: not a multiple of 8: mesh\.data x"):
        batch(nine_rows, 4, 2)
    micro_batches = tiny.change(CONFIG, train={"accumulate": 2})
    with pytest.raises(ValueError, match=r"data\.rows 8: .* 16: .* 8 times train\.accumulate 2"):
        batch(micro_batches, 8)
    odd_length = tiny.change(CONFIG, data={"target_length": 7})
    with pytest.raises(ValueError, match=r"data\.target_length 7: .* mesh\.sequence 2"):
        batch(odd_length, 1, 1, 1, 2)


def test_model_that_cannot_be_sharded_is_refused():
    experiment = tiny.change(CONFIG, model={"heads": 1})
    rule = optimizer.make(experiment.optimizer, transformer.declare(experiment.model))
    with pytest.raises(ValueError, match=r"k/b: kv_heads of size 1 .* mesh\.tensor 2"):
        step.abstract_state(experiment, rule, layout(1, 1, 2))


def test_vocabulary_smaller_than_configured_is_refused_with_advice(tmp_path):
    experiment = tiny.config(tmp_path, mesh={"data": 1, "tensor": 2}, model={"heads": 2})
    assert (
        experiment.tokenizer.source_size == 60
    )  # the text has 9 characters, and 4 pieces are special
    words = r"model\.source_vocab 13: .* mesh\.tensor 2; .*tokenizer\.source_size to 12, or to 14"
    with pytest.raises(ValueError, match=words):
        loop.train(experiment, tmp_path / "run")


LOSS_SIZES = 8, 16, 12, 32  # B, T, D, V
CHUNK = 4  # tokens whose logits a device holds, if it has no more rows


@pytest.fixture(scope="module")
def scored():
    """``scored(layout)``: compiled (loss, gradients) of the cross-entropy, and its arguments."""
    B, T, D, V = LOSS_SIZES
    rng = np.random.default_rng(1)
    arrays = (
        rng.normal(size=(B, T, D)).astype(np.float32),
        rng.normal(size=(V, D)).astype(np.float32),
        rng.integers(0, V, (B, T)).astype(np.int32),
        (rng.random((B, T)) < 0.8).astype(np.float32),
    )

    def compiled(layout):
        def f(hidden, table, labels, weights):
            found = loss.cross_entropy(
                hidden, table, labels, weights, label_smoothing=0.1, chunk=CHUNK, layout=layout
            )
            return found.loss, found

        return jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True)).lower(*arrays).compile(), arrays

    return compiled


@pytest.mark.parametrize("sizes", [(8,), (2, 2, 2), (1, 1, 4, 2), (1, 4, 2)])
def test_cross_entropy_on_a_mesh(scored, sizes):
    B, T, _, V = LOSS_SIZES
    mesh_layout = layout(*sizes)
    plain, arrays = scored(NO_MESH)
    sharded, _ = scored(mesh_layout)
    for a, b in zip(*(jax.tree.leaves(f(*arrays)) for f in (sharded, plain)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)

    # Every device holds the logits of so many of its own tokens, on any mesh.
    text, rows = sharded.as_text(), B // mesh_layout.axis_size("batch")
    tokens = max(CHUNK, rows)
    assert f"f32[{rows},{tokens // rows},{V // mesh_layout.axis_size('vocab')}]" in text

    # The gradient of the table is summed once, after the scan over slices of tokens; within it a
    # device sends numbers for each token, but neither logits nor a table.
    bodies = re.findall(r"body=(%[\w.-]+)", text)
    assert bodies
    inside = [
        found
        for block in text.split("\n\n")
        if any(block.lstrip().startswith(body) for body in bodies)
        for found in collectives(block)
    ]
    assert all(size <= tokens for _, size in inside)
    assert bool(inside) == bool(mesh_layout.mesh_axes("vocab"))
    logits = B * T * V // mesh_layout.axis_size("batch", "length")
    assert all(size < logits for _, size in collectives(text))


def test_gradients_are_sharded_like_the_arrays(scored):
    mesh_layout = layout(2, 2, 2)
    sharded, arrays = scored(mesh_layout)
    _, (d_hidden, d_table) = sharded(*arrays)
    assert d_table.sharding.spec == P("tensor", "fsdp")
    assert d_hidden.sharding.is_equivalent_to(
        mesh_layout.sharding(("batch", "length", None), d_hidden.shape), 3
    )
    assert d_table.dtype == jnp.float32
