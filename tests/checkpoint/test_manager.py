import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tfm import checkpoint
from tfm.checkpoint import CheckpointManager


def make_state(step, width=64):
    """Known content for a step: weights in two dtypes, a flag, a counter, Adam's state, a None."""
    values = np.arange(16 * width, dtype=np.float32).reshape(16, width)
    params = {
        "table": jnp.asarray(np.sin(values + step)),
        "norm": {"scale": jnp.full((8,), step + 0.5, jnp.bfloat16)},
    }
    opt = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)).init(params)
    flag = jnp.array([True, False])
    return {"params": params, "opt": opt, "step": jnp.int32(step), "flag": flag, "ema": None}


def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)


def assert_equal(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def position(step):
    return {"data": {"epoch": 1, "pair": 10 * step}, "seconds": 0.1 + step, "best": None}


def write(folder, *steps):
    with CheckpointManager(folder) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), position(step))


def restored_step(folder):
    """The step that is restored, after checking its content."""
    with CheckpointManager(folder) as checkpoints:
        step, state, where = checkpoints.restore(abstract(make_state(0)))
    assert_equal(state, make_state(step))
    assert where == position(step)
    return step


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    write(folder, 10, 20)
    return folder


@pytest.fixture
def copy(two_steps, tmp_path):
    return shutil.copytree(two_steps, tmp_path / "checkpoints")


def test_state_and_position_are_restored_bit_for_bit_and_silently(tmp_path, capfd, caplog):
    with CheckpointManager(tmp_path) as checkpoints:
        assert checkpoints.latest() is None
        assert checkpoints.restore(abstract(make_state(0))) is None
    write(tmp_path, 3)
    assert restored_step(tmp_path) == 3
    assert not caplog.messages
    assert capfd.readouterr().err == ""


