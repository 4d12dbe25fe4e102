"""Checkpoints: saved while training goes on, checked bit for bit when read back.

Orbax writes them: asynchronously, by every host its own shards, on a local disk or in a bucket, and
under a temporary name until complete. It does not notice a flipped bit in the data: the manifest
saved beside them (``manifest.py``) does.
"""

import logging
import time
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from etils import epath

from tfm import processes, storage
from tfm.checkpoint import manifest, restore
from tfm.checkpoint.restore import Found, Tree

Outcome = Literal["done", "again", "without"]  # saved, to be tried again, not saved

_log = logging.getLogger(__name__)

_SEVERITY = (None, "passing", "full", "lasting")  # of all processes' troubles the worst counts

# Lightweight: a step whose deletion was cut short is not looked into before its turn comes.
_OPTIONS = {"save_root_metadata": False, "lightweight_initialize": True}


class Checkpoints:
    """The checkpoints of one run: a folder that holds one folder per step.

    Use it as a context manager, or call ``close``. One process, or one group of them, writes to a
    folder at a time; all processes of a group call every method, in the same order.

    A save that fails for a moment (``storage.trouble`` says which) is tried again, by ``save``
    while it has the state. What fails later, in the background, is told by ``failed``: the caller
    then saves the newer state it has.
    """

    def __init__(
        self,
        folder: str | PathLike,
        keep: int = 2,
        *,
        tries: int = 5,
        pause: float = 1.0,
        on_full_disk: Literal["stop", "go_on"] = "stop",
        group: processes.Group = processes.ALONE,
    ) -> None:
        """Opens the folder, made if absent, and clears what an unfinished save left there.

        Args:
          folder: a local path or a bucket's ("gs://...").
          keep: how many of the newest steps stay. Two let a damaged newest one be replaced.
          tries: failures in a row that are too many.
          pause: seconds after the first failure, doubled after each more.
          on_full_disk: "stop" raises OSError, "go_on" warns and leaves it at that.
          group: the processes that write together.
        """
        self._folder, self._group = _absolute(folder), group
        self._tries, self._pause, self._on_full_disk = tries, pause, on_full_disk
        self._failures, self._in_background = 0, False
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, cleanup_tmp_directories=True, **_OPTIONS
            ),
        )

    def latest(self) -> int | None:
        """The newest step there is, whole or damaged; None when there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Tree, position: dict[str, Any], *, wait: bool = False) -> bool:
        """Starts to save; returns as soon as ``state`` may be overwritten or donated.

        A step that is saved already is not saved again: it holds the same state, and the position
        that it was saved with.

        Args:
          step: updates made so far.
          state: pytree of jax arrays of 32 bits or fewer. Random keys need not be among them: a
            key follows from the seed and the step.
          position: whatever else it takes to go on, JSON-able: the data stream's state, seconds
            spent, the best metric, the early-stopping count.
          wait: return when it is on disk.

        Returns:
          True, or False where the disk is full and the run is to go on.

        Raises:
          ValueError: the folder holds a later step: restore it, or save elsewhere.
          OSError: this save or the one before it failed, for good or too often. The checkpoints
            finished earlier are intact, and the run may go on and save later.
        """
        self._settle()
        latest = self.latest()
        if latest == step:
            return True
        if latest is not None and latest > step:
            raise ValueError(
                f"checkpoints {self._folder}: cannot save step {step} after step {latest}; "
                "resume from it, or choose another folder"
            )
        args = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state),
            manifest=ocp.args.JsonSave(manifest.make(state, position)),
        )
        while (outcome := self._start(step, args, wait)) == "again":
            pass
        return outcome == "done"

    def failed(self) -> bool:
        """Whether the save in the background came to nothing, so that another is due.

        The pause before that try is made here. Raises OSError as ``save`` does.
        """
        saving = self._in_background and self._manager.is_saving_in_progress()
        if not self._in_background or any(self._group.gather(saving)):
            return False
        return self._settle() == "again"

    def restore(self, abstract_state: Tree) -> Found | None:
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

        found, damaged = restore.whole(self._manager, self._folder, make_target)
        if found is None:
            return None
        for step, reason in damaged:
            aside = self._folder / f"damaged-{step}"
            _log.warning(
                f"checkpoint {self._folder / str(step)} is damaged ({reason}): "
                f"going on from step {found[0]} instead; it is now {aside.name}"
            )
            self._rename(self._folder / str(step), aside)
        if damaged:
            self._manager.reload()
        return found

    def wait(self) -> None:
        """Blocks until the save in progress is on disk; OSError if it fails, and others stay."""
        self._settle(may_try_again=False)

    def close(self) -> None:
        """Waits, then ends the threads that save. Raises as ``wait`` does."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        # After an error in one of several processes the others do not come: it ends, and says why.
        if kind is None or self._group.count == 1:
            self.close()

    def _start(self, step: int, args: ocp.args.Composite, wait: bool) -> Outcome:
        """Starts a save. What goes wrong so early only a process that is alone can mend: others
        stand at orbax's next barrier.
        """
        error = _caught(lambda: self._manager.save(step, args=args, force=True))
        if error is not None and self._group.count > 1:
            raise OSError(
                f"checkpoints {self._folder}: saving failed ({storage.reason(error)})"
            ) from error
        if error is not None:
            return self._judge(error, storage.trouble(error), True)
        self._in_background = True
        return self._settle() if wait else "done"

    def _settle(self, may_try_again: bool = True) -> Outcome:
        """Waits for the save in the background; all processes come to the same conclusion."""
        if not self._in_background:
            return "done"
        self._in_background = False
        error = _caught(self._manager.wait_until_finished)
        severity = _SEVERITY.index(error and storage.trouble(error))
        worst = _SEVERITY[max(self._group.gather(severity))]
        if worst is None:
            self._failures = 0
            return "done"
        return self._judge(error or OSError("in another process"), worst, may_try_again)

    def _judge(self, error: Exception, trouble: storage.Trouble, may_try_again: bool) -> Outcome:
        """Says what went wrong, and pauses before another try or raises."""
        if late := _caught(self._tidy):
            _log.debug(f"{self._folder}: not tidied up yet: {late}")
        latest = self.latest()
        message = (
            f"checkpoints {self._folder}: saving failed ({storage.reason(error)}); "
            f"the newest one is {'none' if latest is None else f'step {latest}'}"
        )
        if trouble == "full" and self._on_full_disk == "go_on":
            _log.warning(f"{message}; going on without, as train.on_full_disk says")
            return "without"
        self._failures += 1
        if trouble != "passing" or not may_try_again or self._failures >= self._tries:
            raise OSError(message) from error
        pause = self._pause * 2 ** (self._failures - 1)
        _log.warning(f"{message}; try {self._failures + 1} of {self._tries} in {pause:g} s")
        time.sleep(pause)
        return "again"

    def _rename(self, old: epath.Path, new: epath.Path) -> None:
        if self._group.first:
            if new.exists():
                new.rmtree()
            old.rename(new)
        self._group.gather(None)

    def _tidy(self) -> None:
        """Clears what a failed save left. Where a late writer is still at it, or the storage fails
        again, that is left to the next to open the folder.
        """
        self._manager.reload()
        if self._group.first:
            for path in filter(ocp.utils.is_tmp_checkpoint, self._folder.iterdir()):
                path.rmtree()


def load(folder: str | PathLike, only: Sequence[str] = ()) -> Found:
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
        found, damaged = restore.whole(
            manager, path, lambda listed, _: manifest.numpy_tree(listed, only)
        )
    if found is None:
        raise FileNotFoundError(f"checkpoints {path}: no checkpoint there")
    for step, reason in damaged:
        _log.warning(f"checkpoint {path / str(step)} is damaged ({reason}): reading {found[0]}")
    return found


def _placed(x: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(x, "sharding", None) or jax.sharding.SingleDeviceSharding(
        jax.local_devices()[0]
    )
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _absolute(folder: str | PathLike) -> epath.Path:
    path = storage.path(folder)
    return path if path.is_absolute() else path.absolute()  # absolute() knows no buckets


def _caught(action: Callable[[], Any]) -> Exception | None:
    try:
        action()
    except Exception as error:  # from whatever storage, through tensorstore
        return error
    return None
