"""``tfm plan`` on 8 CPU devices."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny

from tfm import params, plan, sharding, transformer
from tfm.config import Config, Data, Tokenizer, Train
from tfm.plan import candidates, compiled, decoding, flops, planning, roofline, topology
from tfm.plan.hlo import Array
from tfm.plan.traffic import Collective
from tfm.transformer import Architecture


@pytest.fixture(autouse=True)
def _quick(quick_compile):
    """These tests look at compiled programs and run none."""


def small(**changes):
    experiment = Config(
        model=Architecture(d_model=32, heads=4, d_ff=64, encoder_layers=2, decoder_layers=3),
        tokenizer=Tokenizer(source_size=120, target_size=160),
        data=Data(rows=16, source_length=0, target_length=48),
        train=Train(loss_chunk=192),
        mesh=sharding.Mesh(fsdp=-1),
    )
    return tiny.change(experiment, **changes)


def hardware(gibibytes, count=8, name="toy"):
    """CPU devices as an invented chip with so many GiB of memory."""
    chip = topology.Chip(
        "toy", int(gibibytes * 2**30), bandwidth=1e9, peak_flops=1e10, ring_bandwidth=1e8
    )
    return topology.Topology(name, "cpu", chip, jax.devices("cpu")[:count])


CPU = hardware(1)


def update_flops(experiment):
    """FLOPs of an update's matrix products, from the sizes: three times the forward pass's."""
    arch, data = experiment.model, experiment.data
    B, S, T = data.rows, data.source_length, data.target_length
    D, F = arch.d_model, arch.d_ff
    own = lambda t: t * (4 * D * D + 2 * t * D)  # noqa: E731
    encoder = own(S) + S * 2 * D * F
    cross = T * 2 * D * D + S * 2 * D * D + 2 * T * S * D
    decoder = own(T) + cross + T * 2 * D * F
    layers = arch.encoder_layers * encoder + arch.decoder_layers * decoder
    return 3 * 2 * B * (layers + T * D * arch.target_vocab)


def test_an_update_on_eight_devices():
    made = plan.plan(small(), "cpu:8", decode_length=0)
    assert not made.refused and made.tried == ()
    assert set(made.assumed) == {
        "vocabularies of 120 and 160 pieces (tokenizer)",
        "data.source_length 48, which the data would set",
    }
    found, asked = made.found, made.asked
    assert (asked.execution.dtype, asked.model.source_vocab) == ("float32", 120)
    assert asked.data.source_length == 48
    assert (found.mesh, found.chips) == (sharding.Mesh(1, 8, 1, 1), 8)

    declared = jax.tree.leaves(transformer.declare(asked.model), is_leaf=params.is_param)
    sharded = [p for p in declared if "embed" in p.axes]
    size = lambda some: sum(np.prod(p.shape) for p in some)  # noqa: E731
    per_chip = 4 * (size(sharded) / 8 + size(declared) - size(sharded))
    assert found.memory.parameters == per_chip
    assert found.memory.optimizer == pytest.approx(2 * per_chip, rel=0.01)  # and counters
    assert found.memory.average == 0
    assert found.memory.total > 3 * per_chip + found.memory.temporary

    assert found.model_flops * 8 == pytest.approx(update_flops(asked), rel=0.01)
    assert found.work.flops == found.model_flops
    # Every sharded parameter is gathered at least once.
    gathered = [e for e in found.collectives if e.kind == "all-gather"]
    assert sum(e.sent_bytes for e in gathered) > 7 * 4 * size(sharded) / 8
    assert not found.logits_exchanged


def test_model_flops_do_not_include_recomputation():
    experiment, _ = compiled.complete(small(train={"accumulate": 2}), hardware(1))
    assert compiled.model_flops(experiment) == pytest.approx(update_flops(experiment), rel=0.01)
    full = tiny.change(experiment, execution={"remat": "full"})
    assert compiled.model_flops(full) == compiled.model_flops(experiment)
    done = flops.count(compiled.trace(full).jaxpr.jaxpr)
    logits = 3 * 2 * experiment.data.rows * 48 * 32 * 160
    layers = update_flops(experiment) - logits
    repeated = (done - update_flops(experiment)) / layers
    assert 1 / 4 < repeated < 1 / 3  # the last product of a layer is not needed again


def test_a_search_on_one_device():
    experiment = tiny.change(small(), decode={"beam_size": 3, "batch_size": 4})
    experiment, _ = compiled.complete(experiment, CPU)
    found = decoding.compile_search(experiment, CPU, length=16)
    assert (found.sentences, found.length, found.max_tokens, found.beam) == (4, 16, 42, 3)
    weights = transformer.declare(experiment.model)
    assert found.weights == 4 * params.count(weights) < found.total

    B, R, S, T, D, F, V = 4, 3, 16, 42, 32, 64, 160
    encoder = 2 * (4 * D * D + 2 * S * D + 2 * D * F) + 3 * 2 * D * D  # and cross-attention's K, V
    assert found.prefill.flops == 2 * B * S * encoder
    decoder = 3 * (6 * D * D + 2 * T * R * D + 2 * S * D + 2 * D * F) + D * V
    assert found.step.flops == 2 * B * R * decoder
    # A step reads at least the decoder's weights, the output table and both caches.
    caches = 3 * 2 * B * (T * R + S) * D
    read = params.count(weights["decoder"]) - 3 * 2 * (D + 1) * D + V * D + caches
    assert found.step.memory_bytes > 4 * read
    assert found.step.memory_bytes > found.prefill.memory_bytes / 42


def test_a_search_with_sharded_weights():
    """The work of one chip is its share, and the activations of a step are exchanged."""
    mesh = {"data": 2, "fsdp": 2, "tensor": 2}
    experiment = tiny.change(small(), decode={"beam_size": 3, "batch_size": 4}, mesh=mesh)
    experiment, _ = compiled.complete(experiment, CPU)
    alone = decoding.compile_search(experiment, CPU, length=16)
    found = decoding.compile_search(experiment, CPU, length=16, sharded=True)
    assert (alone.mesh, found.mesh) == (None, sharding.Mesh(**mesh, sequence=1))
    assert found.sentences == 4
    assert alone.weights / 4 <= found.weights < alone.weights / 3  # norms stand on every chip
    assert found.step.flops == alone.step.flops / 8
    assert alone.step.sent_bytes == 0 < found.step.sent_bytes < found.step.memory_bytes


@pytest.fixture
def chips_of(monkeypatch):
    """``chips_of(gibibytes)`` sets the chips' memory and replaces the compiler by a formula: an
    update needs 1 GiB, less on an fsdp mesh or with remat.
    """

    def compile_update(experiment, topology):
        mesh = sharding.resolve(experiment.mesh, 8)
        remat = experiment.execution.remat == "dots"
        needed = 1.0 / (1 + (mesh.fsdp == 8) + 2 * remat)
        if needed * 2**30 > topology.chip.memory:
            raise compiled.TooLarge(f"needs {needed:.2f} GiB")
        memory = compiled.Memory(0.1, 0.2, 0.0, 0.1, needed * 2**30)
        work = roofline.Work(1e9, 1e6, 0.0)
        return compiled.Compiled(experiment, mesh, memory, work, 1e9, (), 1e3, (), 1.0)

    def use(gibibytes):
        monkeypatch.setattr(planning, "compile_update", compile_update)
        monkeypatch.setattr(planning, "find", lambda _: hardware(gibibytes))
        monkeypatch.setattr(planning, "model_flops", update_flops)

    return use


def test_a_config_that_fits_is_not_changed(chips_of):
    chips_of(1.0)
    made = plan.plan(small(mesh={"fsdp": 1}), "toy", decode_length=0)
    assert (made.refused, made.decoding, made.tried) == ("", None, ())
    assert made.found.experiment == made.asked


def test_a_config_that_does_not_fit_is_answered_with_the_fastest_that_does(chips_of):
    chips_of(0.6)
    made = plan.plan(small(mesh={"fsdp": 1}), "toy", decode_length=0)
    assert made.refused == "needs 1.00 GiB"
    assert made.found.memory.total <= 0.6 * 2**30
    text = plan.describe(made, epoch_tokens=1e6)
    assert "DOES NOT FIT as configured: needs 1.00 GiB" in text
    flags = candidates.flags(made.asked, made.found.experiment)
    assert flags and f"the fastest that fits: --topology toy {flags}" in text
    assert "chip-hours an epoch" in text and "8 x toy, 0.6 GiB each" in text

    order = candidates.candidates(made.asked, hardware(1), update_flops(made.asked))
    chip = hardware(1).chip
    seconds = [candidates.expected_seconds(c, chip, update_flops(made.asked)) for c in order]
    assert seconds == sorted(seconds)
    assert made.found.experiment in order


def test_nothing_fits(chips_of):
    chips_of(0.1)
    made = plan.plan(small(mesh={"fsdp": 1}), "toy", tries=3, decode_length=0)
    assert made.found is None and len(made.tried) == 3
    text = plan.describe(made)
    assert text.count("nor toy --") == 3
    assert "nothing tried fits toy; the largest obstacle: weights, their gradients" in text
    assert text.endswith("take more chips, fewer rows (data.rows) or a smaller model")


def test_if_nothing_fits_a_larger_slice_is_named(chips_of, monkeypatch):
    chips_of(0.1)
    memory = {"toy": 0.1, "toys": 0.1, "more": 0.9}
    monkeypatch.setattr(planning, "find", lambda name: hardware(memory[name], name=name))
    monkeypatch.setattr(planning, "larger_slices", lambda _: ["toys", "more", "most"])
    made = plan.plan(small(), "toy", tries=2, decode_length=0)
    assert (made.topology.name, made.hardware.name) == ("toy", "more")
    assert [flags.split()[0] for flags, _ in made.tried] == ["toy", "toy", "toys", "toys"]
    text = plan.describe(made)
    assert "nothing tried fits toy; the largest obstacle" in text
    flags = candidates.flags(made.asked, made.found.experiment)
    assert f"a larger slice that fits: --topology more {flags}" in text


def test_a_mesh_for_more_chips_than_there_are_is_replaced(chips_of):
    chips_of(0.6)
    made = plan.plan(small(mesh={"fsdp": 16}), "toy", decode_length=0)
    assert made.refused == "mesh: fsdp 16 wants 16 devices, there are 8"
    assert made.found.chips == 8


@pytest.mark.parametrize("platform", ["tpu", "gpu", "cpu"])
def test_a_program_larger_than_memory_does_not_fit_even_if_the_compiler_accepts_it(platform):
    stats = SimpleNamespace(
        argument_size_in_bytes=8, output_size_in_bytes=6, alias_size_in_bytes=5,
        temp_size_in_bytes=4, generated_code_size_in_bytes=3,
    )  # fmt: skip
    enough = dataclasses.replace(CPU, platform=platform, chip=topology.Chip("toy", 16))
    assert compiled.total_bytes(stats, enough) == 16
    too_small = dataclasses.replace(enough, chip=topology.Chip("toy", 15))
    with pytest.raises(compiled.TooLarge):
        compiled.total_bytes(stats, too_small)


def test_least_bytes_count_state_and_gradients():
    experiment, _ = compiled.complete(small(train={"ema": 0.9}), CPU)
    state, saved = candidates.least_bytes(experiment, 8)
    weights = params.count(transformer.declare(experiment.model)) / 8
    assert state == 4 * 5 * weights  # weights, gradients, two moments, the average
    halved = tiny.change(experiment, train={"accumulate": 2})
    assert candidates.least_bytes(halved, 8) == (state, saved / 2)


def test_candidates_keep_the_batch_and_divide_the_sizes():
    experiment, _ = compiled.complete(small(), hardware(1))
    tried = candidates.candidates(experiment, hardware(1), 1e9)
    assert {c.mesh.tensor for c in tried} == {1, 2, 4}  # four heads
    assert {c.execution.remat for c in tried} == {"none", "dots", "full"}
    for c in tried:
        assert c.data == experiment.data
        assert c.data.rows % (c.mesh.data * c.mesh.fsdp * c.train.accumulate) == 0
    with_ = lambda remat, accumulate: tiny.change(  # noqa: E731
        experiment, execution={"remat": remat}, train={"accumulate": accumulate}
    )
    assert candidates.needs_no_less(with_("none", 1), with_("dots", 2))
    assert not candidates.needs_no_less(with_("full", 1), with_("dots", 1))
    assert not candidates.needs_no_less(with_("none", 2), with_("full", 1))


def test_the_roofline_is_the_time_of_the_slowest_resource():
    chip = topology.Chip(
        "toy", 2**30, bandwidth=1e9, peak_flops=1e10, ring_bandwidth=1e8, clock=1e6
    )
    one = Collective("all-reduce", (Array("f32", (1000, 500), False),), 2, times=3)
    work = roofline.Work(flops=4e9, memory_bytes=5e8, cycles=2e6, sent_bytes=one.sent_bytes)
    times = roofline.times(work, chip)
    assert (times.compute, times.memory, times.interconnect) == (0.4, 0.5, 0.06)
    assert (times.compiler, times.bound, times.bottleneck) == (2.0, 0.5, "memory")
    assert roofline.utilization(3e9, chip, times.bound) == 0.6
    assert roofline.times(work, topology.Chip("unknown", 2**30)) is None


@pytest.mark.parametrize(
    ("shape", "logits"),
    [((160, 32), False), ((160, 16), False), ((1, 160, 32), False), ((16, 48, 160), True),
     ((40, 16), False), ((96, 40), True), ((160,), False), ((16, 48, 32), False)],
)  # fmt: skip
def test_logits_are_distinguished_from_tables(shape, logits):
    experiment, _ = compiled.complete(small(), hardware(1))
    layout = sharding.Layout(sharding.make(sharding.Mesh(fsdp=2, tensor=4)))
    one = Collective("all-gather", (Array("f32", shape, False),), 8, 1)
    assert compiled.carries_logits(one, experiment, layout) == logits


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5:2x4", "did you mean 'v5"),
        ("v5e:8", "try v5e:2x4"),
        ("v5e", "try v5e:2x4"),
        ("cpu:2x4", "try cpu:8"),
        ("cpu:64", "started with 8 CPU devices"),
        ("gpu:8", "only on a machine that has one"),
    ],
)
def test_unknown_hardware(name, message):
    with pytest.raises(ValueError, match=message):
        topology.find(name)


def test_a_missing_tpu_compiler_is_an_error_with_the_package_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"pip install 'tfm\[tpu\]'"):
        topology.find("v5e:2x4")


def test_the_command(command, tmp_path):
    experiment = tiny.change(tiny.config(tmp_path), mesh={"data": -1})
    file = tiny.experiment(tmp_path, experiment)
    code, out, _ = command("plan", file, "--topology", "cpu:8", "--mesh.fsdp", "2")
    text = out.decode()
    assert code == 0
    assert "mesh data 4 x fsdp 2 x tensor 1 x sequence 1" in text
    assert "logits exchanged: none" in text and "no time is predicted" in text
    code, _, err = command("plan", file, "--topology", "v9:2x2")
    assert code == 1 and "unknown hardware 'v9'" in err
