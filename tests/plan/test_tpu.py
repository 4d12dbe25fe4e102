"""Plans by the real TPU compiler; they need the extra ``tfm[tpu]`` and no TPU."""

import jax
import pytest
import tiny

from tfm import plan, sharding
from tfm.config import Config, Data, Tokenizer, Train
from tfm.plan import compiled, topology
from tfm.transformer import Architecture, Execution

pytestmark = pytest.mark.slow
pytest.importorskip("libtpu", reason="the TPU compiler is not installed: pip install 'tfm[tpu]'")

CONFIG = Config(
    model=Architecture(d_model=1024, heads=8, d_ff=1024, encoder_layers=1, decoder_layers=1),
    execution=Execution(unroll=1),
    tokenizer=Tokenizer(source_size=256, target_size=384),
    data=Data(rows=16, source_length=256, target_length=256),
    train=Train(loss_chunk=512),
    mesh=sharding.Mesh(fsdp=-1),
)


@pytest.fixture(autouse=True)
def precise_products_off():
    """As in a run: the suite's high precision is for CPUs, and the splash kernel has none."""
    with jax.default_matmul_precision("default"):
        yield


def update(**changes):
    """The update, compiled for eight chips."""
    hardware = topology.find("v5e:2x4")
    experiment, _ = compiled.complete(tiny.change(CONFIG, **changes), hardware)
    return compiled.compile_update(experiment, hardware)


def test_an_experiment_is_planned_and_one_too_large_is_refused():
    made = plan.plan(tiny.change(CONFIG, execution={"remat": "dots"}), "v5e:2x4")
    assert made.refused == made.decoding_refused == ""
    assert made.asked.execution.dtype == "bfloat16"
    found, chip = made.found, made.topology.chip
    assert 0 < found.memory.temporary < found.memory.total < chip.memory
    assert 0 < found.model_flops < found.work.flops  # remat computes the scores again
    assert found.work.cycles > 0 and found.work.memory_bytes > found.memory.parameters
    assert {e.group for e in found.collectives} == {8} and not found.logits_exchanged
    logits = 16 * 256 * 384 * 4
    assert max(e.largest.bytes for e in found.collectives) < logits / 2
    search = made.decoding
    assert 0 < search.step.memory_bytes < search.prefill.memory_bytes + search.weights
    text = plan.describe(made)
    assert "of peak" in text and "tokens/s on 8 chips" in text

    wide = {"d_model": 8192, "heads": 64, "d_ff": 65536, "encoder_layers": 24, "decoder_layers": 24}
    large = plan.plan(tiny.change(CONFIG, model=wide), "v5e:2x2", tries=0, decode_length=0)
    assert "alone takes" in large.refused and large.found is None
    assert (
        "nothing tried fits v5e:2x2; the largest obstacle: weights, their gradients"
        in plan.describe(large)
    )


def test_the_splash_kernel_on_a_mesh():
    """Rows and heads are sharded, each shard has its kernel, and the kernels' work is counted."""
    small = {"d_model": 256, "heads": 4}
    kernel, plain = (
        update(
            model=small,
            execution={"implementation": name},
            mesh={"data": 2, "fsdp": 2, "tensor": 2},
            train={"accumulate": 2},
        )
        for name in ("splash", "xla")
    )
    assert kernel.model_flops == plain.model_flops
    # Forward the products are the same; both backward kernels compute the scores again.
    assert plain.work.flops < kernel.work.flops < 2 * plain.work.flops
    assert kernel.memory.temporary < plain.memory.temporary  # it keeps no scores
    assert not kernel.logits_exchanged


def test_ring_attention_in_the_update():
    found = update(model={"d_model": 512, "heads": 4}, mesh={"fsdp": 4, "sequence": 2})
    hops = [e for e in found.collectives if e.kind == "collective-permute"]
    assert {e.group for e in found.collectives} >= {2}
    assert hops and not found.logits_exchanged