def test_only_the_newest_are_kept(tmp_path):
    write(tmp_path, 1, 2, 3, 4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3", "4"]


def test_state_donated_right_after_save_is_saved_unchanged(tmp_path):
    change = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    state = change({"w": jnp.zeros((1024, 1024))})
    with CheckpointManager(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        for _ in range(5):
            state = change(state)
        _, got, _ = checkpoints.restore(abstract(state))
    assert np.all(got["w"] == 1)
    assert np.all(state["w"] == 6)


def test_a_step_is_saved_once_and_no_earlier_step_after_it(copy):
    with CheckpointManager(copy) as checkpoints:
        checkpoints.save(20, make_state(99), {})
        with pytest.raises(ValueError, match="cannot save step 15 after step 20; resume from it"):
            checkpoints.save(15, make_state(15), {})
    assert restored_step(copy) == 20


def data_file(step_folder):
    return max((step_folder / "state").rglob("d/*"), key=lambda f: f.stat().st_size)


def manifest_file(step_folder):
    return step_folder / "manifest" / "metadata"


def flip_in_the_middle(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0b1000
    file.write_bytes(content)


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def empty(file):
    os.truncate(file, 0)


DAMAGES = (truncate, empty, flip_in_the_middle, os.unlink)


@pytest.mark.parametrize("choose", [data_file, manifest_file])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_newest_checkpoint_is_reported_in_one_line_and_its_predecessor_used(
    copy, choose, damage, caplog, capfd
):
    damage(choose(copy / "20"))
    assert restored_step(copy) == 10
    (message,) = caplog.messages
    assert message.startswith(f"checkpoint {copy / '20'} is damaged (")
    assert message.endswith("resuming from step 10 instead; it is now damaged-20")
    assert capfd.readouterr().err == ""
    # The step can be saved again, and the next start reports nothing.
    write(copy, 20)
    assert restored_step(copy) == 20
    assert len(caplog.messages) == 1


@pytest.mark.slow
def test_whatever_file_is_damaged_no_wrong_state_is_restored(two_steps, tmp_path):
    files = [f.relative_to(two_steps) for f in (two_steps / "20").rglob("*") if f.is_file()]
    assert len(files) > 5
    for i, (file, damage) in enumerate(itertools.product(files, DAMAGES)):
        folder = shutil.copytree(two_steps, tmp_path / str(i))
        if (folder / file).stat().st_size:
            damage(folder / file)
        assert restored_step(folder) in (10, 20)


def test_flipped_bit_that_only_the_manifest_detects(tmp_path, caplog):
    # Random bits do not compress: zstd stores them as they are, and orbax reads changed ones too.
    noise = {"w": jax.random.bits(jax.random.key(0), (65536,), jnp.uint32)}
    with CheckpointManager(tmp_path) as checkpoints:
        checkpoints.save(1, noise, {})
        checkpoints.save(2, noise, {})
        checkpoints.wait()
        flip_in_the_middle(data_file(tmp_path / "2"))
        step, _, _ = checkpoints.restore(abstract(noise))
    assert step == 1
    assert "the checksum of w is wrong" in caplog.text


def test_no_readable_checkpoint_is_an_error_rather_than_a_fresh_start(copy):
    empty(data_file(copy / "10"))
    empty(manifest_file(copy / "20"))
    with (
        CheckpointManager(copy) as checkpoints,
        pytest.raises(ValueError, match=r"none can be read \(20: .*; 10: .*\); move the folder"),
    ):
        checkpoints.restore(abstract(make_state(0)))
    assert {p.name for p in copy.iterdir()} == {"10", "20"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s["params"].update(table=jnp.zeros((16, 65))),
            r"params/table: the checkpoint has float32\[16, 64\], the config float32\[16, 65\];",
        ),
        (
            lambda s: s["params"]["norm"].update(scale=jnp.zeros((8,))),
            r"params/norm/scale: the checkpoint has bfloat16\[8\], the config float32\[8\];",
        ),
        (
            lambda s: s["params"].update(more=jnp.zeros(3), most=jnp.zeros(3)),
            r"params/more: .* has nothing, the config float32\[3\] \(and 1 more\)",
        ),
        (lambda s: s.pop("flag"), r"flag: the checkpoint has bool\[2\], the config nothing"),
    ],
)
def test_another_model_is_refused_with_the_parameter(copy, change, message):
    state = make_state(0)
    change(state)
    with (
        CheckpointManager(copy) as checkpoints,
        pytest.raises(ValueError, match=f"20 and the config disagree at {message}"),
    ):
        checkpoints.restore(abstract(state))
    assert restored_step(copy) == 20


def test_arrays_have_the_sharding_of_the_abstract_state(tmp_path):
    def placed(shape, names):
        mesh = jax.make_mesh(shape, names, (AxisType.Auto,) * len(names))
        return NamedSharding(mesh, P(*names))

    eight, four_by_two = placed((8,), ("data",)), placed((4, 2), ("data", "tensor"))
    w = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    with CheckpointManager(tmp_path) as checkpoints:
        checkpoints.save(1, {"w": jax.device_put(w, eight)}, {})
        for sharding in (eight, four_by_two):
            wanted = {"w": jax.ShapeDtypeStruct(w.shape, w.dtype, sharding=sharding)}
            _, state, _ = checkpoints.restore(wanted)
            assert state["w"].sharding == sharding
            np.testing.assert_array_equal(state["w"], w)
        _, state, _ = checkpoints.restore({"w": jax.ShapeDtypeStruct(w.shape, w.dtype)})
    assert state["w"].devices() == {jax.local_devices()[0]}


def test_load_gives_numpy_arrays_of_any_structure(tmp_path):
    weights = make_state(0)["params"]
    with CheckpointManager(tmp_path / "best", keep=1) as best:
        best.save(1, make_state(1)["params"], {"bleu": 12.5})
        best.save(2, weights, {"bleu": 13.5})
    step, got, info = checkpoint.load(tmp_path / "best")
    assert (step, info) == (2, {"bleu": 13.5})
    assert all(type(x) is np.ndarray for x in jax.tree.leaves(got))
    assert_equal(got, jax.tree.map(np.asarray, weights))


def test_load_reports_missing_and_damaged_checkpoints(tmp_path, caplog):
    with pytest.raises(FileNotFoundError, match="none: no such folder"):
        checkpoint.load(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no checkpoint there"):
        checkpoint.load(tmp_path)
    with CheckpointManager(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"w": jnp.arange(step)}, {})
    truncate(manifest_file(tmp_path / "2"))
    assert checkpoint.load(tmp_path)[0] == 1
    assert "2 is damaged" in caplog.text
    assert (tmp_path / "2").exists()  # load changes nothing


def run_python(code, *arguments, disk=None):
    """Starts Python, with a disk of one megabyte mounted at ``disk`` if given."""
    code = textwrap.dedent(code)
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    if disk:
        if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
            pytest.skip("mounting a small disk is not allowed here")
        mount = f'mount -t tmpfs -o size=1m none {disk} && exec "$@"'
        command = ["unshare", "-rm", "sh", "-c", mount, "sh", *command]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=environment,
    )


def test_full_disk_is_one_clear_error_and_the_checkpoint_before_stays(tmp_path):
    # A limit on file size fails a write in the kernel, as a full disk does.
    process = run_python(
        """
        import resource, signal, sys
        from tests.checkpoint.test_manager import make_state, position
        from tfm.checkpoint import CheckpointManager
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with CheckpointManager(sys.argv[1], keep=1) as checkpoints:
            checkpoints.save(1, make_state(1), position(1))
            checkpoints.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
            try:
                checkpoints.save(2, make_state(2), position(2))
                checkpoints.wait()
            except OSError as error:
                print(error)
            print(checkpoints.latest())
            resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
            checkpoints.save(3, make_state(3), position(3))
        """,
        tmp_path,
    )
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    message, latest = output.strip().splitlines()
    assert message.startswith(f"checkpoints {tmp_path}: saving failed (")
    assert message.endswith("the newest one is step 1")
    assert latest == "1"
    assert restored_step(tmp_path) == 3


