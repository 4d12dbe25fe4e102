"""Training on a mesh gives the numbers of one device, and moves no more than it must."""

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
from tfm.sharding import NO_MESH, Layout, Mesh
from tfm.training import loop, loss, optimizer, step

VOCAB, ROWS, LENGTH = 16, 8, 8
CONFIG = Config(
    model=transformer.Config(
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
    """Twenty batches, two sentences packed in each row; the target repeats the source."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(20):
        cut, end = rng.integers(2, 4, (ROWS, 1)), rng.integers(5, LENGTH + 1, (ROWS, 1))
        at = np.broadcast_to(np.arange(LENGTH), (ROWS, LENGTH))
        segments = np.where(at < cut, 1, np.where(at < end, 2, 0)).astype(np.int32)
        places = np.where(at < cut, at, at - cut).astype(np.int32)
        tokens = np.where(segments, rng.integers(4, VOCAB, at.shape), 0).astype(np.int32)
        shifted = np.where(places == 0, 2, np.roll(tokens, 1, axis=1)).astype(np.int32)
        batch = {"source": tokens, "target": tokens, "target_input": shifted}
        for side in ("source", "target"):
            batch |= {f"{side}_segments": segments, f"{side}_positions": places}
        made.append(batch)
    return made


def compile_update(c, layout):
    """(fresh state, compiled update)."""
    rule = optimizer.make(c.optimizer, transformer.declare(c.model))
    state = step.abstract_state(c, rule, layout)
    init = functools.partial(step.init_state, c, rule)
    update = step.jit_update(c, rule, layout).lower(state, step.abstract_batch(c, layout)).compile()
    return jax.jit(init, out_shardings=jax.tree.map(lambda x: x.sharding, state))(), update


def train(c, layout, batches):
    """(state after all batches, the losses, the update's text)."""
    state, update = compile_update(c, layout)
    losses = []
    for batch in batches:
        if layout is not NO_MESH:
            batch = {name: layout.put(x, "batch", "length") for name, x in batch.items()}
        state, metrics = update(state, batch)
        losses.append(float(metrics.loss))  # one step at a time: 8 devices share few threads
    return state, np.asarray(losses), update.as_text()


@pytest.fixture(scope="module")
def alone(batches):
    """What one device without any mesh does, by config."""
    return functools.cache(lambda c: train(c, NO_MESH, batches))


def layout(*sizes):
    return Layout(sharding.make(Mesh(*sizes)))


def collectives(text):
    """[(kind, elements)] of every communication in a compiled program."""
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
def test_losses_of_20_steps_are_those_of_one_device(alone, batches, sizes):
    there = layout(*sizes)
    _, expected, _ = alone(CONFIG)
    state, losses, text = train(CONFIG, there, batches)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert losses[-1] < 0.9 * losses[0]  # there was something to learn

    # Weights, moments and average really are in parts.
    weights = state.params["decoder"]["layers"]["ff"]["up"]  # [L,D,F]
    fsdp, tensor = there.mesh.shape["fsdp"], there.mesh.shape["tensor"]
    part = (1, 16 // fsdp, 32 // tensor)
    moments = state.optimizer[1].mu["decoder"]["layers"]["ff"]["up"]
    for x in (weights, moments, state.average["decoder"]["layers"]["ff"]["up"]):
        assert {shard.data.shape for shard in x.addressable_shards} == {part}
    table = state.params["tables"]["target"]
    assert table.addressable_shards[0].data.shape == (VOCAB // tensor, 16 // fsdp)

    # Nobody collects what only its makers need: no message of a batch's logits or scores.
    logits, scores = ROWS * LENGTH * VOCAB, ROWS * 2 * LENGTH * LENGTH
    assert collectives(text)
    assert max(size for _, size in collectives(text)) < min(logits, scores)


def test_a_mesh_of_one_device_changes_no_bit(alone, batches):
    (state, losses, _), (same, same_losses, _) = alone(CONFIG), train(CONFIG, layout(1), batches)
    np.testing.assert_array_equal(losses, same_losses)
    jax.tree.map(np.testing.assert_array_equal, state, same)


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "lookup"), [((4,), "gather"), ((2, 2, 2), "one_hot")])
def test_micro_batches_and_one_hot_lookup_on_a_mesh(alone, batches, sizes, lookup):
    """Neither the mesh nor the micro-batches change a dropout mask."""
    c = tiny.change(CONFIG, model={"lookup": lookup}, train={"accumulate": 2})
    expected, losses = alone(CONFIG)[1], train(c, layout(*sizes), batches)[1]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_between_copies_of_the_weights_gradients_travel_once_an_update():
    c, there = tiny.change(CONFIG, train={"accumulate": 4}, data={"rows": 32}), layout(8)
    found = traffic.collectives(hlo.parse(compiled.trace(c, there).lower().compile().as_text()), 8)
    assert {(e.kind, e.times) for e in found} == {("all-reduce", 1)}  # 4 micro-batches
    sent = sum(math.prod(x.shape) for e in found for x in e.parts)
    weights = params.count(transformer.declare(c.model))
    assert weights <= sent < weights + 10  # and the sums of the loss


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        {"positions": "rotary", "soft_cap": 3.0},  # in a ring
        {"positions": "t5"},  # the rest collect the keys
        {"attention_dropout": 0.2},
        {"attention": "linear"},
        {"attention": "local", "window": 2},
    ],
    ids=["rotary", "t5", "dropout", "linear", "local"],
)
def test_rows_in_parts(alone, batches, model):
    c = tiny.change(CONFIG, model=model)
    found = train(c, layout(2, 1, 2, 2), batches[:6])
    np.testing.assert_allclose(found[1], alone(c)[1][:6], rtol=1e-5)
    assert ("collective-permute" in found[2]) >= (model.get("positions") == "rotary")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adafactor", "lion", "adamw"])
def test_every_rule_of_optimisation_has_a_place(alone, batches, name):
    c = tiny.change(CONFIG, optimizer={"name": name, "learning_rate": 1e-3})
    np.testing.assert_allclose(train(c, layout(2, 2, 2), batches)[1], alone(c)[1], rtol=1e-5)


def test_batches_that_cannot_be_cut():
    batch = lambda c, *sizes: step.abstract_batch(c, layout(*sizes))  # noqa: E731
    three = tiny.change(CONFIG, data={"rows": 9})
    with pytest.raises(ValueError, match=r"data\.rows 9: not a multiple of 8: mesh\.data x"):
        batch(three, 4, 2)
    parts = tiny.change(CONFIG, train={"accumulate": 2})
    with pytest.raises(ValueError, match=r"data\.rows 8: .* 16: .* 8 times train\.accumulate 2"):
        batch(parts, 8)
    odd = tiny.change(CONFIG, data={"target_length": 7})
    with pytest.raises(ValueError, match=r"data\.target_length 7: .* mesh\.sequence 2"):
        batch(odd, 1, 1, 1, 2)


def test_a_model_that_cannot_be_cut():
    c = tiny.change(CONFIG, model={"heads": 1})
    rule = optimizer.make(c.optimizer, transformer.declare(c.model))
    with pytest.raises(ValueError, match=r"k/b: its kv_heads of 1 .* mesh\.tensor 2"):
        step.abstract_state(c, rule, layout(1, 1, 2))


def test_a_vocabulary_that_came_out_smaller_says_what_to_ask_for(tmp_path):
    c = tiny.config(tmp_path, mesh={"data": 1, "tensor": 2}, model={"heads": 2})
    assert c.tokenizer.source_size == 60  # the text has 9 characters, and 4 pieces are special
    words = r"model\.source_vocab 13: .* mesh\.tensor 2; .*tokenizer\.source_size to 12, or to 14"
    with pytest.raises(ValueError, match=words):
        loop.train(c, tmp_path / "run")


LOSS_SIZES = 8, 16, 12, 32  # B, T, D, V
CHUNK = 4  # tokens whose logits a device holds, if its rows are no more


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
    there = layout(*sizes)
    plain, arrays = scored(NO_MESH)
    cut, _ = scored(there)
    for a, b in zip(*(jax.tree.leaves(f(*arrays)) for f in (cut, plain)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)

    # Every device holds the logits of so many of its own tokens, on any mesh.
    text, rows = cut.as_text(), B // there.axis_size("batch")
    tokens = max(CHUNK, rows)
    assert f"f32[{rows},{tokens // rows},{V // there.axis_size('vocab')}]" in text

    # The gradient of the table is added up once, outside the walk over slices of tokens; within it
    # a device sends numbers a token, not logits and not a table.
    bodies = re.findall(r"body=(%[\w.-]+)", text)
    assert bodies
    inside = [
        found
        for block in text.split("\n\n")
        if any(block.lstrip().startswith(body) for body in bodies)
        for found in collectives(block)
    ]
    assert all(size <= tokens for _, size in inside)
    assert bool(inside) == bool(there.mesh_axes("vocab"))
    logits = B * T * V // there.axis_size("batch", "length")
    assert all(size < logits for _, size in collectives(text))


def test_gradients_come_back_where_the_arrays_are(scored):
    there = layout(2, 2, 2)
    cut, arrays = scored(there)
    _, (d_hidden, d_table) = cut(*arrays)
    assert d_table.sharding.spec == P("tensor", "fsdp")
    assert d_hidden.sharding.is_equivalent_to(
        there.sharding(("batch", "length", None), d_hidden.shape), 3
    )
    assert d_table.dtype == jnp.float32
