"""How the processes of a run find each other, agree, and end together; with stand-ins for JAX."""

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
    """What the coordination service does with keys, for threads in the place of processes."""

    def __init__(self):
        self.kept, self.changed = {}, threading.Condition()

    def key_value_set(self, key, value, allow_overwrite=False):
        with self.changed:
            assert allow_overwrite or key not in self.kept
            self.kept[key] = value
            self.changed.notify_all()

    def key_value_dir_get(self, key):
        with self.changed:
            return [(name, value) for name, value in self.kept.items() if name.startswith(key)]

    def blocking_key_value_get(self, key, milliseconds):
        with self.changed:
            assert self.changed.wait_for(lambda: key in self.kept, milliseconds / 1000)
            return self.kept[key]

    def key_value_delete(self, key):
        with self.changed:
            del self.kept[key]


def together(count, act):
    """What ``act(group)`` gives in each of so many processes."""
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
def test_one_process_is_alone(environment):
    assert hosts.find(processes.Hosts(), environment) is None


def test_each_place_where_there_are_others_is_found():
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
    # JAX asks a TPU machine who it is.
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
def test_half_of_the_flags_are_an_error(given, environment, words):
    with pytest.raises(ValueError) as error:
        hosts.find(given, environment)
    assert words in str(error.value)


def test_alone_nothing_is_started():
    threads = threading.active_count()
    with session.joined(processes.Hosts()) as group:
        assert group is processes.ALONE
        assert threading.active_count() == threads
    assert not jax.distributed.is_initialized()
    assert group.gather({"a": 1}) == [{"a": 1}]
    assert [x.tolist() for x in group.ask([3, 0.5], np.int32(7))] == [[[3, 0.5]], 7]


def test_who_cannot_reach_the_others_says_so_in_time():
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
    assert "process 1 of 2: nothing has gone on for 2.0s: " in line
    assert "waiting for 2 processes to meet at 127.0.0.1:1" in line


# Agreeing


def test_all_gather_the_same_again_and_again():
    found, service = together(3, lambda group: [group.gather([group.index, n]) for n in range(4)])
    assert found == [[[[i, n] for i in range(3)] for n in range(4)]] * 3
    assert len(service.kept) <= 2 * 3  # what everyone has read is taken away


def test_those_in_front_make_what_the_others_find(tmp_path):
    made = []

    def act(group):
        def make():
            made.append(group.index)
            return group.index

        return group.in_turn(group.first, make)

    found, _ = together(3, act)
    assert found == [0, 1, 2]
    assert made[0] == 0
    assert sorted(made) == [0, 1, 2]


def test_a_folder_is_filled_once_where_it_is_shared(tmp_path, monkeypatch):
    shared = lambda group: epath.Path(tmp_path / "all")  # noqa: E731
    own = lambda group: epath.Path(tmp_path / str(group.index // 2))  # noqa: E731
    assert together(4, lambda group: group.fills(shared(group)))[0] == [True] + [False] * 3
    here = threading.local()
    monkeypatch.setattr("socket.gethostname", lambda: here.name)

    def act(group):
        here.name = f"host {group.index // 2}"
        return group.fills(own(group))

    assert together(4, act)[0] == [True, False, True, False]
    together(2, lambda group: group.check_shared(shared(group)))
    assert list((tmp_path / "all").iterdir()) == []
    with pytest.raises(ValueError, match="process 2, 3 than for process 0; several hosts need"):
        together(4, lambda group: group.check_shared(own(group)))


# Ending together


@pytest.fixture
def watched(monkeypatch):
    """``watched(count, timeout)``: watches of so many processes, and what each ends with."""
    ended, made = {}, []

    def end(self, words, echo=""):
        ended[self._index] = echo or words
        self._words = ended[self._index]
        self._hurry.set()
        self._over.wait()

    monkeypatch.setattr(watchdog.Watch, "end", end)

    def make(count, timeout):
        service = Service()
        for i in range(count):
            made.append(watchdog.Watch(timeout, i, count))
            made[-1].join(service, i, count)
        return made, ended

    yield make
    for one in made:
        one.close()


def wait_for(ended, count, seconds):
    end = time.monotonic() + seconds
    while len(ended) < count and time.monotonic() < end:
        time.sleep(0.02)
    return ended


def test_nobody_ends_while_things_go_on(watched):
    watches, ended = watched(2, 1.0)
    for n in range(30):
        for one in watches:
            one.at(f"in update {n}")
        time.sleep(0.1)
    assert not ended


def test_one_without_a_pulse_ends_the_others(watched):
    watches, ended = watched(3, 1.0)
    for one in watches:
        one.at("in update 7", 10)
    time.sleep(0.4)
    assert not ended
    watches[1].close()
    wait_for(ended, 2, 5)
    assert set(ended) == {0, 2}
    for words in ended.values():
        assert "process 1 has given no sign of life for 1.0s (it was in update 7)" in words
        assert watchdog.AGAIN in words


def test_what_is_stuck_is_named(watched):
    watches, ended = watched(3, 1.0)
    for i, one in enumerate(watches):
        one.at("reading the batch of update 8" if i == 1 else "in update 8")
    words = wait_for(ended, 3, 5)[0]
    assert "nothing has gone on for 1.0s: " in words
    assert "processes 0, 2 are in update 8" in words
    assert "process 1 is reading the batch of update 8" in words


def test_work_without_a_limit_is_left_alone(watched):
    watches, ended = watched(2, 0.5)
    watches[0].at("preparing the data", float("inf"))
    watches[1].at("preparing the data", float("inf"))
    time.sleep(0.5)
    watches[1].close()  # Python's lock is taken, say: no pulse
    time.sleep(1.0)
    assert not ended


def test_what_one_says_all_end_with(watched):
    watches, ended = watched(3, 60.0)
    watches[2]._words = "process 2: error: the disk is full"
    watches[2]._hurry.set()
    for one in watches:
        one._hurry.set()
    wait_for(ended, 2, 10)
    assert {ended[0], ended[1]} == {"process 2: error: the disk is full"}


def test_a_pulse_says_where_its_process_is(watched):
    watches, _ = watched(1, 1.0)
    watches[0].at("in update 1")
    time.sleep(0.3)
    service = watches[0]._client
    assert json.loads(service.kept["tfm/pulse/0"])[1:] == ["in update 1", 1.0, ""]
