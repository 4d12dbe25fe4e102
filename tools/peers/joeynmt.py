"""JoeyNMT 2.3, trained in a process of its own, on the text and vocabularies that tfm trains on."""

import json
import os
import re
import subprocess
from pathlib import Path

from peers.measure import cores
from tfm.data import corpus, tokenizer
from tfm.data.scan import Tokenizers

LIMIT = 64  # pieces a sentence; longer ones are left out, as tfm leaves them out


def write_text(pairs: corpus.Pairs, folder: Path, name: str) -> Path:
    """Writes a corpus as the two plain files that JoeyNMT reads; returns their common stem."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = pairs.__getitems__(range(len(pairs)))
    for side, suffix in enumerate(("src", "trg")):
        lines = (tokenizer.normalise(text[side]) for text in texts)
        content = "".join(f"{line}\n" for line in lines)
        (folder / f"{name}.{suffix}").write_text(content, encoding="utf-8")
    return folder / name


def write_config(
    folder: Path, train: Path, dev: Path, tokenizers: Tokenizers, updates: int, log_every: int
) -> Path:
    """The Tatoeba-sized run: d=256, 3+3 layers, batches of 2,048 padded tokens, Adam.

    The file is JSON, which is YAML too.
    """
    sides = {}
    for side, vocabulary in zip(("src", "trg"), tokenizers, strict=True):
        model, pieces = folder / f"{side}.model", folder / f"{side}.vocab"
        model.write_bytes(vocabulary.processor.serialized_model_proto())
        ids = range(4, vocabulary.size)  # its own four special symbols come first
        lines = "".join(f"{vocabulary.processor.id_to_piece(i)}\n" for i in ids)
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
    """JoeyNMT's version in that environment.

    Raises:
      RuntimeError: that Python has no JoeyNMT, or cannot be run.
    """
    ask = "import importlib.metadata; print(importlib.metadata.version('joeynmt'))"
    done = _run(python, "-c", ask)
    if done.returncode:
        raise RuntimeError(f"--joeynmt {python}: no JoeyNMT there: pip install joeynmt==2.3.0")
    return done.stdout.strip()


def tokens_per_second(python: Path, config: Path) -> list[float]:
    """Trains, and returns the speed of each logging interval but the first.

    JoeyNMT's "Tokens per Sec" counts the target tokens that are not padding, eos included
    (``Batch.ntokens``), over wall time with data loading: what tfm's log counts too.

    Raises:
      RuntimeError: JoeyNMT failed; the message holds the end of what it said.
    """
    done = _run(python, "-m", "joeynmt", "train", str(config), "--skip-test")
    said = done.stdout + done.stderr
    speeds = [float(x) for x in re.findall(r"Tokens per Sec:\s*(\d+)", said)]
    if done.returncode or len(speeds) < 2:
        raise RuntimeError(f"JoeyNMT ended with code {done.returncode}:\n{said[-2000:]}")
    return speeds[1:]


def _run(python: Path, *arguments: str) -> subprocess.CompletedProcess:
    # Its environment is its own: nothing of ours may be found in it.
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
