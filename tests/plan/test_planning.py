"""A plan, on 8 CPU devices."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny

from tfm import params, plan, sharding, transformer
from tfm.config import Config, Data, Tokenizer, Train
from tfm.plan import candidates, compiled, decoding, planning, products, roofline, topology
from tfm.plan.hlo import Array
from tfm.plan.traffic import Collective
from tfm.transformer import Config as Model


@pytest.fixture(autouse=True)
def _quick(quick_compile):
    """The plans of these tests are looked at, not run."""


def small(**changes):
    c = Config(
        model=Model(d_model=32, heads=4, d_ff=64, encoder_layers=2, decoder_layers=3),
        tokenizer=Tokenizer(source_size=120, target_size=160),
        data=Data(rows=16, source_length=0, target_length=48),
        train=Train(loss_chunk=192),
        mesh=sharding.Mesh(fsdp=-1),
    )
    return tiny.change(c, **changes)


def hardware(gibibytes, count=8, name="toy"):
    """CPU devices with the figures of a made-up chip."""
    chip = topology.Chip("toy", int(gibibytes * 2**30), bandwidth=1e9, peak=1e10, ring=1e8)
    return topology.Topology(name, "cpu", chip, jax.devices("cpu")[:count])


CPU = hardware(1)


def by_hand(c):
    """FLOPs of an update's products: three times the forward pass's."""
    m, B, S, T = c.model, c.data.rows, c.data.source_length, c.data.target_length
    D, F = m.d_model, m.d_ff
    own = lambda t: t * (4 * D * D + 2 * t * D)  # noqa: E731
    encoder = own(S) + S * 2 * D * F
    cross = T * 2 * D * D + S * 2 * D * D + 2 * T * S * D
    decoder = own(T) + cross + T * 2 * D * F
    layers = m.encoder_layers * encoder + m.decoder_layers * decoder
    return 3 * 2 * B * (layers + T * D * c.model.target_vocab)


def test_an_update_on_eight_devices():
    made = plan.plan(small(), "cpu:8", decode_length=0)
    assert not made.refused and made.tried == ()
    assert set(made.assumed) == {
        "vocabularies of 120 and 160 pieces (tokenizer)",
        "data.source_length 48, which the data would set",
    }
    found, c = made.found, made.asked
    assert (c.model.dtype, c.model.source_vocab, c.data.source_length) == ("float32", 120, 48)
    assert (found.mesh, found.chips) == (sharding.Mesh(1, 8, 1, 1), 8)

    declared = jax.tree.leaves(transformer.declare(c.model), is_leaf=params.is_param)
    cut = [p for p in declared if "embed" in p.axes]
    size = lambda some: sum(np.prod(p.shape) for p in some)  # noqa: E731
    own = 4 * (size(cut) / 8 + size(declared) - size(cut))
    assert found.memory.parameters == own
    assert found.memory.optimizer == pytest.approx(2 * own, rel=0.01)  # and counters
    assert found.memory.average == 0
    assert found.memory.total > 3 * own + found.memory.temporary

    assert found.model_flops * 8 == pytest.approx(by_hand(c), rel=0.01)
    assert found.work.flops == found.model_flops
    # Every parameter that is cut is made whole at least once, and is never larger than it is.
    gathered = [e for e in found.collectives if e.kind == "all-gather"]
    assert sum(e.sent for e in gathered) > 7 * 4 * size(cut) / 8
    assert not found.logits_gathered


def test_recomputing_is_counted_apart_from_the_models_own_work():
    c, _ = compiled.complete(small(train={"accumulate": 2}), hardware(1))
    assert compiled.model_flops(c) == pytest.approx(by_hand(c), rel=0.01)
    full = dataclasses.replace(c, model=dataclasses.replace(c.model, remat="full"))
    assert compiled.model_flops(full) == compiled.model_flops(c)
    done = products.flops(compiled.trace(full).jaxpr.jaxpr)
    logits = 3 * 2 * c.data.rows * 48 * 32 * 160
    again = (done - by_hand(c)) / (by_hand(c) - logits)
    assert 1 / 4 < again < 1 / 3  # a layer's last product is not needed again


def test_a_search_on_every_device():
    c, _ = compiled.complete(tiny.change(small(), decode={"beam_size": 3, "batch_size": 4}), CPU)
    made = decoding.compile_search(c, CPU, length=16)
    assert (made.sentences, made.length, made.steps, made.beam) == (4, 16, 42, 3)
    weights = transformer.declare(c.model)
    assert made.weights == 4 * params.count(weights) < made.total

    B, R, S, T, D, F, V = 4, 3, 16, 42, 32, 64, 160
    encoder = 2 * (4 * D * D + 2 * S * D + 2 * D * F) + 3 * 2 * D * D  # and the cross-keys
    assert made.start.flops == 2 * B * S * encoder
    decoder = 3 * (6 * D * D + 2 * T * R * D + 2 * S * D + 2 * D * F) + D * V
    assert made.step.flops == 2 * B * R * decoder
    # A step reads the decoder's weights, the output table and both caches, at least.
    caches = 3 * 2 * B * (T * R + S) * D
    read = params.count(weights["decoder"]) - 3 * 2 * (D + 1) * D + V * D + caches
    assert made.step.moved > 4 * read
    assert made.step.moved > made.start.moved / 42


@pytest.fixture
def chips_of(monkeypatch):
    """``chips_of(gibibytes)``: compiling needs 1 GiB, less on an fsdp mesh or with remat."""

    def compile_update(c, topology):
        mesh = sharding.resolve(c.mesh, 8)
        needed = 1.0 / (1 + (mesh.fsdp == 8) + 2 * (c.model.remat == "dots"))
        if needed * 2**30 > topology.chip.memory:
            raise compiled.TooLarge(f"needs {needed:.2f} GiB")
        memory = compiled.Memory(0.1, 0.2, 0.0, 0.1, needed * 2**30)
        work = roofline.Work(1e9, 1e6, 0.0)
        return compiled.Compiled(c, mesh, memory, work, 1e9, (), 1e3, (), 1.0)

    def use(gibibytes):
        monkeypatch.setattr(planning, "compile_update", compile_update)
        monkeypatch.setattr(planning, "find", lambda _: hardware(gibibytes))
        monkeypatch.setattr(planning, "model_flops", by_hand)

    return use


def test_what_fits_is_not_changed(chips_of):
    chips_of(1.0)
    made = plan.plan(small(mesh={"fsdp": 1}), "toy", decode_length=0)
    assert (
        made.refused == ""
        and made.decoding is None
        and made.found.c == made.asked
        and made.tried == ()
    )


def test_too_large_a_model_is_refused_with_the_cheapest_that_fits(chips_of):
    chips_of(0.6)
    made = plan.plan(small(mesh={"fsdp": 1}), "toy", decode_length=0)
    assert made.refused == "needs 1.00 GiB"
    assert made.found.memory.total <= 0.6 * 2**30
    text = plan.describe(made, epoch_tokens=1e6)
    assert "DOES NOT FIT as configured: needs 1.00 GiB" in text
    flags = candidates.changes(made.asked, made.found.c)
    assert flags and f"the cheapest that fits: --topology toy {flags}" in text
    assert "chip-hours an epoch" in text and "8 x toy, 0.6 GiB each" in text

    cost = lambda c: candidates.expected_seconds(c, hardware(1).chip, by_hand(made.asked))  # noqa: E731
    order = candidates.candidates(made.asked, hardware(1), by_hand(made.asked))
    assert [cost(c) for c in order] == sorted(map(cost, order))
    assert all(cost(other) >= cost(made.found.c) for other in order[order.index(made.found.c) :])


def test_nothing_that_fits(chips_of):
    chips_of(0.1)
    made = plan.plan(small(mesh={"fsdp": 1}), "toy", tries=3, decode_length=0)
    assert made.found is None and len(made.tried) == 3
    text = plan.describe(made)
    assert text.count("nor toy --") == 3
    assert "nothing tried fits toy; the largest obstacle: weights, their gradients" in text
    assert text.endswith("take more chips, fewer rows (data.rows) or a smaller model")


def test_where_nothing_fits_a_larger_slice_is_named(chips_of, monkeypatch):
    chips_of(0.1)
    there = {"toy": 0.1, "toys": 0.1, "more": 0.9}
    monkeypatch.setattr(planning, "find", lambda name: hardware(there[name], name=name))
    monkeypatch.setattr(planning, "larger", lambda _: ["toys", "more", "most"])
    made = plan.plan(small(), "toy", tries=2, decode_length=0)
    assert (made.topology.name, made.hardware.name) == ("toy", "more")
    assert [flags.split()[0] for flags, _ in made.tried] == ["toy", "toy", "toys", "toys"]
    text = plan.describe(made)
    assert "nothing tried fits toy; the largest obstacle" in text
    assert (
        f"a larger slice that fits: --topology more {candidates.changes(made.asked, made.found.c)}"
        in text
    )


def test_a_mesh_for_more_chips_than_there_are_is_replaced(chips_of):
    chips_of(0.6)
    made = plan.plan(small(mesh={"fsdp": 16}), "toy", decode_length=0)
    assert made.refused == "mesh: fsdp 16 wants 16 devices, there are 8"
    assert made.found.chips == 8


@pytest.mark.parametrize("platform", ["tpu", "gpu", "cpu"])
def test_what_takes_more_than_there_is_does_not_fit_whatever_the_compiler_says(platform):
    stats = SimpleNamespace(
        argument_size_in_bytes=8, output_size_in_bytes=6, alias_size_in_bytes=5,
        temp_size_in_bytes=4, generated_code_size_in_bytes=3,
    )  # fmt: skip
    program = SimpleNamespace(memory_analysis=lambda: stats)
    there = dataclasses.replace(CPU, platform=platform, chip=topology.Chip("toy", 16))
    assert compiled.held_at_once(program, there) == 16
    small = dataclasses.replace(there, chip=topology.Chip("toy", 15))
    with pytest.raises(compiled.TooLarge):
        compiled.held_at_once(program, small)


def test_the_least_that_a_chip_holds():
    """The state as the plan itself counts it, and gradients like the weights."""
    c, _ = compiled.complete(small(train={"ema": 0.9}), CPU)
    state, kept = candidates.least_bytes(c, 8)
    own = params.count(transformer.declare(c.model)) / 8
    assert state == 4 * 5 * own  # weights, gradients, two moments, the average
    assert candidates.least_bytes(tiny.change(c, train={"accumulate": 2}), 8) == (state, kept / 2)


def test_what_is_tried_keeps_the_batch_and_divides_the_sizes():
    config, _ = compiled.complete(small(), hardware(1))
    tried = candidates.candidates(config, hardware(1), 1e9)
    assert {c.mesh.tensor for c in tried} == {1, 2, 4}  # four heads
    assert {c.model.remat for c in tried} == {"none", "dots", "full"}
    for c in tried:
        assert c.data == config.data
        assert c.data.rows % (c.mesh.data * c.mesh.fsdp * c.train.accumulate) == 0
    at = lambda remat, accumulate: tiny.change(  # noqa: E731
        config, model={"remat": remat}, train={"accumulate": accumulate}
    )
    assert candidates.needs_more(at("none", 1), at("dots", 2))
    assert not candidates.needs_more(at("full", 1), at("dots", 1))
    assert not candidates.needs_more(at("none", 2), at("full", 1))


def test_the_roofline_is_the_slowest_limit():
    chip = topology.Chip("toy", 2**30, bandwidth=1e9, peak=1e10, ring=1e8, clock=1e6)
    one = Collective("all-reduce", (Array("f32", (1000, 500), False),), 2, times=3)
    work = roofline.Work(flops=4e9, moved=5e8, cycles=2e6, sent=one.sent)
    times = roofline.times(work, chip)
    assert (times.compute, times.memory, times.links, times.estimate) == (0.4, 0.5, 0.06, 2.0)
    assert (times.step, times.limit) == (0.5, "memory")
    assert roofline.share_of_peak(3e9, chip, times.step) == 0.6
    assert roofline.times(work, topology.Chip("unknown", 2**30)) is None


@pytest.mark.parametrize(
    ("shape", "logits"),
    [((160, 32), False), ((160, 16), False), ((1, 160, 32), False), ((16, 48, 160), True),
     ((40, 16), False), ((96, 40), True), ((160,), False), ((16, 48, 32), False)],
)  # fmt: skip
def test_logits_are_told_from_tables(shape, logits):
    c, _ = compiled.complete(small(), hardware(1))
    layout = sharding.Layout(sharding.make(sharding.Mesh(fsdp=2, tensor=4)))
    one = Collective("all-gather", (Array("f32", shape, False),), 8, 1)
    assert compiled.holds_logits(one, c, layout) == logits


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5:2x4", "did you mean 'v5"),
        ("v5e:8", "say v5e:2x4"),
        ("v5e", "say v5e:2x4"),
        ("cpu:2x4", "say cpu:8"),
        ("cpu:64", "started with 8 CPU devices"),
        ("gpu:8", "only where one is"),
    ],
)
def test_hardware_that_there_is_not(name, message):
    with pytest.raises(ValueError, match=message):
        topology.find(name)


def test_a_missing_tpu_compiler_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install 'tfm\[tpu\]'"):
        topology.find("v5e:2x4")


def test_the_command(command, tmp_path):
    c = tiny.change(tiny.config(tmp_path), mesh={"data": -1})
    file = tiny.experiment(tmp_path, c)
    code, out, _ = command("plan", file, "--topology", "cpu:8", "--mesh.fsdp", "2")
    text = out.decode()
    assert code == 0
    assert "mesh data 4 x fsdp 2 x tensor 1 x sequence 1" in text
    assert "logits exchanged: none" in text and "no time is predicted" in text
    code, _, err = command("plan", file, "--topology", "v9:2x2")
    assert code == 1 and "no hardware 'v9'" in err
