import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import masks, positions, sharding, transformer
from tfm.attention import attend_heads_first, kernels

B, N, K, T, H = 2, 4, 2, 128, 16
SEGMENTS = jnp.asarray(
    np.stack([np.repeat([1, 2, 3, 0], [40, 30, 20, 38]), np.repeat([1, 0], [100, 28])])
)
WHERE = {
    "platform": "cpu", "dtype": jnp.bfloat16, "head_dim": 64, "queries": 512, "keys": 512,
}  # fmt: skip


def choose(asked="auto", needs=(), **where):
    return kernels.choose(asked, needs=needs, **WHERE | where)


def test_auto_picks_by_device_shape_and_scheme_and_says_why():
    assert choose() == ("xla", "there is no kernel for the cpu")
    assert choose(platform="gpu") == ("cudnn", "512 keys on the gpu")
    assert choose(platform="tpu") == ("splash", "512 keys on the tpu")
    for platform, changes, why in [
        ("gpu", {"keys": 128}, "rows of 128 keys are short"),
        ("gpu", {"dtype": jnp.float32}, "bfloat16 or float16, not float32"),
        ("gpu", {"head_dim": 20}, "multiples of 8 up to 128, not 20"),
        ("gpu", {"queries": 513}, "even lengths, not 513 and 512"),
        ("gpu", {"needs": {"relative"}}, "no score that depends on query and distance"),
        ("gpu", {"needs": {"dropout"}}, "no dropout"),
        ("tpu", {"needs": {"bias"}}, "no bias"),
        ("tpu", {"keys": 600}, "multiples of 128, not 512 and 600"),
    ]:
        name, reason = choose(platform=platform, **changes)
        assert name == "xla" and why in reason
    assert choose(platform="gpu", needs={"bias"})[0] == "cudnn"
    assert choose(platform="tpu", needs={"soft_cap"})[0] == "splash"


def test_what_is_asked_for_by_name_runs_or_is_an_error():
    assert choose("xla", platform="gpu") == ("xla", "as asked")
    assert choose("cudnn", platform="gpu", keys=64) == ("cudnn", "as asked")
    with pytest.raises(ValueError, match=r"splash runs on a tpu, this is a cpu.*'auto' or 'xla'"):
        choose("splash")
    with pytest.raises(ValueError, match="cudnn has no dropout"):
        choose("cudnn", {"dropout"}, platform="gpu")


def test_a_model_refuses_a_kernel_that_cannot_serve_it():
    sizes = {"source_vocab": 9, "target_vocab": 9, "d_model": 16, "heads": 2}
    for changes, why in [
        ({"positions": "shaw", "implementation": "splash"}, "positions='shaw'.*splash takes no"),
        ({"positions": "t5", "implementation": "splash"}, "positions='t5'.*splash takes no bias"),
        ({"attention": "local", "implementation": "cudnn"}, "attention='local'.*the whole row"),
        (
            {"attention_dropout": 0.1, "implementation": "cudnn"},
            "attention_dropout=0.1.*no dropout",
        ),
    ]:
        with pytest.raises(ValueError, match=why):
            transformer.declare(transformer.Config(**sizes, **changes))


def test_a_model_says_who_computes_its_attention():
    c = transformer.Config()
    assert transformer.implementation(c, 64, 64) == ("xla", "there is no kernel for the cpu")


def test_a_run_says_who_computes_each_attention(monkeypatch):
    c = transformer.Config()
    none = "there is no kernel for the cpu"
    assert transformer.computed(c, 64, 32) == f"attention computed by xla: {none}"
    local = transformer.Config(attention="local")
    assert transformer.computed(local, 64, 32) == (
        "attention computed: encoder and decoder by xla: local attention has no kernel; "
        f"cross by xla: {none}"
    )
    cut = sharding.Layout(sharding.make(sharding.Mesh(data=4, sequence=2)))
    ring = "a ring: rows are cut over 2 devices"
    assert transformer.computed(c, 64, 32, cut) == f"attention computed by {ring}"
    # Cross-attention has no positions, so the ring computes it alone.
    assert transformer.computed(transformer.Config(positions="alibi"), 64, 32, cut) == (
        f"attention computed: encoder and decoder by xla: {none}; cross by {ring}"
    )
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert transformer.computed(c, 512, 640) == (
        "attention computed: encoder and cross by splash: 512 keys on the tpu; "
        "decoder by splash: 640 keys on the tpu"
    )


