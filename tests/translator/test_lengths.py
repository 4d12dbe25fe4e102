"""Sentences longer than those trained on, where the position scheme allows them."""

import functools
import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tfm
from tfm import config, embeddings, inspect, positions, transformer
from tfm.transformer import Architecture, Execution
from tfm.translator.loading import with_lengths

pytestmark = pytest.mark.usefixtures("quick_compile")

TRAINED, LONG, SHORT, WIDTH, V = 12, 24, 7, 40, 11
SCHEMES = (
    "sinusoidal",
    "none",
    "shaw:clip=3",
    f"t5:buckets=8,max_distance={TRAINED}",
    "alibi",
    "rotary:scaling=2.0",
    "rotary:interleaved=True,scaling=2.0",
    "transformer_xl",
)
SCAN = Execution(unroll=1)


def architecture(positions):
    return Architecture(
        source_vocab=V, target_vocab=V, d_model=16, heads=4, d_ff=16, encoder_layers=2,
        decoder_layers=2, dropout=0.0, positions=positions,
    )  # fmt: skip


def row(rng, *lengths, width=WIDTH):
    """A row of sentences and padding: tokens, segments, positions [1,width]; padding is random."""
    tokens = rng.integers(1, V, (1, width)).astype(np.int32)
    padding = width - sum(lengths)
    segments = np.repeat([*range(1, len(lengths) + 1), 0], [*lengths, padding])[None]
    positions = np.concatenate([np.arange(n) for n in (*lengths, padding)])[None]
    return tokens, segments, positions


def teacher_force(params, arch, source, target):
    """Logits [T,V] of a row."""
    run = jax.jit(functools.partial(transformer.forward, execution=SCAN), static_argnums=1)
    hidden = run(params, arch, transformer.Batch(*source, *target))
    return np.asarray(embeddings.logits(hidden, transformer.output_table(params, arch)))[0]


@functools.partial(jax.jit, static_argnums=1)
def step_by_step(params, arch, source, target_T):
    """The same with a cache, from the first token on."""
    memory = transformer.encode(params, arch, *source, execution=SCAN)
    params = transformer.inference_params(params, arch)
    cache = transformer.init_cache(
        params, arch, memory, source[1], hypotheses=1, max_length=len(target_T)
    )
    parents = jnp.zeros((1, 1), jnp.int32)

    def step(cache, token):
        logits, cache = transformer.decode_step(params, arch, cache, token[None, None], parents)
        return cache, logits[0, 0]

    return jax.lax.scan(step, cache, target_T)[1]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_twice_the_trained_length(rng, draw, scheme):
    """Finite; the same with a cache, beside padding, and packed with another sentence."""
    arch = architecture(scheme)
    params = draw(transformer.declare(arch))
    source, target = row(rng, LONG, width=LONG), row(rng, LONG, width=LONG)
    alone = teacher_force(params, arch, source, target)
    assert np.isfinite(alone).all()
    near = functools.partial(np.testing.assert_allclose, atol=1e-4 * np.abs(alone).max(), rtol=0)
    near(step_by_step(params, arch, source, jnp.asarray(target[0][0])), alone)
    for lengths in ((LONG,), (SHORT, LONG)):  # padded, and packed behind another
        sides = row(rng, *lengths), row(rng, *lengths)
        here = slice(sum(lengths) - LONG, sum(lengths))
        for side, own in zip(sides, (source, target), strict=True):
            side[0][:, here] = own[0]
        near(teacher_force(params, arch, *sides)[here], alone)


def test_a_row_may_be_longer_than_the_learned_table(rng, draw):
    arch = architecture(f"learned:max_length={TRAINED}")
    params = draw(transformer.declare(arch))
    source, target = row(rng, SHORT, width=SHORT), row(rng, SHORT, width=SHORT)
    alone = teacher_force(params, arch, source, target)
    sides = row(rng, TRAINED, SHORT), row(rng, TRAINED, SHORT)  # and padding at positions to 20
    here = slice(TRAINED, TRAINED + SHORT)
    for side, own in zip(sides, (source, target), strict=True):
        side[0][:, here] = own[0]
    np.testing.assert_allclose(teacher_force(params, arch, *sides)[here], alone, atol=1e-4)


