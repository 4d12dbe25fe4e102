"""Sentences longer than those trained on, where the position scheme allows them."""

import dataclasses
import functools
import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tfm
from tfm import embeddings, inspect, transformer
from tfm.translator.translator import stretched

pytestmark = pytest.mark.usefixtures("quick_compile")

TRAINED, LONG, SHORT, WIDTH, V = 12, 24, 7, 40, 11
SCHEMES = {
    "sinusoidal": {},
    "none": {},
    "shaw": {"relative_clip": 3},
    "t5": {"relative_buckets": 8, "relative_max_distance": TRAINED},
    "alibi": {},
    "rotary": {"rotary_scaling": 2.0},
    "rotary_interleaved": {"rotary_scaling": 2.0},
    "transformer_xl": {},
}


def model_of(scheme, **fields):
    return transformer.Config(
        source_vocab=V, target_vocab=V, d_model=16, heads=4, d_ff=16, encoder_layers=2,
        decoder_layers=2, dropout=0.0, max_length=TRAINED, unroll=1, positions=scheme, **fields,
    )  # fmt: skip


def row(rng, *lengths, width=WIDTH):
    """A row of sentences and padding: tokens, segments, places [1,width]; padding is random."""
    tokens = rng.integers(1, V, (1, width)).astype(np.int32)
    padding = width - sum(lengths)
    segments = np.repeat([*range(1, len(lengths) + 1), 0], [*lengths, padding])[None]
    places = np.concatenate([np.arange(n) for n in (*lengths, padding)])[None]
    return tokens, segments, places


def scores(weights, c, source, target):
    """Teacher forcing: logits [T,V] of a row."""
    names = ("", "_segments", "_positions")
    batch = {f"source{n}": x for n, x in zip(names, source, strict=True)}
    batch |= {f"target{n}": x for n, x in zip(("_input", *names[1:]), target, strict=True)}
    hidden = jax.jit(transformer.forward, static_argnums=1)(weights, c, batch)
    return np.asarray(embeddings.logits(hidden, transformer.output_table(weights, c)))[0]


@functools.partial(jax.jit, static_argnums=1)
def step_by_step(weights, c, source, target_T):
    """The same with a cache, from the first token on."""
    memory = transformer.encode(weights, c, *source)
    decoding = transformer.for_decoding(weights, c)
    cache = transformer.init_cache(
        decoding, c, memory, source[1], hypotheses=1, max_length=len(target_T)
    )
    first = jnp.zeros((1, 1), jnp.int32)

    def step(cache, token):
        logits, cache = transformer.decode_step(decoding, c, cache, token[None, None], first)
        return cache, logits[0, 0]

    return jax.lax.scan(step, cache, target_T)[1]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_twice_the_trained_length(rng, draw, scheme):
    """Finite; the same with a cache, beside padding, and packed with another sentence."""
    c = model_of(scheme, **SCHEMES[scheme])
    weights = draw(transformer.declare(c))
    source, target = row(rng, LONG, width=LONG), row(rng, LONG, width=LONG)
    alone = scores(weights, c, source, target)
    assert np.isfinite(alone).all()
    near = functools.partial(np.testing.assert_allclose, atol=1e-4 * np.abs(alone).max(), rtol=0)
    near(step_by_step(weights, c, source, jnp.asarray(target[0][0])), alone)
    for lengths in ((LONG,), (SHORT, LONG)):  # padded, and packed behind another
        sides = row(rng, *lengths), row(rng, *lengths)
        here = slice(sum(lengths) - LONG, sum(lengths))
        for side, own in zip(sides, (source, target), strict=True):
            side[0][:, here] = own[0]
        near(scores(weights, c, *sides)[here], alone)


def test_a_row_may_be_longer_than_the_learned_table(rng, draw):
    c = model_of("learned")
    weights = draw(transformer.declare(c))
    source, target = row(rng, SHORT, width=SHORT), row(rng, SHORT, width=SHORT)
    alone = scores(weights, c, source, target)
    sides = row(rng, TRAINED, SHORT), row(rng, TRAINED, SHORT)  # and padding at places up to 20
    here = slice(TRAINED, TRAINED + SHORT)
    for side, own in zip(sides, (source, target), strict=True):
        side[0][:, here] = own[0]
    np.testing.assert_allclose(scores(weights, c, *sides)[here], alone, atol=1e-4)


def test_settings_that_a_scheme_does_not_allow(tiny_run):
    c = tfm.config.read(tiny_run / "config.json")
    of = lambda scheme: dataclasses.replace(  # noqa: E731
        c, model=dataclasses.replace(c.model, positions=scheme)
    )
    there = stretched(of("learned"), c.model.max_length, target_length=20)
    assert (there.data.source_length, there.data.target_length) == (128, 20)
    for config, changes, message in [
        (of("learned"), {"source_length": 129}, "source_length 129: .*place 127; 128 is the most"),
        (of("learned"), {"target_length": 200}, "target_length 200: positions='learned'"),
        (c, {"source_length": 1}, "source_length 1: a sentence takes 2 or more"),
        (c, {"rotary_scaling": 2.0}, "'sinusoidal' are not rotary; leave it out"),
        (of("rotary"), {"rotary_scaling": 0.0}, "rotary_scaling 0.0 must be positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            stretched(config, **changes)
    assert stretched(c) == c
    with pytest.raises(ValueError, match=r"model .*run: source_length 0: a sentence"):
        tfm.load(tiny_run, source_length=0)


def test_a_loaded_model_takes_longer_sentences(tiny_run, caplog):
    """Whole, where the run's own length cuts in parts; scored as searched; and inspected."""
    text = "abc de " * 7  # 43 pieces with eos
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
    settings["model"]["positions"] = "rotary"
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
