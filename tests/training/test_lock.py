"""One run, one holder: the lock of a run's folder, and what becomes of it when its holder dies."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import locking
import pytest
import tiny

import tfm
from tfm import lock_file, lock_holder, processes
from tfm.run_folder import RunFolder
from tfm.training import lock, loop
from tfm.training.lock import FolderInUse, RunLock

HOLD = """
import sys
from tfm.training.lock import RunLock

with RunLock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of ``tmp_path / "run"``, and ends when its stdin closes."""
    environment = os.environ | {"PYTHONPATH": str(Path(tfm.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def forge(run, age=0.0, **changes):
    """Writes the lock of another process, this one's but for the changes, refreshed ``age`` ago."""
    record = json.loads(lock_holder.describe_this_process()) | {"token": "forged"} | changes
    run.mkdir(exist_ok=True)
    path = RunFolder(run).lock
    path.write_text(json.dumps(record))
    os.utime(path, (time.time() - age,) * 2)
    return path


@contextlib.contextmanager
def refreshing(path):
    """Another process refreshes its lock while the block runs."""
    ended = threading.Event()

    def refresh():
        while not ended.wait(0.3):
            os.utime(path)

    thread = threading.Thread(target=refresh)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_second_run_is_refused_before_anything_is_written(holder, tmp_path, command):
    run = tmp_path / "run"
    experiment = tiny.experiment(tmp_path, tiny.config(tmp_path))
    before, record = files(run), json.loads((run / "lock.json").read_text())
    assert list(before) == [Path("lock.json")] and record["pid"] == holder.pid
    code, out, err = command("train", experiment, "--workdir", run)
    assert (code, out) == (1, b"")
    assert err.splitlines()[-1] == (
        f"tfm train: error: workdir {run}: in use by process {holder.pid} on host "
        f"{record['host']} since {record['since']}: wait until it ends, stop it, or train in "
        "another --workdir"
    )
    assert "Traceback" not in err and files(run) == before

    holder.communicate("")
    assert files(run) == {}
    with RunLock(run):
        pass


def test_the_lock_of_a_killed_process_is_taken_over_at_once(holder, tmp_path, caplog):
    holder.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # a zombie, until it is waited for
    start = time.monotonic()
    with caplog.at_level(logging.INFO, "tfm"), RunLock(tmp_path / "run"):
        assert time.monotonic() - start < 5
        assert json.loads((tmp_path / "run/lock.json").read_text())["pid"] == os.getpid()
    assert f"process {holder.pid} on host" in caplog.text and "has ended" in caplog.text
    assert files(tmp_path / "run") == {}


def test_a_reused_pid_is_no_holder(tmp_path):
    with RunLock(forge(tmp_path, process_start="1").parent):
        pass
    forge(tmp_path)
    with pytest.raises(FolderInUse, match=f"process {os.getpid()} on host"):
        RunLock(tmp_path).__enter__()


def test_a_process_that_cannot_be_asked_is_judged_by_age(tmp_path, monkeypatch):
    """One of another user, on a machine that hides the processes of others."""
    monkeypatch.setattr(lock_holder, "_start_of", lambda pid: None)
    forge(tmp_path, age=10)
    with RunLock(tmp_path, expiry=9):
        pass


def test_another_host_is_judged_by_age(tmp_path, caplog):
    path = forge(tmp_path, age=1000, machine="other", host="far")
    with caplog.at_level(logging.INFO, "tfm"), RunLock(tmp_path):
        pass
    (message,) = caplog.messages
    assert "on host far has given no sign of life for 16m" in message
    # Not refreshed any more, though not long ago: waits for the rest of the time.
    forge(tmp_path, age=4, machine="other", host="far")
    start = time.monotonic()
    with RunLock(tmp_path, expiry=5):
        assert 0.5 < time.monotonic() - start < 60

    # Refreshed while the second one watches.
    forge(tmp_path, age=4, machine="other", host="far")
    with refreshing(path), pytest.raises(FolderInUse) as error:
        RunLock(tmp_path, expiry=60).__enter__()
    assert "on host far since" in str(error.value)
    assert "a lock that is not refreshed for 1m00s is taken over" in str(error.value)


def test_an_unreadable_lock_is_judged_by_age(tmp_path):
    path = RunFolder(tmp_path).lock
    path.write_bytes(b"")  # a process was killed between creating and writing it
    os.utime(path, (1, 1))
    with RunLock(tmp_path):
        pass
    path.write_bytes(b"[1]")
    with refreshing(path), pytest.raises(FolderInUse, match="in use by an unknown process"):
        RunLock(tmp_path).__enter__()


