"""Fields of the architecture that other toolkits' models need: what each means, and refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import layers, positions, transformer
from tfm.training.loss import cross_entropy
from tfm.transformer import Architecture

pytestmark = pytest.mark.usefixtures("quick_compile")

V, B, S, T = 11, 2, 5, 4
ARCH = Architecture(
    source_vocab=V, target_vocab=V, d_model=8, heads=2, d_ff=12, encoder_layers=1,
    decoder_layers=2, dropout=0.0,
)  # fmt: skip
VARIANTS = {
    "geglu": {"activation": "geglu", "ff_bias": True},
    "reglu": {"activation": "reglu"},
    "gelu_exact": {"activation": "gelu_exact", "ff_bias": False},
    "silu": {"activation": "silu", "norm_epsilon": 0.01},
    "post": {"norm_placement": "post", "final_norm": True, "embedding_norm": True},
    "scales": {"embedding_scale": 1.0, "attention_scale": 1.0, "output_scale": 0.3},
    "width": {"head_dim": 7, "output_bias": True, "closed_rows": (2,), "unwritten": (0,)},
    "start": {"decoder_start": 3, "positions": positions.Sinusoidal(endpoint=True, offset=2)},
    "learned": {"positions": positions.Learned(6, offset=2, like_embeddings=False)},
}


def drawn(draw, **changes):
    arch = dataclasses.replace(ARCH, **changes)
    params = draw(transformer.declare(arch))
    # Biases and scales of norms start from constants: others show what they do.
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    noise = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return arch, jax.tree.unflatten(tree, noise)


def pair(rng):
    source, target = rng.integers(4, V, (B, S)), rng.integers(4, V, (B, T))
    source[1, 3:] = 0
    return transformer.single_sentences(jnp.asarray(source), jnp.asarray(target), bos=2)


def teacher_forced(params, arch, batch):
    return transformer.logits(params, arch, transformer.forward(params, arch, batch))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_cached_step_gives_the_numbers_of_teacher_forcing(draw, rng, name):
    arch, params = drawn(draw, **VARIANTS[name])
    batch = pair(rng)
    want = teacher_forced(params, arch, batch)
    plain = dataclasses.replace(ARCH, head_dim=arch.head_dim)
    if jax.tree.structure(transformer.declare(plain)) == jax.tree.structure(params):
        assert np.abs(want - teacher_forced(params, plain, batch)).max() > 1e-3
    listed = transformer.inference_params(params, arch)
    memory = transformer.encode(listed, arch, *batch[:3])
    cache = transformer.init_cache(
        listed, arch, memory, batch.source_segments, hypotheses=1, max_length=T
    )
    parents, steps = jnp.zeros((B, 1), jnp.int32), []
    for t in range(T):
        token = batch.target_input[:, t, None]
        logits, cache = transformer.decode_step(listed, arch, cache, token, parents)
        steps.append(logits[:, 0])
    assert np.abs(np.stack(steps, 1) - want).max() <= 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("name", ["width", "scales"])
def test_the_loss_is_the_cross_entropy_of_the_logits(draw, rng, name):
    arch, params = drawn(draw, **VARIANTS[name])
    batch = pair(rng)
    weights, labels = jnp.ones((B, T)).at[0, 3].set(0.0), batch.target

    def fused(params):
        return cross_entropy(
            transformer.forward(params, arch, batch), transformer.output_table(params, arch),
            labels, weights, bias_V=transformer.output_bias(params, arch), label_smoothing=0.1,
            chunk=3,
        )  # fmt: skip

    def plain(params):
        log_p = jax.nn.log_softmax(teacher_forced(params, arch, batch))
        target = 0.9 * jax.nn.one_hot(labels, V) + 0.1 / V
        return -((target * log_p).sum(-1) * weights).sum()

    value, gradient = jax.value_and_grad(lambda p: fused(p).loss)(params)
    want, want_gradient = jax.value_and_grad(plain)(params)
    assert abs(value - want) <= 1e-5 * want
    for x, y in zip(*map(jax.tree.leaves, (gradient, want_gradient)), strict=True):
        assert np.abs(x - y).max() <= 1e-4 * max(1.0, np.abs(y).max())


def test_a_closed_row_has_no_probability_and_the_others_have_as_much_as_without_it(draw, rng):
    arch, params = drawn(draw, closed_rows=(2, 5))
    batch = pair(rng)
    logits = teacher_forced(params, arch, batch)
    p = jax.nn.softmax(logits)
    assert (p[..., np.array([2, 5])] == 0).all()
    others = np.array([i for i in range(V) if i not in (2, 5)])
    without = teacher_forced(params, dataclasses.replace(arch, closed_rows=()), batch)
    assert np.abs(jax.nn.softmax(without[..., others]) - p[..., others]).max() <= 1e-6


def test_the_decoder_starts_from_the_embedding_of_its_start(draw, rng):
    arch, params = drawn(draw, decoder_start=3)
    batch = pair(rng)
    tokens = batch.target_input.at[:, 0].set(3)
    plain = dataclasses.replace(arch, decoder_start=2)
    want = teacher_forced(params, plain, batch._replace(target_input=tokens))
    assert (teacher_forced(params, arch, batch) == want).all()


def test_sinusoids_with_endpoint_and_interleaved_are_the_closed_form():
    D = 10
    got = np.asarray(positions.sinusoidal(jnp.arange(6), D, 100.0, endpoint=True, interleaved=True))
    angle = np.arange(6)[:, None] * 100.0 ** (-np.arange(D // 2) / (D // 2 - 1))
    assert np.abs(got[:, 0::2] - np.sin(angle)).max() <= 1e-5
    assert np.abs(got[:, 1::2] - np.cos(angle)).max() <= 1e-5


@pytest.mark.parametrize("name", ["relu", "gelu", "gelu_exact", "silu", "reglu", "geglu", "swiglu"])
def test_activations_are_those_of_float64(rng, name):
    from math import erf

    act = {
        "re": lambda x: np.maximum(x, 0),
        "ge": lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        "ex": lambda x: x / 2 * (1 + np.vectorize(erf)(x / np.sqrt(2))),
        "si": lambda x: x / (1 + np.exp(-x)),
    }
    kind = {"gelu_exact": "ex", "swiglu": "si"}.get(name, name[:2])
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    p = {"up": draw(6, 9), "up_bias": draw(9), "down": draw(9, 6), "down_bias": draw(6)}
    if layers.is_gated(name):
        p |= {"gate": draw(6, 9), "gate_bias": draw(9)}
    x = draw(2, 3, 6)
    up = x @ p["up"] + p["up_bias"]
    inner = act[kind](x @ p["gate"] + p["gate_bias"]) * up if "gate" in p else act[kind](up)
    want = inner @ p["down"] + p["down_bias"]
    assert np.abs(layers.feed_forward(p, x, name) - want).max() <= 1e-4 * np.abs(want).max()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention_scale": 1.0, "attention": "linear"}, "attention_scale 1.0 with attention='l"),
        ({"attention_scale": 1.0, "cross_attention": "additive"}, "with cross_attention='additive"),
        ({"attention_scale": 1.0, "positions": "shaw"}, "attention_scale 1.0 with positions='shaw"),
        ({"final_norm": False}, "final_norm=False with norm_placement='pre'"),
        ({"decoder_start": V}, "decoder_start 11 is no id"),
        ({"closed_rows": (1, V)}, "closed_rows .* less than target_vocab 11"),
        ({"norm_epsilon": 1.0}, "norm_epsilon 1.0: must be from"),
        ({"positions": "sinusoidal:endpoint=True", "d_model": 2, "heads": 1}, "endpoint needs two"),
        ({"activation": "tanh"}, "activation 'tanh': choose from relu, gelu, gelu_exact"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        transformer.declare(dataclasses.replace(ARCH, **changes))
