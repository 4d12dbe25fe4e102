"""Many files in blocks: killed, shared and started again, they come out as if nothing had been."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import tiny

from tfm import lock_holder
from tfm.translator import bulk


def upper(lines, name, first):
    return "".join(f"{first + i} {line.upper()}\n" for i, line in enumerate(lines)).encode()


def inputs(folder, counts=(25, 0, 7)):
    folder.mkdir()
    return [
        tiny.write(folder / f"{n}.txt", [f"a{n} {i}" for i in range(count)])
        for n, count in enumerate(counts)
    ]


def expected(files):
    result = {}
    for path in files:
        with open(path, encoding="utf-8") as file:
            result[os.path.basename(path)] = upper(file.read().split("\n")[:-1], path, 1)
    return result


def outputs(folder):
    found = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert found.pop("job.json")
    return found


def test_files_are_translated_whole_and_in_order(tmp_path):
    files, out = inputs(tmp_path / "in"), tmp_path / "out"
    bulk.run(files, str(out), upper, {"model": "m"}, block_lines=4)
    assert outputs(out) == expected(files)
    bulk.run(files, str(out), None, {"model": "m"}, block_lines=4)  # nothing is left to do


def test_what_was_done_before_an_end_is_not_done_again(tmp_path):
    files, out, seen = inputs(tmp_path / "in"), tmp_path / "out", []

    def dies(lines, name, first):
        if len(seen) % 3 == 2:
            seen.append(None)
            raise KeyboardInterrupt
        seen.append((name, first))
        return upper(lines, name, first)

    for _ in range(20):
        try:
            bulk.run(files, str(out), dies, {}, block_lines=4)
            break
        except KeyboardInterrupt:
            assert "0.txt" not in {p.name for p in out.iterdir()} or len(seen) > 7
    assert outputs(out) == expected(files)
    done = [x for x in seen if x is not None]
    assert len(done) == len(set(done)) == 7 + 1 + 2
    assert len(seen) > len(done)


def test_another_job_is_refused(tmp_path):
    files, out = inputs(tmp_path / "in"), tmp_path / "out"
    bulk.run(files, str(out), upper, {"model": "m"}, block_lines=4)
    with pytest.raises(ValueError, match="holds another job, which differs in model"):
        bulk.run(files, str(out), upper, {"model": "n"}, block_lines=4)
    with pytest.raises(ValueError, match="differs in block_lines"):
        bulk.run(files, str(out), upper, {"model": "m"}, block_lines=5)
    with pytest.raises(ValueError, match="two files are called 0"):
        bulk.run([files[0], files[0]], str(out), upper, {})
    with pytest.raises(ValueError, match="holds the input 0"):
        bulk.run(files, str(tmp_path / "in"), upper, {})


def claim(pid, **changes):
    """The claim of another process."""
    own = json.loads(lock_holder.describe_this_process())
    return json.dumps(own | {"pid": pid, "process_start": lock_holder._start_of(pid)} | changes)


def test_a_claim_of_the_living_is_respected_and_one_of_the_dead_is_not(tmp_path):
    path = tmp_path / "x.claim"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid, free in ((os.getppid(), False), (gone.pid, True)):
        path.write_text(claim(pid))
        with bulk._claimed(path) as mine:
            assert mine == free
    path.write_text(claim(gone.pid, machine="another"))
    assert not bulk._is_free(path)
    os.utime(path, (time.time() - 100,) * 2)
    assert bulk._is_free(path)


WORKER = """
import sys, time
from tfm.translator import bulk
bulk._PAUSE = 0.05
def write(lines, name, first):
    time.sleep(0.01)
    return "".join(f"{first + i} {line.upper()}\\n" for i, line in enumerate(lines)).encode()
bulk.run(sys.argv[2:], sys.argv[1], write, {}, block_lines=4)
"""


@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_two_processes_killed_leave_no_trace(tmp_path, kills):
    files, out = inputs(tmp_path / "in", (600 * kills, 100)), tmp_path / "out"
    rng = random.Random(0)
    start = lambda: subprocess.Popen([sys.executable, "-c", WORKER, str(out), *files])  # noqa: E731
    work = out / ".0.txt.blocks"
    workers = [start(), start()]
    try:
        for kill in range(kills):
            blocks = lambda: len(list(work.glob("*[0-9]"))) if work.is_dir() else 0  # noqa: E731
            limit = time.monotonic() + 60
            while blocks() < 30 * (kill + 1) + rng.randrange(20) and time.monotonic() < limit:
                time.sleep(0.01)
            assert not (out / "0.txt").exists()
            victim = rng.randrange(2)
            workers[victim].send_signal(signal.SIGKILL)
            workers[victim].wait()
            workers[victim] = start()
        assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    assert outputs(out) == expected(files)


def test_the_command(command, tiny_run, tmp_path):
    lines = tiny.sentences(11, seed=5, words=(1, 2))
    packed = tmp_path / "b.gz"
    packed.write_bytes(gzip.compress("\n".join(lines[:3]).encode()))
    files = [tiny.write(tmp_path / "a", lines), packed]
    out = tmp_path / "out"
    options = ("--model", tiny_run, "--input", *files, "--output-dir", out, "--block-lines", 4)
    code, printed, err = command("translate", *options)
    assert (code, printed) == (0, b""), err
    code, plain, _ = command("translate", "--model", tiny_run, "--input", files[0])
    assert (out / "a").read_bytes() == plain
    assert gzip.decompress((out / "b.gz").read_bytes()) == b"".join(plain.splitlines(True)[:3])
    for wrong in (("--input", *files), ("--output-dir", out)):
        code, _, err = command("translate", "--model", tiny_run, *wrong)
        assert code == 1 and "--output-dir" in err


@pytest.mark.slow
def test_a_model_killed_five_times_in_mid_file(tiny_run, tmp_path):
    """Two processes of the real command; the output equals that of an undisturbed run."""
    source = tiny.write(tmp_path / "text", tiny.sentences(1500, seed=7))
    out = [tmp_path / "once", tmp_path / "killed"]

    def start(folder):
        arguments = ["--model", tiny_run, "--input", source, "--output-dir", folder]
        code = "from tfm.cli import main; main()"
        line = [sys.executable, "-c", code, "translate", *arguments, "--block-lines", "50"]
        return subprocess.Popen(
            list(map(str, line)), stderr=subprocess.DEVNULL, env=os.environ | {"GLIBC_TUNABLES": ""}
        )

    once = start(out[0])
    assert once.wait(timeout=300) == 0
    work, workers = out[1] / ".text.blocks", [start(out[1]), start(out[1])]
    try:
        for kill in range(5):
            while len(list(work.glob("*[0-9]")) if work.is_dir() else []) < 4 * (kill + 1):
                assert workers[kill % 2].poll() is None
                time.sleep(0.05)
            workers[kill % 2].kill()
            workers[kill % 2].wait()
            workers[kill % 2] = start(out[1])
        assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    assert (out[1] / "text").read_bytes() == (out[0] / "text").read_bytes()
