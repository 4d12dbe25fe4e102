"""What computes the attention of a model: the choice for every context, and its refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import masks, sharding, transformer
from tfm.attention import kernels
from tfm.transformer import Architecture, Execution
from tfm.transformer.kernels import choose, describe

pytestmark = pytest.mark.usefixtures("quick_compile")

ARCH = Architecture(source_vocab=9, target_vocab=9, d_model=16, heads=2)
NO_KERNEL = "there is no kernel for the cpu"


@pytest.mark.parametrize(
    ("fields", "kernel", "message"),
    [
        ({"positions": "shaw"}, "splash", "positions='shaw'.*splash takes no"),
        ({"positions": "t5"}, "splash", "positions='t5'.*splash takes no bias"),
        ({"attention": "local"}, "cudnn", "attention='local'.*over whole rows"),
        ({"cross_attention": "additive"}, "splash", "cross_attention='additive'.*whole rows"),
        ({"attention_dropout": 0.1}, "cudnn", "attention_dropout=0.1.*no dropout"),
        ({"soft_cap": 5.0}, "cudnn", "soft_cap=5.0.*cudnn has no soft cap"),
    ],
)
def test_a_kernel_that_cannot_compute_the_model_is_refused(fields, kernel, message):
    with pytest.raises(ValueError, match=message):
        transformer.validate(dataclasses.replace(ARCH, **fields), Execution(implementation=kernel))


def test_an_execution_that_can_compute_the_model_is_accepted():
    splash = Execution(implementation="splash", dtype="float32")
    transformer.validate(ARCH, splash)
    transformer.validate(dataclasses.replace(ARCH, soft_cap=5.0, positions="rotary"), splash)
    alibi = dataclasses.replace(ARCH, positions="alibi")
    transformer.validate(alibi, Execution(implementation="cudnn", dtype="bfloat16"))
    with pytest.raises(ValueError, match="'cudnn' with dtype='float32'"):
        transformer.validate(ARCH, Execution(implementation="cudnn", dtype="float32"))
    # The architecture is checked too, with or without an execution.
    for execution in ((), (splash,)):
        with pytest.raises(ValueError, match="heads 0: must be from 1"):
            transformer.validate(dataclasses.replace(ARCH, heads=0), *execution)


def test_the_choice_depends_on_kind_positions_and_dropout(monkeypatch):
    arch, execution = Architecture(), Execution()
    assert choose(arch, execution, "self", 64, 64) == ("xla", NO_KERNEL)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert choose(arch, execution, "self", 512, 512)[0] == "splash"
    assert choose(arch, execution, "step", 512, 512)[0] == "xla"
    dropped = Architecture(attention_dropout=0.1)
    assert choose(dropped, execution, "self", 512, 512)[0] == "xla"
    assert choose(dropped, execution, "self", 512, 512, training=False)[0] == "splash"
    # Positions act on self-attention alone.
    alibi = Architecture(positions="alibi")
    assert choose(alibi, execution, "self", 512, 512)[0] == "xla"
    assert choose(alibi, execution, "cross", 512, 512)[0] == "splash"


def test_xla_computes_attention_whose_scores_are_kept(monkeypatch):
    """No kernel forms them."""
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    segments, positions = np.ones((1, 512), np.int32), np.arange(512)[None]
    for keep, kernel in ((False, "splash"), (True, "xla")):
        own = transformer.self_context({}, ARCH, segments, positions, causal=True, keep_scores=keep)
        cross = transformer.cross_context(ARCH, segments, segments, keep_scores=keep)
        assert own.kernel == cross.kernel == kernel
        np.testing.assert_array_equal(own.mask, masks.causal(512))


def test_a_run_describes_what_computes_each_attention(monkeypatch):
    arch, execution = Architecture(), Execution()
    assert describe(arch, execution, 64, 32) == f"attention computed by xla: {NO_KERNEL}"
    assert describe(Architecture(attention="local"), execution, 64, 32) == (
        "attention computed: encoder and decoder by xla: local attention has no kernel; "
        f"cross by xla: {NO_KERNEL}"
    )
    sharded = sharding.Layout(sharding.make(sharding.Mesh(data=4, sequence=2)))
    ring = "ring: rows are sharded over 2 devices"
    assert describe(arch, execution, 64, 32, sharded) == f"attention computed by {ring}"
    # Cross-attention has no positions, so the ring computes it alone.
    assert describe(Architecture(positions="alibi"), execution, 64, 32, sharded) == (
        f"attention computed: encoder and decoder by xla: {NO_KERNEL}; cross by {ring}"
    )
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert describe(arch, execution, 512, 640) == (
        "attention computed: encoder and cross by splash: 512 keys on the tpu; "
        "decoder by splash: 640 keys on the tpu"
    )


@pytest.mark.slow
def test_splash_on_a_mesh_gives_what_xla_gives(monkeypatch, draw, sentences, rng):
    """Hidden states and their gradients, with batch, heads and vocabulary sharded."""
    splash = functools.partial(kernels.splash, interpret=True)
    monkeypatch.setattr(kernels, "splash", splash)
    monkeypatch.setattr(kernels, "_obstacle", lambda *_: None)
    arch = Architecture(
        source_vocab=12, target_vocab=12, d_model=32, heads=4, kv_heads=2, d_ff=32, dropout=0.0,
        encoder_layers=1, decoder_layers=1,
    )  # fmt: skip
    pairs = [(100, 30), (7, 128), (128, 64), (1, 1)]
    batch = sentences(rng, pairs, source_width=128, target_width=128)
    weight = rng.normal(size=(4, 128, 32)).astype(np.float32)

    def run(name, layout):
        execution = Execution(implementation=name)

        def loss(params):
            hidden = transformer.forward(params, arch, batch, execution=execution, layout=layout)
            real = jnp.where(batch.target_segments[..., None] != 0, hidden, 0.0)
            return (real * weight).sum(), real

        return jax.jit(jax.grad(loss, has_aux=True))(draw(transformer.declare(arch)))

    sharded = sharding.Layout(sharding.make(sharding.Mesh(data=2, fsdp=2, tensor=2)))
    for got, expected in zip(
        *map(jax.tree.leaves, (run("splash", sharded), run("xla", sharding.NO_MESH))), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-4)