def test_the_holder_refreshes_its_lock(tmp_path):
    with RunLock(tmp_path, interval=0.05):
        path = RunFolder(tmp_path).lock
        os.utime(path, (1, 1))
        time.sleep(1)
        assert time.time() - path.stat().mtime < 100


def test_a_deleted_lock_is_made_again(tmp_path):
    with RunLock(tmp_path, interval=0.05) as held:
        RunFolder(tmp_path).lock.unlink()
        time.sleep(1)
        assert RunFolder(tmp_path).lock.exists()
        held.check()
    assert files(tmp_path) == {}


def test_who_lost_the_lock_stops_and_leaves_it(tmp_path):
    """This host was suspended for so long that another one took over."""
    with RunLock(tmp_path, interval=0.05) as held:
        held.check()
        forge(tmp_path, host="far", machine="other")
        time.sleep(1)
        with pytest.raises(FolderInUse, match="now has the lock of this run"):
            held.check()
    assert json.loads(RunFolder(tmp_path).lock.read_text())["host"] == "far"


def test_before_a_save_the_lock_is_looked_at(tmp_path):
    """The next heartbeat may be due only after the save."""
    with RunLock(tmp_path, interval=60) as held:
        os.utime(RunFolder(tmp_path).lock, (1, 1))
        held.check(now=True)
        assert time.time() - RunFolder(tmp_path).lock.stat().mtime < 100
        forge(tmp_path, host="far", machine="other")
        held.check()
        with pytest.raises(FolderInUse, match="now has the lock of this run"):
            held.check(now=True)


def test_training_stops_without_saving_when_the_lock_is_lost(tmp_path, monkeypatch, quick_compile):
    experiment = tiny.config(tmp_path, train={"stop": "1000u", "log_every": 1}, data={"dev": ()})
    run = tmp_path / "run"

    class Thief(logging.Handler):
        def emit(self, record):
            if record.getMessage().startswith("update 3 |"):
                forge(run, host="far", machine="other")
                time.sleep(1)

    monkeypatch.setattr(lock, "INTERVAL", 0.05)
    logger, thief = logging.getLogger("tfm"), Thief()
    logger.addHandler(thief)
    try:
        with pytest.raises(FolderInUse, match="host far"):
            loop.train(experiment, run)
    finally:
        logger.removeHandler(thief)
    assert not list((run / "checkpoints").iterdir())


def test_a_disk_that_fails_does_not_end_the_holder(tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise OSError(28, "No space left on device")

    with RunLock(tmp_path, interval=0.05) as held:
        monkeypatch.setattr(os, "utime", fail)
        time.sleep(1)
        held.check()
        monkeypatch.undo()
        time.sleep(0.5)
    (message,) = caplog.messages  # one warning, not one a heartbeat
    assert "not refreshed for now: No space left on device" in message
    assert files(tmp_path) == {}


def test_a_disk_that_hangs_does_not_hold_up_the_end(tmp_path, monkeypatch):
    released = threading.Event()
    with RunLock(tmp_path, interval=0.05):
        monkeypatch.setattr(os, "utime", lambda *_: released.wait(30))
        time.sleep(0.5)
        monkeypatch.setattr(lock, "_PATIENCE", 0.2)
        start = time.monotonic()
    assert time.monotonic() - start < 5
    released.set()
    time.sleep(0.5)
    assert files(tmp_path) == {}


def test_a_full_disk_leaves_no_lock(tmp_path, monkeypatch):
    real = os.fdopen

    def full(handle, *args, **kwargs):
        file = real(handle, *args, **kwargs)
        file.close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock_file.os, "fdopen", full)
    with pytest.raises(OSError, match=rf"{tmp_path}.*No space left"):
        RunLock(tmp_path).__enter__()
    assert files(tmp_path) == {}


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_that_start_together_one_wins(tmp_path, stale):
    for _ in range(20):
        if stale:
            forge(tmp_path, process_start="1")
        (winner,) = locking.winners(tmp_path, 8)
        winner.__exit__(None, None, None)
        assert files(tmp_path) == {}


def test_a_failed_run_releases_the_lock(tmp_path):
    experiment = tiny.config(tmp_path, data={"train": ("nowhere", "nowhere")})
    with pytest.raises(FileNotFoundError):
        loop.train(experiment, tmp_path / "run")
    assert not (tmp_path / "run/lock.json").exists()


def test_processes_of_a_group_are_one_holder(tmp_path):
    """Only process 0 takes the lock; the others neither take it nor are refused."""
    with RunLock(tmp_path, processes.Group(0, 2)):
        with RunLock(tmp_path, processes.Group(1, 2)) as other:
            other.check()
        assert RunFolder(tmp_path).lock.exists()