@pytest.fixture
def qkv(rng):
    shapes = (B, N, T, H), (B, K, T, H), (B, K, T, H)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def dense(q, k, v, causal, **settings):
    mask = masks.segment(SEGMENTS, SEGMENTS)
    mask = mask & masks.causal(T) if causal else mask
    return attend_heads_first(q, k, v, mask=mask, **settings)[0]


@pytest.mark.parametrize("causal", [False, True])
def test_the_kernel_for_tpus_gives_what_xla_gives(rng, qkv, causal):
    """Its text, interpreted: packed sentences, padding, shared keys; gradients too."""
    mix = jnp.asarray(rng.normal(size=(B, N, T, H)), jnp.float32)

    def both(attend):
        return jax.value_and_grad(
            lambda *x: ((out := attend(*x)) * mix).sum() + 0 * out.sum(), (0, 1, 2)
        )

    kernel = lambda *x: kernels.splash(  # noqa: E731
        *x, SEGMENTS, SEGMENTS, causal=causal, soft_cap=2.0, interpret=True
    )
    ours = lambda *x: dense(*x, causal, soft_cap=2.0)  # noqa: E731
    np.testing.assert_allclose(kernel(*qkv), ours(*qkv), atol=3e-6)
    if causal:
        return
    for got, expected in zip(both(kernel)(*qkv)[1], both(ours)(*qkv)[1], strict=True):
        np.testing.assert_allclose(got, expected, atol=3e-5)


@pytest.mark.slow
def test_the_kernel_on_a_mesh_gives_what_xla_gives(monkeypatch, draw, sentences, rng):
    """Hidden states and their gradients with sentences, heads and vocabulary in parts."""
    splash = functools.partial(kernels.splash, interpret=True)
    monkeypatch.setattr(kernels, "splash", splash)
    monkeypatch.setattr(kernels, "_obstacle", lambda *_: None)
    sizes = {"d_model": 32, "heads": 4, "kv_heads": 2, "d_ff": 32, "dropout": 0.0}
    sizes |= {"encoder_layers": 1, "decoder_layers": 1, "source_vocab": 12, "target_vocab": 12}
    pairs = [(100, 30), (7, 128), (128, 64), (1, 1)]
    batch = sentences(rng, pairs, source_width=128, target_width=128)
    mix = rng.normal(size=(4, 128, 32)).astype(np.float32)

    def run(name, layout):
        c = transformer.Config(**sizes, implementation=name)

        def f(weights):
            hidden = transformer.forward(weights, c, batch, layout=layout)
            seen = jnp.where(batch["target_segments"][..., None] != 0, hidden, 0.0)
            return (seen * mix).sum(), seen

        return jax.jit(jax.grad(f, has_aux=True))(draw(transformer.declare(c)))

    there = sharding.Layout(sharding.make(sharding.Mesh(data=2, fsdp=2, tensor=2)))
    for got, expected in zip(
        *map(jax.tree.leaves, (run("splash", there), run("xla", sharding.NO_MESH))), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("causal", [False, True])
def test_jax_s_attention_as_cudnn_is_called_gives_what_ours_gives(qkv, causal):
    """By its XLA twin here: segments, a bias, and zeros where a row is empty."""
    bias = positions.alibi_bias(positions.side_by_side(T, T), N)
    got = kernels.flash(*qkv, SEGMENTS, SEGMENTS, causal=causal, bias=bias, implementation="xla")
    np.testing.assert_allclose(got, dense(*qkv, causal, bias=bias), atol=3e-6)
    assert np.all(np.asarray(got)[0, :, -38:] == 0)
