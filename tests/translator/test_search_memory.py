"""A search that cannot fit is refused before it is compiled, with the most that fits."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest

import tfm
from tfm import memory, params, transformer
from tfm.decoding import Decode
from tfm.transformer import Architecture, Execution
from tfm.translator import programs, search_memory

pytestmark = pytest.mark.usefixtures("quick_compile")

SMALL = {"source_vocab": 50, "target_vocab": 50, "d_model": 32, "heads": 4, "d_ff": 64}
LAYERS = {"encoder_layers": 1, "decoder_layers": 2}


@pytest.mark.parametrize(
    ("changes", "decode"),
    [
        ({}, Decode(beam_size=32)),
        ({"target_vocab": 9000}, Decode(beam_size=4)),
        ({"kv_heads": 1, "positions": "learned:max_length=16"}, Decode(beam_size=16)),
        ({"attention": "linear"}, Decode(beam_size=32)),
        ({}, Decode("sample", samples=32)),
    ],
)
def test_the_estimate_is_near_what_the_compiler_takes(changes, decode):
    arch, execution = Architecture(**SMALL | LAYERS | changes), Execution(unroll=1)
    B, S = 8, 16
    trained = params.abstract(transformer.declare(arch))
    weights = jax.eval_shape(lambda w: transformer.inference_params(w, arch, execution), trained)
    arrays = [jax.ShapeDtypeStruct((B, S), jnp.int32)]
    if decode.strategy == "sample":
        arrays.append(jax.ShapeDtypeStruct((B,), jnp.uint32))
    search = functools.partial(programs.search, arch=arch, decode=decode, execution=execution)
    compiled = jax.jit(search).lower(weights, *arrays).compile()
    taken = compiled.memory_analysis().temp_size_in_bytes
    estimate = search_memory.search_bytes(arch, decode, B, S, itemsize=4)
    assert 0.4 * taken < estimate < 1.05 * taken


def refusal(decode, sentences, available, **changes):
    arch = Architecture(**SMALL | LAYERS | changes)
    with pytest.raises(ValueError) as raised:
        search_memory.require(arch, decode, sentences, 24, 4, available)
    return str(raised.value), arch


def test_the_message_has_the_most_that_fits():
    decode = Decode(beam_size=10_000)
    message, arch = refusal(decode, 64, 2**30)
    assert re.match(
        r"decode\.beam_size 10000: searching 64 sentence\(s\) of 24 tokens needs at least "
        r"[\d,.]+ GiB of memory, where 1\.0 GiB are free: lower beam_size to \d+$",
        message,
    ), message
    beam = int(message.split()[-1])
    search_memory.require(arch, Decode(beam_size=beam), 64, 24, 4, 2**30)
    with pytest.raises(ValueError, match=f"beam_size to {beam}"):
        search_memory.require(arch, Decode(beam_size=beam + 1), 64, 24, 4, 2**30)


def test_the_message_has_the_batch_that_fits():
    message, arch = refusal(Decode(beam_size=100), 64, 2**28)
    batch = int(message.split()[-1])
    assert message.endswith(f" or batch_size to {batch}")
    search_memory.require(arch, Decode(beam_size=100), batch, 24, 4, 2**28)
    message, _ = refusal(Decode("sample", samples=100), 64, 2**28)
    assert message.startswith("decode.samples 100: ") and "lower samples to " in message


def test_the_message_where_neither_helps():
    message, _ = refusal(Decode(beam_size=1, max_length_factor=1000.0), 1, 2**20)
    assert message.endswith("lower max_length_factor or max_length_offset")


def test_nothing_is_refused_where_memory_is_unknown_or_enough():
    arch = Architecture(**SMALL | LAYERS)
    search_memory.require(arch, Decode(beam_size=10_000), 64, 24, 4, None)
    search_memory.require(arch, Decode(), 64, 24, 4, 2**30)


def test_a_translator_refuses_before_it_compiles(tiny_run, monkeypatch):
    model = tfm.load(tiny_run)
    monkeypatch.setattr(memory, "free", lambda device: 2**20)
    with pytest.raises(ValueError, match=r"decode\.beam_size 5000: .*lower beam_size to \d+"):
        model.translate(["ab"], beam_size=5000)
    with pytest.raises(ValueError, match=r"decode\.beam_size 5000: "):
        model.check_memory(["ab"], beam_size=5000)
    with pytest.raises(ValueError, match=r"decode\.beam_size 5000: searching 1 sentence"):
        tfm.inspect.trace(model, "ab", beam_size=5000)
    assert model.compile_seconds == 0
