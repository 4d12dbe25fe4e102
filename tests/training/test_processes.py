"""Several processes train one run by the command line: they equal one, and survive failures."""

import csv
import functools
import os
import re
import signal
import socket
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
from tfm.processes import watchdog
from tfm.training import optimizer
from tfm.training.step import init_state

pytestmark = pytest.mark.slow

MAIN = "from tfm.cli import main; main()"
HANGING = """
import time
from tfm.data import stream
made = stream._Stream.__next__

def next_batch(self):
    if self._batch == 12:
        time.sleep(600)
    return made(self)

stream._Stream.__next__ = next_batch
"""
FAILING = HANGING.replace("== 12", "== 17").replace(
    "time.sleep(600)", "raise OSError('the disk with the corpus is gone')"
)
UPDATES = 30
TIMEOUT = 10  # seconds, for a busy machine


class Run:
    """The processes of one run, started together."""

    def __init__(self, experiment, folder, processes, devices, codes=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        environment = os.environ | {
            "PYTHONPATH": str(Path(tfm.__file__).parents[1]),
            "GLIBC_TUNABLES": "",
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_DEFAULT_MATMUL_PRECISION": "highest",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_COMPILATION_CACHE_DIR": str(Path(experiment).parent / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        self.folder, self.processes = Path(folder), []
        self.folder.parent.mkdir(exist_ok=True)
        for i in range(processes):
            names = ("coordinator", "processes", "process", "timeout")
            values = (address, processes, i, TIMEOUT)
            hosts = [x for n, v in zip(names, values, strict=True) for x in (f"--hosts.{n}", v)]
            arguments = [
                "train",
                experiment,
                "--workdir",
                folder,
                *(hosts if processes > 1 else ()),
            ]
            code = (codes or {}).get(i, "") + MAIN
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", code, *map(str, arguments)],
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def reach(self, update):
        """Waits until the metrics contain the update."""
        path, seen, end = self.folder / "metrics.tsv", 0, time.monotonic() + 240
        while seen < update and time.monotonic() < end:
            if codes := [p.returncode for p in self.processes if p.poll() is not None]:
                raise AssertionError((codes, [p.communicate()[1] for p in self.processes]))
            time.sleep(0.02)
            rows = path.read_text().splitlines()[1:] if path.exists() else []
            seen = max((int(r.split("\t")[0]) for r in rows if r.count("\t") == 2), default=0)
        return self

    def end(self, processes=None):
        """Exit codes of all processes, or of those with these indices, and their log lines."""
        ended = [self.processes[i] for i in processes] if processes else self.processes
        texts = [process.communicate(timeout=240)[1] for process in ended]
        logged = [[x for x in t.splitlines() if re.match(r"\d{4}-.* [IWE] ", x)] for t in texts]
        return [process.returncode for process in ended], logged


def write_experiment(folder, **changes):
    settings = {
        "stop": f"{UPDATES}u", "log_every": 1, "validate_every": UPDATES, "checkpoint_every": 8,
        "dev_limit": 3,
    }  # fmt: skip
    pieces = {"kind": "unigram", "source_size": 40, "target_size": 40}
    experiment = tiny.config(
        folder, tokenizer=pieces, model={"dropout": 0.1}, train=settings | changes.pop("train", {}),
        **changes,
    )  # fmt: skip
    return tiny.experiment(folder, experiment)


def metrics(run):
    """{(update, name): value} of the metrics that do not depend on the machine."""
    with (run / "metrics.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len({(r["update"], r["name"]) for r in rows}) == len(rows)
    machine_metrics = ("train/tokens_per_second", "train/memory_mib")
    found = {(int(r["update"]), r["name"]): float(r["value"]) for r in rows}
    return {key: value for key, value in found.items() if key[1] not in machine_metrics}


def state(run):
    experiment = config.from_json((run / "config.json").read_text())
    rule = optimizer.make(experiment.optimizer, transformer.declare(experiment.model))
    with CheckpointManager(run / "checkpoints") as checkpoints:
        return checkpoints.restore(jax.eval_shape(functools.partial(init_state, experiment, rule)))


def test_two_processes_with_four_devices_equal_one_with_eight(tmp_path):
    mesh = {"data": 4, "fsdp": 2}
    name = write_experiment(tmp_path, mesh=mesh, train={"stop": "1e", "validate_every": 15})
    one, two = tmp_path / "one", tmp_path / "two"
    assert Run(name, one, 1, 8).end()[0] == [0]
    codes, (first, second) = Run(name, two, 2, 4).end()
    assert codes == [0, 0]
    assert metrics(one).keys() == metrics(two).keys()
    for key, value in metrics(one).items():
        assert metrics(two)[key] == pytest.approx(value, rel=1e-5, abs=1e-6), key
    assert {key[0] for key in metrics(two) if key[1] == "dev/loss"} >= {15}
    assert sorted(p.name for p in (two / "hypotheses").iterdir()) == sorted(
        p.name for p in (one / "hypotheses").iterdir()
    )
    assert second == []  # only process 0 logs
    assert any("2 processes connected to" in line for line in first)
    log = (two / "log.txt").read_text().splitlines()
    assert sum("update 3 | " in line for line in log) == 1
    assert len(list((two / "tensorboard").iterdir())) == 1


def test_run_ends_the_same_after_every_kind_of_failure(tmp_path):
    name = write_experiment(tmp_path, mesh={"data": -1})
    steady, failing = tmp_path / "steady", tmp_path / "failing"
    assert Run(name, steady, 2, 1).end()[0] == [0, 0]

    # One of them receives SIGTERM: both save the same update.
    run = Run(name, failing, 2, 1).reach(5)
    run.processes[1].send_signal(signal.SIGTERM)
    codes, (first, second) = run.end()
    assert codes == [143, 143]
    assert any("received SIGTERM; the same command resumes the run" in line for line in first)
    assert ["process 1 of 2: SIGTERM: saving, then stopping" in line for line in second] == [True]
    latest = max(int(p.name) for p in (failing / "checkpoints").iterdir())
    assert latest == max(update for update, _ in metrics(failing)) >= 5

    # One of them hangs in Python: both log where.
    codes, (first, second) = Run(name, failing, 2, 1, {1: HANGING}).end()
    assert codes == [1, 1]
    text = "\n".join(first + second)
    assert f"resuming from update {latest}" in text
    assert re.search(r"no progress for 10\.0s: .*process 1 is reading the batch", text)

    # One of them is killed in the middle of an update.
    run = Run(name, failing, 2, 1).reach(18)
    run.processes[1].kill()
    killed = time.monotonic()
    codes, (first,) = run.end([0])
    assert time.monotonic() - killed < TIMEOUT + 10
    assert codes == [1]
    assert watchdog.RESTART_HINT in first[-1]

    # One of them raises an error while a checkpoint may still be saved: both log why.
    codes, logged = Run(name, failing, 2, 1, {1: FAILING}).end()
    assert codes == [1, 1]
    assert all("error: the disk with the corpus is gone" in "\n".join(x) for x in logged)

    # One of them is frozen.
    run = Run(name, failing, 2, 1).reach(24)
    run.processes[1].send_signal(signal.SIGSTOP)
    frozen = time.monotonic()
    codes, (first,) = run.end([0])
    assert TIMEOUT / 2 < time.monotonic() - frozen < TIMEOUT + 10
    assert codes == [1]
    assert "process 1 has sent no heartbeat for 10.0s" in first[-1]
    run.processes[1].kill()
    run.processes[1].communicate()

    assert Run(name, failing, 2, 1).end()[0] == [0, 0]
    (step, weights, position), (same_step, same, same_position) = state(steady), state(failing)
    assert step == same_step == UPDATES
    jax.tree.map(np.testing.assert_array_equal, weights, same)
    assert position["data"] == same_position["data"]
    assert metrics(steady) == metrics(failing)
    last = f"hypotheses/{UPDATES}.txt"
    assert (steady / last).read_text() == (failing / last).read_text()


def test_a_signal_before_the_first_update_ends_all_with_its_exit_code(tmp_path):
    compiling = """
import sys, time, jax

def compile(*args, **kwargs):
    print("compiling", file=sys.stderr, flush=True)
    time.sleep(600)

jax.stages.Lowered.compile = compile
"""
    run = Run(write_experiment(tmp_path, mesh={"data": -1}), tmp_path / "run", 2, 1, {1: compiling})
    while "compiling" not in (line := run.processes[1].stderr.readline()):
        assert line
    run.processes[1].send_signal(signal.SIGTERM)
    codes, (first, second) = run.end()
    assert codes == [143, 143]
    assert f"process 1 of 2: received SIGTERM; {watchdog.RESTART_HINT}" in second[-1]
    assert "ends because another process did: process 1: received SIGTERM" in first[-1]
    assert Run(write_experiment(tmp_path), tmp_path / "run", 1, 1).end()[0] == [0]