def experiment(positions):
    return config.Config(model=architecture(positions))


def test_other_lengths_and_scaling_than_in_training():
    learned, rotary = experiment("learned:max_length=128"), experiment("rotary:base=500")
    changed = with_lengths(learned, 128, target_length=20)
    assert (changed.data.source_length, changed.data.target_length) == (128, 20)
    scaled = with_lengths(rotary, rotary_scaling=2.0)
    assert scaled.model.positions == positions.Rotary(base=500.0, scaling=2.0)
    assert with_lengths(rotary) == rotary


@pytest.mark.parametrize(
    ("scheme", "changes", "message"),
    [
        (
            "learned:max_length=128",
            {"source_length": 129},
            "source_length 129: .*positions 0 to 127; 128 is the most",
        ),
        ("learned:max_length=128", {"target_length": 200}, "target_length 200: .*learned"),
        ("sinusoidal", {"source_length": 1}, "source_length 1: must be from 2 to 65,535"),
        ("sinusoidal", {"rotary_scaling": 2.0}, "Sinusoidal, not rotary; leave it out"),
        ("rotary", {"rotary_scaling": 0.0}, r"rotary_scaling 0.0: must be 0.001 or more"),
    ],
)
def test_lengths_and_scaling_that_a_scheme_does_not_allow(scheme, changes, message):
    with pytest.raises(ValueError, match=message):
        with_lengths(experiment(scheme), **changes)


def test_a_length_that_a_model_cannot_take_is_an_error_that_names_the_model(tiny_run):
    with pytest.raises(ValueError, match=r"model .*run: source_length 0: must be from 2"):
        tfm.load(tiny_run, source_length=0)


def test_a_loaded_model_takes_longer_sentences(tiny_run, caplog):
    """In one part, which the run's own length would split; scores as search does; and inspected."""
    text = "abc de " * 7  # 43 tokens with eos
    model = tfm.load(tiny_run, source_length=64, target_length=160)
    with caplog.at_level(logging.WARNING, "tfm"):
        found = model.n_best([text], 2, beam_size=2)[0]
    assert not caplog.records and model.parts(text) == [text.strip()]
    forced = model.score([text] * 2, [t.text for t in found])
    np.testing.assert_allclose(forced, [t.log_prob for t in found], rtol=1e-3, atol=1e-3)
    traced = inspect.trace(model, text)
    assert len(traced.source.pieces) > 32 and traced.target.text == found[0].text


def test_the_command_line_takes_lengths_and_scaling(command, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    settings = json.loads((run / "config.json").read_text())
    settings["model"]["positions"] = {"scheme": "rotary"}
    (run / "config.json").write_text(json.dumps(settings))
    long = "abc de " * 7
    at_length = ["--source-length", 64, "--rotary-scaling", 2]
    code, out, err = command("translate", "--model", run, *at_length, stdin=long.encode())
    assert code == 0 and "parts" not in err
    model = tfm.load(run, source_length=64, rotary_scaling=2.0)
    assert out.decode() == model.translate([long])[0] + "\n"
    assert model.score(["ab"], ["AB"]) != tfm.load(run).score(["ab"], ["AB"])

    files = (tmp_path / "source", tmp_path / "target")
    for path, line in zip(files, (long, long.upper()), strict=True):
        path.write_text(f"{line}\n")
    arguments = ("--model", run, "--source", files[0], "--target", files[1], *at_length)
    assert command("score", *arguments)[0] == 1  # the target is longer than 32
    code, out, _ = command("score", *arguments, "--target-length", 64)
    assert code == 0 and np.isfinite(float(out))
    code, out, _ = command("inspect", long, "--model", run, "--json", *at_length)
    assert code == 0 and len(json.loads(out)["source"]["pieces"]) > 32
