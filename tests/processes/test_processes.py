"""How processes find each other, exchange values and end together; with a fake JAX service."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

import tfm
from tfm import processes
from tfm.processes import hosts, session, watchdog

SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0",
    "SLURM_STEP_NODELIST": "n[1-4]", "SLURM_STEP_NUM_TASKS": "4",
}  # fmt: skip
JOBSET = {
    "JAX_COORDINATOR_ADDRESS": "tfm-train-0-0.tfm:8476",
    "JAX_NUM_PROCESSES": "2",
    "JAX_PROCESS_ID": "1",
    "KUBERNETES_SERVICE_HOST": "10.0.0.1",
}


class Service:
    """A fake coordination service, for threads that act as processes."""

    def __init__(self):
        self.values, self.changed = {}, threading.Condition()

    def key_value_set(self, key, value, allow_overwrite=False):
        with self.changed:
            assert allow_overwrite or key not in self.values
            self.values[key] = value
            self.changed.notify_all()

    def key_value_dir_get(self, key):
        with self.changed:
            return [(name, value) for name, value in self.values.items() if name.startswith(key)]

    def blocking_key_value_get(self, key, milliseconds):
        with self.changed:
            assert self.changed.wait_for(lambda: key in self.values, milliseconds / 1000)
            return self.values[key]

    def key_value_delete(self, key):
        with self.changed:
            del self.values[key]


def together(count, act):
    """The results of ``act(group)`` in so many processes, and the service."""
    service = Service()
    with ThreadPoolExecutor(count) as threads:
        groups = [processes.Group(i, count, service) for i in range(count)]
        found = [future.result(20) for future in [threads.submit(act, group) for group in groups]]
    return found, service


# Finding each other


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**SLURM, "SLURM_STEP_NUM_TASKS": "1"},  # srun -n1 within a larger job
        {name: value for name, value in SLURM.items() if "STEP" not in name},  # the batch script
        {**JOBSET, "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"},
        {"JAX_COORDINATOR_ADDRESS": "a:1"},
        {"TPU_WORKER_HOSTNAMES": "localhost"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    ],
)
def test_environments_of_a_single_process(environment):
    assert hosts.find(processes.Hosts(), environment) is None


def test_environments_of_several_processes():
    slurm = hosts.find(processes.Hosts(), SLURM)
    assert (slurm.process, slurm.processes) == (2, 4)
    assert slurm.arguments["cluster_detection_method"] == "slurm"
    jobset = hosts.find(processes.Hosts(), JOBSET | SLURM)
    assert jobset.arguments == {
        "coordinator_address": "tfm-train-0-0.tfm:8476",
        "num_processes": 2,
        "process_id": 1,
        "cluster_detection_method": "deactivate",
    }
    flags = hosts.find(processes.Hosts("10.0.0.2:99", 3, 0), JOBSET | SLURM)
    assert flags.arguments | {"num_processes": 2, "process_id": 1} == {
        **jobset.arguments,
        "coordinator_address": "10.0.0.2:99",
    }
    # JAX asks a TPU machine for its index.
    assert hosts.find(processes.Hosts(), {"TPU_WORKER_HOSTNAMES": "a,b"}).arguments == {}


@pytest.mark.parametrize(
    ("given", "environment", "words"),
    [
        (processes.Hosts("a:1", 2), {}, "--hosts.process is missing"),
        (processes.Hosts(process=0), {}, "--hosts.coordinator, --hosts.processes is missing"),
        (processes.Hosts("a", 2, 0), {}, "--hosts.coordinator a: not ADDRESS:PORT"),
        (processes.Hosts("a:1", 2, 2), {}, "--hosts.process 2, --hosts.processes 2: "),
        (processes.Hosts(), {"JAX_PROCESS_ID": "0"}, "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES"),
        (processes.Hosts(timeout=0), {}, "hosts.timeout 0: "),
    ],
)
def test_incomplete_or_contradictory_flags_are_refused(given, environment, words):
    with pytest.raises(ValueError) as error:
        hosts.find(given, environment)
    assert words in str(error.value)


def test_single_process_starts_nothing():
    threads = threading.active_count()
    with session.joined(processes.Hosts()) as group:
        assert group is processes.ALONE
        assert threading.active_count() == threads
    assert not jax.distributed.is_initialized()
    assert group.gather({"a": 1}) == [{"a": 1}]
    assert [x.tolist() for x in group.all_gather([3, 0.5], np.int32(7))] == [[[3, 0.5]], 7]


def test_process_that_cannot_connect_ends_with_a_line():
    code = (
        "from tfm import processes, terminal; terminal.start_logging()\n"
        "with processes.joined(processes.Hosts('127.0.0.1:1', 2, 1, timeout=2)): pass"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(Path(tfm.__file__).parents[1]), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == watchdog.FAILED
    (line,) = [line for line in done.stderr.splitlines() if " E " in line]
    assert "process 1 of 2: no progress for 2.0s: " in line
    assert "waiting for 2 processes to connect to 127.0.0.1:1" in line


# Exchanging values


def test_gather_repeatedly():
    found, service = together(3, lambda group: [group.gather([group.index, n]) for n in range(4)])
    assert found == [[[[i, n] for i in range(3)] for n in range(4)]] * 3
    assert len(service.values) <= 2 * 3  # values that all have read are deleted


def test_primary_first_calls_the_primary_first(tmp_path):
    made = []

    def act(group):
        def make():
            made.append(group.index)
            return group.index

        return group.primary_first(group.is_primary, make)

    found, _ = together(3, act)
    assert found == [0, 1, 2]
    assert made[0] == 0
    assert sorted(made) == [0, 1, 2]


def test_one_process_is_primary_for_each_separate_folder(tmp_path, monkeypatch):
    shared = lambda group: epath.Path(tmp_path / "all")  # noqa: E731
    own = lambda group: epath.Path(tmp_path / str(group.index // 2))  # noqa: E731
    assert together(4, lambda group: group.is_primary_for(shared(group)))[0] == [True] + [False] * 3
    here = threading.local()
    monkeypatch.setattr("socket.gethostname", lambda: here.name)

    def act(group):
        here.name = f"host {group.index // 2}"
        return group.is_primary_for(own(group))

    assert together(4, act)[0] == [True, False, True, False]
    together(2, lambda group: group.check_shared(shared(group)))
    assert list((tmp_path / "all").iterdir()) == []
    with pytest.raises(ValueError, match="process 2, 3 than for process 0; several hosts need"):
        together(4, lambda group: group.check_shared(own(group)))


# Ending together


@pytest.fixture
def watchdogs(monkeypatch):
    """``watchdogs(count, timeout)`` of so many processes → (watchdogs, {index: reason to end})."""
    ended, made = {}, []

    def end(self, reason, received="", code=watchdog.FAILED):
        ended[self._index] = received or reason
        self._reason = ended[self._index]
        self._wake.set()
        self._closed.wait()

    monkeypatch.setattr(watchdog.Watchdog, "end", end)

    def make(count, timeout):
        service = Service()
        for i in range(count):
            made.append(watchdog.Watchdog(timeout, i, count))
            made[-1].connect(service, i, count)
        return made, ended

    yield make
    for one in made:
        one.close()


def wait_for(ended, count, seconds):
    end = time.monotonic() + seconds
    while len(ended) < count and time.monotonic() < end:
        time.sleep(0.02)
    return ended


def test_no_process_ends_while_all_make_progress(watchdogs):
    watching, ended = watchdogs(2, 1.0)
    for n in range(30):
        for one in watching:
            one.set_stage(f"in update {n}")
        time.sleep(0.1)
    assert not ended


def test_missing_heartbeat_ends_the_others(watchdogs):
    watching, ended = watchdogs(3, 1.0)
    for one in watching:
        one.set_stage("in update 7", 10)
    time.sleep(0.4)
    assert not ended
    watching[1].close()
    wait_for(ended, 2, 5)
    assert set(ended) == {0, 2}
    for words in ended.values():
        assert "process 1 has sent no heartbeat for 1.0s (it was in update 7)" in words
        assert watchdog.RESTART_HINT in words


def test_no_progress_is_reported_with_the_stage_of_every_process(watchdogs):
    watching, ended = watchdogs(3, 1.0)
    for i, one in enumerate(watching):
        one.set_stage("reading the batch of update 8" if i == 1 else "in update 8")
    words = wait_for(ended, 3, 5)[0]
    assert "no progress for 1.0s: " in words
    assert "processes 0, 2 are in update 8" in words
    assert "process 1 is reading the batch of update 8" in words


def test_stage_without_a_limit_ends_nothing(watchdogs):
    watching, ended = watchdogs(2, 0.5)
    watching[0].set_stage("preparing the data", float("inf"))
    watching[1].set_stage("preparing the data", float("inf"))
    time.sleep(0.5)
    watching[1].close()  # no heartbeat, as when Python's lock is held
    time.sleep(1.0)
    assert not ended


def test_all_end_with_the_reason_of_the_first(watchdogs):
    watching, ended = watchdogs(3, 60.0)
    watching[2]._reason = "process 2: error: the disk is full"
    watching[2]._wake.set()
    for one in watching:
        one._wake.set()
    wait_for(ended, 2, 10)
    assert {ended[0], ended[1]} == {"process 2: error: the disk is full"}


def test_heartbeat_contains_the_stage(watchdogs):
    watching, _ = watchdogs(1, 1.0)
    watching[0].set_stage("in update 1")
    time.sleep(0.3)
    service = watching[0]._client
    assert json.loads(service.values["tfm/heartbeat/0"])[1:] == [
        "in update 1", 1.0, "", watchdog.FAILED,
    ]  # fmt: skip
