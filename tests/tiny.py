"""A language pair and a model so small that a test can train it: words come out in capitals."""

import dataclasses
import random
import string

from tfm.config import Config, Data, Decode, Optimizer, Tokenizer, Train, to_json
from tfm.sharding import Mesh
from tfm.transformer import Architecture


def sentences(count, seed, words=(1, 6), letters=(1, 4)):
    """Sentences of random words of the first eight letters; lengths are drawn from the bounds."""
    rng = random.Random(seed)
    word = lambda: "".join(rng.choices(string.ascii_lowercase[:8], k=rng.randint(*letters)))  # noqa: E731
    return [" ".join(word() for _ in range(rng.randint(*words))) for _ in range(count)]


def write(path, lines):
    """Writes lines as UTF-8; returns the path as text."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def corpus(folder, name, *args, **kwargs):
    """Writes two files of parallel text, of ``sentences(...)``; returns their names."""
    source = sentences(*args, **kwargs)
    target = [line.upper() for line in source]
    return write(folder / f"{name}.lower", source), write(folder / f"{name}.upper", target)


def config(folder, **changes):
    """An experiment on a corpus written to ``folder``; ``changes`` by section:
    ``config(folder, train={"stop": "9u"})``.
    """
    experiment = Config(
        model=Architecture(
            d_model=32, heads=2, d_ff=64, encoder_layers=1, decoder_layers=1, dropout=0.0
        ),
        tokenizer=Tokenizer("char", source_size=60, target_size=60, byte_fallback=False),
        data=Data(
            source="lower",
            target="upper",
            train=corpus(folder, "train", 600, seed=1),
            # All of one length bucket, so that one search is compiled.
            dev=corpus(folder, "dev", 4, seed=2, words=(3, 3), letters=(2, 4)),
            test=(),
            rows=8,
            source_length=32,
            target_length=32,
            cache_dir=str(folder / "cache"),
        ),
        optimizer=Optimizer(learning_rate=1e-2, warmup=20),
        train=Train(stop="20u", log_every=5, validate_every=10, checkpoint_every=10),
        decode=Decode(beam_size=2, batch_size=16, guard="off"),
        mesh=Mesh(data=1),
    )  # fmt: skip
    return change(experiment, **changes)


def experiment(folder, config):
    """Writes an experiment file that gives the config; returns its path."""
    path = folder / "experiment.py"
    text = to_json(config)
    path.write_text(f"from tfm import config\n\nget_config = lambda: config.from_json({text!r})\n")
    return path


def change(config, **sections):
    """The config with some fields replaced, by section."""
    new = {name: dataclasses.replace(getattr(config, name), **f) for name, f in sections.items()}
    return dataclasses.replace(config, **new)
