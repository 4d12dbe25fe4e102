"""Checkpoints: saved while training goes on, checked bit for bit when read back.

Orbax writes them: asynchronously, by every host its own shards, on a local disk or in a bucket, and
under a temporary name until complete. It does not notice a flipped bit in the data: the manifest
saved beside them (``manifest.py``) does.
"""

import contextlib
import gc
import logging
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from tfm.training import manifest

Tree = Any  # any pytree of arrays
MakeTarget = Callable[[manifest.Manifest, str], Tree]  # (manifest, whose) -> what to read

_log = logging.getLogger(__name__)

# Lightweight: a step whose deletion was cut short is not looked into before its turn comes.
_OPTIONS = {"save_root_metadata": False, "lightweight_initialize": True}


class Checkpoints:
    """The checkpoints of one run: a folder that holds one folder per step.

    Use it as a context manager, or call ``close``. One process (or one group of jax processes)
    writes to a folder at a time; all processes of a group call every method.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        """Opens the folder, made if absent, and clears what an unfinished save left there.

        Args:
          folder: a local path or a bucket's ("gs://...").
          keep: how many of the newest steps stay. Two let a damaged newest one be replaced.
        """
        self._folder = _absolute(folder)
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, cleanup_tmp_directories=True, **_OPTIONS
            ),
        )

    def latest(self) -> int | None:
        """The newest step there is, whole or damaged; None when there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Tree, position: dict[str, Any]) -> None:
        """Starts to save; returns as soon as ``state`` may be overwritten or donated.

        A step that is saved already is not saved again: the same step holds the same state.

        Args:
          step: updates made so far.
          state: pytree of jax arrays of 32 bits or fewer. Random keys need not be among them: a
            key follows from the seed and the step.
          position: whatever else it takes to go on, JSON-able: the data stream's state, seconds
            spent, the best metric, the early-stopping count.

        Raises:
          ValueError: the folder holds a later step: restore it, or save elsewhere.
          OSError: this save could not start or the one before it failed, for instance on a full
            disk. The checkpoints finished earlier are intact, and the run may go on and save later.
        """
        latest = self.latest()
        if latest == step:
            return
        if latest is not None and latest > step:
            raise ValueError(
                f"checkpoints {self._folder}: cannot save step {step} after step {latest}; "
                "resume from it, or choose another folder"
            )
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state),
            manifest=ocp.args.JsonSave(manifest.make(state, position)),
        )
        self._writing(lambda: self._manager.save(step, args=args, force=True))

    def restore(self, abstract_state: Tree) -> tuple[int, Tree, dict[str, Any]] | None:
        """Reads the newest checkpoint that is whole, and sets damaged newer ones aside.

        A damaged checkpoint is reported by one warning, and its folder renamed to
        ``damaged-STEP``, which frees the step for saving.

        Args:
          abstract_state: pytree of arrays or ``jax.ShapeDtypeStruct``: the structure, shapes and
            dtypes wanted, and where the arrays go (``sharding``; the first local device where a
            leaf has none). It need not be where they were when saved.

        Returns:
          (step, state, position), or None when the folder holds no checkpoint.

        Raises:
          ValueError: a checkpoint is whole but its arrays are not those of ``abstract_state``; or
            there are checkpoints and none can be read.
        """
        self.wait()
        target = jax.tree.map(_placed, abstract_state)

        def make_target(listed: manifest.Manifest, where: str) -> Tree:
            manifest.check_target(listed, target, where)
            return target

        found, damaged = _newest_whole(self._manager, self._folder, make_target)
        if found is None:
            return None
        for step, reason in damaged:
            aside = self._folder / f"damaged-{step}"
            _log.warning(
                f"checkpoint {self._folder / str(step)} is damaged ({reason}): "
                f"going on from step {found[0]} instead; it is now {aside.name}"
            )
            _rename(self._folder / str(step), aside)
        if damaged:
            self._manager.reload()
        return found

    def wait(self) -> None:
        """Blocks until the save in progress is on disk.

        Raises:
          OSError: it failed; the checkpoints finished earlier are intact.
        """
        self._writing(self._manager.wait_until_finished)

    def close(self) -> None:
        """Waits, then ends the threads that save. Raises as ``wait`` does."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _writing(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # from whatever storage, through tensorstore
            self._manager.reload()
            self._clear_unfinished()
            raise OSError(
                f"checkpoints {self._folder}: saving failed ({_brief(error)}); "
                f"the newest one is {_step_or_none(self.latest())}"
            ) from error

    def _clear_unfinished(self) -> None:
        if jax.process_index() == 0:
            for path in filter(ocp.utils.is_tmp_checkpoint, self._folder.iterdir()):
                # A late writer may still be there; the next to open the folder clears it again.
                with contextlib.suppress(OSError):
                    path.rmtree()


def load(folder: str | Path, only: Sequence[str] = ()) -> tuple[int, Tree, dict[str, Any]]:
    """Reads the newest whole checkpoint without knowing what is in it, on any kind of device.

    This is how a translator reads weights: it changes nothing in the folder.

    Args:
      folder: as for ``Checkpoints``.
      only: the first names of what to read, say ("params",), of those there are; () reads all,
        which nested dicts must hold: an optimizer's state is more than that.

    Returns:
      (step, state, position): the state as nested dicts of NumPy arrays.

    Raises:
      FileNotFoundError: no checkpoint there.
      ValueError: there are checkpoints, and none can be read.
    """
    path = _absolute(folder)
    if not path.is_dir():
        raise FileNotFoundError(f"checkpoints {path}: no such folder")
    with ocp.CheckpointManager(
        path, options=ocp.CheckpointManagerOptions(create=False, **_OPTIONS)
    ) as manager:
        found, damaged = _newest_whole(
            manager, path, lambda listed, _: manifest.numpy_tree(listed, only)
        )
    if found is None:
        raise FileNotFoundError(f"checkpoints {path}: no checkpoint there")
    for step, reason in damaged:
        _log.warning(f"checkpoint {path / str(step)} is damaged ({reason}): reading {found[0]}")
    return found


def _newest_whole(
    manager: ocp.CheckpointManager, folder: epath.Path, make_target: MakeTarget
) -> tuple[tuple[int, Tree, dict[str, Any]] | None, list[tuple[int, str]]]:
    """((step, state, position) or None, [(damaged step, reason)]), newest first."""
    damaged = []
    with _hushed():
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                return (step, *_read(manager, folder, step, make_target)), damaged
            except manifest.Disagreement:
                raise
            except Exception as error:  # damaged files fail in every way there is
                damaged.append((step, _brief(error)))
                time.sleep(0.2)  # for its other reads to end while they are hushed
    if damaged:
        reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged)
        raise ValueError(
            f"checkpoints {folder}: none can be read ({reasons}); "
            "move the folder away to start anew"
        )
    return None, []


def _read(
    manager: ocp.CheckpointManager,
    folder: epath.Path,
    step: int,
    make_target: MakeTarget,
) -> tuple[Tree, dict[str, Any]]:
    """(state, position) of one step, or any error whatever."""
    if not (folder / str(step) / "manifest").is_dir():  # orbax would return None, and log it
        raise ValueError("it has no manifest")
    args = ocp.args.Composite(manifest=ocp.args.JsonRestore())
    listed = manager.restore(step, args=args).manifest
    manifest.check_itself(listed)
    target = make_target(listed, f"checkpoint {folder / str(step)}")
    # Partial: what holds no array (None, an empty optimizer state) is not asked for on disk.
    restore = ocp.args.PyTreeRestore(
        target,
        restore_args=ocp.checkpoint_utils.construct_restore_args(target),
        partial_restore=True,
    )
    state = manager.restore(step, args=ocp.args.Composite(state=restore)).state
    manifest.check_data(listed, state)
    return state, listed["position"]


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Drops what orbax's other reads say when one fails and their event loop is closed.

    They print tracebacks that nothing can catch, where one line names the damage.
    """
    hook, asyncio_log = sys.unraisablehook, logging.getLogger("asyncio")
    level = asyncio_log.level
    sys.unraisablehook = lambda unraisable: _log.debug("%s", unraisable.exc_value)
    asyncio_log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        gc.collect()  # the reads that failed speak when they are collected
        sys.unraisablehook = hook
        asyncio_log.setLevel(level)


def _placed(x: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(x, "sharding", None) or jax.sharding.SingleDeviceSharding(
        jax.local_devices()[0]
    )
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _rename(old: epath.Path, new: epath.Path) -> None:
    if jax.process_index() == 0:
        if new.exists():
            new.rmtree()
        old.rename(new)
    ocp.multihost.sync_global_processes(f"tfm:rename:{old}")


def _absolute(folder: str | Path) -> epath.Path:
    return epath.Path(folder).expanduser().absolute()


def _brief(error: Exception) -> str:
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))  # tensorstore says at length what it was doing
    return textwrap.shorten(f"{type(error).__name__}: {error}", 160, placeholder=" …")


def _step_or_none(step: int | None) -> str:
    return "none" if step is None else f"step {step}"
