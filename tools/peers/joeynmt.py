"""JoeyNMT 2.3, trained in its own environment on the text and vocabularies that tfm trains on."""

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

from peers import loop
from peers.measure import Row, cores, from_speeds
from tfm.data import corpus, tokenizer
from tfm.data.tokenizer import SentencePieceTokenizer
from tfm.training.setup import open_data

LIMIT = 64  # pieces per sentence; longer ones are dropped, as tfm drops them


def compare(python: Path, files: tuple[str, str, str, str], rounds: int, updates: int) -> list[Row]:
    """The training loops of both on the same text and vocabularies, in turns.

    Args:
      python: an interpreter that has JoeyNMT.
      files: source, target, dev source and dev target.
      rounds: turns of each side.
      updates: updates per turn.
    """
    experiment = loop.configuration(files[:2], pieces=4000, rows=32)
    log_every = max(1, updates // 6)
    peer = f"JoeyNMT {version(python)}"
    speeds: dict[str, list[float]] = {"tfm": [], peer: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = open_data(experiment, folder)
        dev = write_text(corpus.open_corpus(files[2:], experiment.data), folder, "dev")
        train = write_text(data.pairs, folder, "train")
        config = write_config(folder, train, dev, data.tokenizers, updates, log_every)
        for _ in range(rounds):
            speeds["tfm"] += loop.loop_speeds(experiment, updates, log_every)
            speeds[peer] += tokens_per_second(python, config)
    return from_speeds("whole training loop on real text, d=256 3+3 ff=1024 V=4000", speeds)


def write_text(pairs: corpus.Pairs, folder: Path, name: str) -> Path:
    """Writes a corpus as two plain text files; returns their path without the suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = pairs.__getitems__(range(len(pairs)))
    for side, suffix in enumerate(("src", "trg")):
        lines = (tokenizer.normalise(text[side]) for text in texts)
        content = "".join(f"{line}\n" for line in lines)
        (folder / f"{name}.{suffix}").write_text(content, encoding="utf-8")
    return folder / name


def write_config(
    folder: Path,
    train: Path,
    dev: Path,
    tokenizers: tuple[SentencePieceTokenizer, SentencePieceTokenizer],
    updates: int,
    log_every: int,
) -> Path:
    """Writes JoeyNMT's config: d=256, 3+3 layers, batches of 2,048 tokens with padding, Adam.

    It is written as JSON, which is also YAML.
    """
    sides = {}
    for side, subwords in zip(("src", "trg"), tokenizers, strict=True):
        model, pieces = folder / f"{side}.model", folder / f"{side}.vocab"
        model.write_bytes(subwords.model())
        # Its own four special symbols come first.
        lines = "".join(f"{piece}\n" for piece in subwords.vocabulary[4:])
        pieces.write_text(lines, encoding="utf-8")
        sides[side] = {
            "lang": side,
            "level": "bpe",
            "max_length": LIMIT,
            "tokenizer_type": "sentencepiece",
            "tokenizer_cfg": {"model_file": str(model)},
            "voc_file": str(pieces),
        }
    path = folder / "config.yaml"
    content = {
        "name": "bench",
        "use_cuda": False,
        "model_dir": str(folder / "run"),
        "data": {"train": str(train), "dev": str(dev), "dataset_type": "plain", **sides},
        "testing": {"batch_size": 1024, "batch_type": "token", "eval_metrics": []},
        "training": _training(updates, log_every),
        "model": {
            "initializer": "xavier_uniform",
            "embed_initializer": "xavier_uniform",
            "tied_softmax": True,
            "encoder": _stack(),
            "decoder": _stack(),
        },
    }
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return path


def version(python: Path) -> str:
    """The version of JoeyNMT that a Python interpreter has.

    Raises:
      RuntimeError: it has none, or cannot be run.
    """
    script = "import importlib.metadata; print(importlib.metadata.version('joeynmt'))"
    done = _run(python, "-c", script)
    if done.returncode:
        raise RuntimeError(
            f"--joeynmt {python}: JoeyNMT is not installed there: pip install joeynmt==2.3.0"
        )
    return done.stdout.strip()


def tokens_per_second(python: Path, config: Path) -> list[float]:
    """Trains, and returns the speed of each logging interval but the first.

    Like tfm's log, JoeyNMT's "Tokens per Sec" counts target tokens with eos and without padding
    (``Batch.ntokens``), over wall time with data loading.

    Raises:
      RuntimeError: JoeyNMT failed; the message has the end of its output.
    """
    done = _run(python, "-m", "joeynmt", "train", str(config), "--skip-test")
    output = done.stdout + done.stderr
    speeds = [float(x) for x in re.findall(r"Tokens per Sec:\s*(\d+)", output)]
    if done.returncode or len(speeds) < 2:
        raise RuntimeError(f"JoeyNMT ended with code {done.returncode}:\n{output[-2000:]}")
    return speeds[1:]


def _run(python: Path, *arguments: str) -> subprocess.CompletedProcess:
    # Without PYTHONPATH it finds only the packages of its own environment.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *arguments],
        env=environment | {"OMP_NUM_THREADS": str(cores())},
        capture_output=True,
        text=True,
        check=False,
    )


def _training(updates: int, log_every: int) -> dict:
    return {
        "optimizer": "adam",
        "adam_betas": [0.9, 0.98],
        "scheduling": "warmupinversesquareroot",
        "learning_rate": 0.001,
        "learning_rate_min": 0.0,
        "learning_rate_warmup": 400,
        "normalization": "tokens",
        "label_smoothing": 0.1,
        "batch_size": 2048,
        "batch_type": "token",
        "epochs": 1000,
        "updates": updates,
        "logging_freq": log_every,
        "validation_freq": log_every * 1_000_000,
        "overwrite": True,
        "shuffle": True,
        "random_seed": 0,
    }


def _stack() -> dict:
    return {
        "type": "transformer",
        "num_layers": 3,
        "num_heads": 4,
        "embeddings": {"embedding_dim": 256, "scale": True, "dropout": 0.1},
        "hidden_size": 256,
        "ff_size": 1024,
        "dropout": 0.1,
        "layer_norm": "pre",
    }