SAVE_FOREVER = """
    import sys
    from tests.checkpoint.test_manager import abstract, make_state, position
    from tfm.checkpoint import CheckpointManager
    checkpoints = CheckpointManager(sys.argv[1])
    found = checkpoints.restore(abstract(make_state(0)))
    step = found[0] if found else 0
    print("from", step, flush=True)
    while True:
        step += 1
        checkpoints.save(step, make_state(step), position(step))
        print(step, flush=True)
    """


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_kill_9_at_any_moment_leaves_an_intact_checkpoint(tmp_path, kills):
    moments = random.Random(kills)
    reached = 0
    for _ in range(kills):
        process = run_python(SAVE_FOREVER, tmp_path)
        start = int(process.stdout.readline().split()[1])
        assert start >= reached
        for _ in range(2):
            process.stdout.readline()
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        output, errors = process.communicate(timeout=60)
        assert not errors
        reached = restored_step(tmp_path)
        started = int((output.split() or [start + 2])[-1])
        # One save at a time: all but the last that was reported are on disk.
        assert started - 1 <= reached <= started + 1
    write(tmp_path, reached + 1)
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {str(reached), str(reached + 1)}, "leftovers of unfinished checkpoints"


def test_full_disk_is_skipped_if_configured(tmp_path):
    process = run_python(
        """
        import os, sys
        from tests.checkpoint.test_manager import make_state, position
        from tfm.checkpoint import CheckpointManager
        with CheckpointManager(sys.argv[1], on_full_disk="go_on") as checkpoints:
            assert checkpoints.save(1, make_state(1), position(1), wait=True)
            with open(sys.argv[2], "wb", buffering=0) as filler:
                try:
                    while filler.write(bytes(4096)):
                        pass
                except OSError as error:
                    print(error.strerror)
            assert not checkpoints.save(2, make_state(2, 4096), position(2), wait=True)
            checkpoints.save(3, make_state(3, 4096), position(3))
            checkpoints.wait()
            assert not checkpoints.needs_retry()  # skipped, so not retried before the next save
            assert checkpoints.latest() == 1
            os.unlink(sys.argv[2])
            assert checkpoints.save(4, make_state(4), position(4), wait=True)
        """,
        tmp_path / "checkpoints",
        tmp_path / "filler",
        disk=tmp_path,
    )
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert output.splitlines()[0] == "No space left on device"
    warnings = [line for line in errors.splitlines() if "saving failed" in line]
    assert len(warnings) == 2
    for line in warnings:
        assert "saving failed (No space left on device); the newest one is step 1; training" in line


class Faulty:
    """An orbax manager whose storage fails a number of times."""

    def __init__(self, manager, failures, error, where):
        self._manager, self._left, self._error, self._where = manager, failures, error, where

    def __getattr__(self, name):
        method = getattr(self._manager, name)
        if name != self._where:
            return method

        def fail_first(*args, **kwargs):
            result = method(*args, **kwargs)
            if self._left:
                self._left -= 1
                shutil.rmtree(self._manager.directory / str(self._manager.latest_step()))
                raise self._error
            return result

        return fail_first


TIMEOUT = ValueError("DEADLINE_EXCEEDED: Error writing x")


@pytest.fixture
def pauses(monkeypatch):
    """Records pauses instead of making them."""
    made = []
    monkeypatch.setattr(time, "sleep", made.append)
    return made


def faulty(folder, failures, error=TIMEOUT, where="wait_until_finished", **retries):
    checkpoints = CheckpointManager(folder, **retries)
    checkpoints._manager = Faulty(checkpoints._manager, failures, error, where)
    return checkpoints


def test_transient_errors_are_retried_with_growing_pauses(tmp_path, caplog, pauses):
    with faulty(tmp_path, 3, pause=0.5) as checkpoints:
        assert checkpoints.save(7, make_state(7), position(7), wait=True)
    assert pauses == [0.5, 1.0, 2.0]
    assert [m.split("; ")[-1] for m in caplog.messages] == [
        "try 2 of 5 in 0.5 s", "try 3 of 5 in 1 s", "try 4 of 5 in 2 s",
    ]  # fmt: skip
    assert "saving failed (ValueError: DEADLINE_EXCEEDED: Error writing x)" in caplog.text
    assert restored_step(tmp_path) == 7


def test_failed_background_save_is_replaced_by_a_newer_state(tmp_path, caplog, pauses):
    with faulty(tmp_path, 1) as checkpoints:
        checkpoints.save(7, make_state(7), position(7))
        while checkpoints._manager.is_saving_in_progress():
            pass
        assert checkpoints.needs_retry()
        assert not checkpoints.needs_retry()  # reported once
        checkpoints.save(8, make_state(8), position(8))
    assert len(caplog.messages) == len(pauses) == 1
    assert restored_step(tmp_path) == 8


@pytest.mark.parametrize(
    ("failures", "error", "tried"), [(9, TIMEOUT, 3), (1, PermissionError(13, "denied"), 1)]
)
def test_permanent_and_too_many_transient_errors_are_raised(
    tmp_path, pauses, failures, error, tried
):
    write(tmp_path, 1)
    checkpoints = faulty(tmp_path, failures, error, tries=3)
    with pytest.raises(OSError, match=r"saving failed \(.*\); the newest one is step 1"):
        checkpoints.save(2, make_state(2), position(2), wait=True)
    assert len(pauses) == tried - 1
    assert restored_step(tmp_path) == 1
