"""A run that is stopped, killed or damaged ends with the state of an uninterrupted one."""

import csv
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

import tfm
from tfm import config, transformer
from tfm.checkpoint import CheckpointManager
from tfm.training import optimizer
from tfm.training.step import init_state

UPDATES = 100
MACHINE_METRICS = ("train/tokens_per_second", "train/memory_mib")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """``start(run)`` starts or resumes a run; everything random is switched on."""
    folder = tmp_path_factory.mktemp("resume")
    experiment = tiny.config(
        folder,
        model={"dropout": 0.1},
        tokenizer={"kind": "unigram", "source_size": 40, "target_size": 40, "sample_nbest": 8},
        train={
            "stop": f"{UPDATES}u", "log_every": 1, "validate_every": 10, "checkpoint_every": 7,
            "ema": 0.9, "dev_limit": 3,
        },
    )  # fmt: skip
    path = tiny.experiment(folder, experiment)
    environment = os.environ | {
        "PYTHONPATH": str(Path(tfm.__file__).parents[1]),
        "JAX_PLATFORMS": "cpu",
        # All processes share what is compiled once.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def command(run):
        main = "from tfm.cli import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", main, "train", str(path), "--workdir", str(run)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    return command


def finish(process):
    """Waits for the end; returns stderr."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


@pytest.fixture(scope="module")
def uninterrupted(start, tmp_path_factory):
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    finish(start(run))
    return run


def rows(run):
    path = run / "metrics.tsv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [tuple(row) for row in csv.reader(file, delimiter="\t")][1:]


def stop_at(process, run, update, number):
    """Sends a signal as soon as the metrics contain ``update``; returns the exit code."""
    seen = 0
    while process.poll() is None and seen < update:
        time.sleep(0.01)
        seen = max((int(row[0]) for row in rows(run) if len(row) == 3), default=0)
    process.send_signal(number)
    process.communicate(timeout=300)
    return process.returncode


def read(run, name):
    """(step, state, position) of a run's newest checkpoint, or of its best weights."""
    experiment = config.from_json((run / "config.json").read_text())
    rule = optimizer.make(experiment.optimizer, transformer.declare(experiment.model))
    state = jax.eval_shape(functools.partial(init_state, experiment, rule))
    with CheckpointManager(run / name) as checkpoints:
        return checkpoints.restore(state if name == "checkpoints" else state.weights)


def assert_same_end(run, other):
    """Equal bits of weights, optimizer and average; equal data position, best and metrics."""
    for name in ("checkpoints", "best"):
        (step, state, position), (same_step, same_state, same_position) = (
            read(folder, name) for folder in (run, other)
        )
        assert step == same_step
        assert jax.tree.structure(state) == jax.tree.structure(same_state)
        jax.tree.map(np.testing.assert_array_equal, state, same_state)
        for p in (position, same_position):
            p.get("progress", {}).pop("elapsed", None)
        assert position == same_position
    assert step > 0 and len(jax.tree.leaves(state)) > 10  # there is something to compare
    records = [[r for r in rows(f) if r[1] not in MACHINE_METRICS] for f in (run, other)]
    assert records[0] == records[1]
    assert {int(r[0]) for r in records[0]} == set(range(1, UPDATES + 1))
    last = f"hypotheses/{UPDATES}.txt"
    assert (run / last).read_text() == (other / last).read_text()


def test_killed_at_three_random_updates(start, uninterrupted, tmp_path):
    run, rng = tmp_path / "run", random.Random(0)
    for first, last in ((1, 6), (20, 45), (55, 85)):  # the first before any checkpoint
        process = start(run)
        assert stop_at(process, run, rng.randint(first, last), signal.SIGKILL) == -signal.SIGKILL
    finish(start(run))
    assert_same_end(run, uninterrupted)


@pytest.mark.slow
def test_stopped_by_sigterm(start, uninterrupted, tmp_path):
    run = tmp_path / "run"
    process = start(run)
    assert stop_at(process, run, 33, signal.SIGTERM) == 143
    step, _, position = read(run, "checkpoints")
    assert step >= 33
    assert step == int(rows(run)[-1][0])  # saved when it stopped
    assert "resuming from update" in finish(start(run))
    assert position["progress"]["elapsed"] > 0
    assert_same_end(run, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["state", "manifest"])
def test_newest_checkpoint_truncated(start, uninterrupted, tmp_path, name):
    run = shutil.copytree(uninterrupted, tmp_path / "run")
    before = sorted(int(p.name) for p in (run / "checkpoints").glob("[0-9]*"))
    assert before[-1] == UPDATES
    damaged = run / "checkpoints" / str(UPDATES)
    for path in (p for p in (damaged / name).rglob("*") if p.is_file()):
        os.truncate(path, path.stat().st_size // 2)
    errors = finish(start(run))
    warnings = [line for line in errors.splitlines() if " W " in line]
    assert len(warnings) == 1
    assert f"{damaged} is damaged" in warnings[0]
    assert f"resuming from update {before[-2]}" in errors
    assert "Traceback" not in errors
    assert_same_end(run, uninterrupted)
