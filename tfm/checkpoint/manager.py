"""Saving and restoring the checkpoints of a run, with retries.

Orbax writes them: asynchronously, every host its own shards, to a local disk or a bucket, and under
a temporary name until complete. It does not detect a flipped bit in the data; the manifest saved
with each checkpoint (``manifest.py``) does.
"""

import logging
import time
from collections.abc import Callable
from os import PathLike
from typing import Any, Literal

import jax
import orbax.checkpoint as ocp
from etils import epath

from tfm import processes, storage
from tfm.checkpoint import manifest, restore
from tfm.checkpoint.restore import Restored, Tree

SaveOutcome = Literal["saved", "retry", "skipped"]  # of an attempt to save

_log = logging.getLogger(__name__)

# The worst error of all processes counts.
_SEVERITY: tuple[storage.ErrorKind | None, ...] = (None, "transient", "full", "permanent")


class CheckpointManager:
    """The checkpoints of one run: a folder that holds one folder for each step.

    Use it as a context manager, or call ``close``. One process, or one group of them, writes to a
    folder at a time; all processes of a group call every method, in the same order.

    A save that fails with a transient error (``storage.error_kind``) is retried: by ``save``, while
    it has the state. If it fails later, in the background, ``needs_retry`` reports it, and the
    caller saves the newer state that it has.
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
        """Opens the folder, created if absent, and removes what an unfinished save left there.

        Args:
          folder: a local path or one in a bucket ("gs://...").
          keep: how many of the newest steps are kept. With two, a damaged newest one has a
            predecessor.
          tries: consecutive failures after which OSError is raised.
          pause: seconds after the first failure, doubled after each further one.
          on_full_disk: "stop" raises OSError, "go_on" logs a warning and skips the save.
          group: the processes that save together.
        """
        self._folder, self._group = restore.absolute_path(folder), group
        self._tries, self._pause, self._on_full_disk = tries, pause, on_full_disk
        self._failures, self._in_background = 0, False
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, cleanup_tmp_directories=True, **restore.ORBAX_OPTIONS
            ),
        )

    def latest(self) -> int | None:
        """The newest step, intact or damaged; None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Tree, position: dict[str, Any], *, wait: bool = False) -> bool:
        """Starts to save; returns as soon as ``state`` may be overwritten or donated.

        A step that is saved already is not saved again: it holds the same state, and the position
        that was saved with it.

        Args:
          step: updates made so far.
          state: pytree of jax arrays of 32 bits or fewer. Random keys need not be among them: they
            are derived from the seed and the step.
          position: whatever else resuming needs, JSON-able: the data stream's state, elapsed
            seconds, the best metric, the early-stopping count.
          wait: return only when the checkpoint is on disk.

        Returns:
          True, or False if it was skipped because the disk is full.

        Raises:
          ValueError: the folder holds a later step: restore it, or save elsewhere.
          OSError: this save or the one before it failed permanently or too often. The checkpoints
            finished before are intact, and the run may continue and save later.
        """
        self._finish_background_save()
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
        while (outcome := self._try_to_save(step, args, wait)) == "retry":
            pass
        return outcome == "saved"

    def needs_retry(self) -> bool:
        """Whether the save in the background has failed, so that the caller must save again.

        Pauses before returning True. Raises OSError as ``save`` does.
        """
        saving = self._in_background and self._manager.is_saving_in_progress()
        if not self._in_background or any(self._group.gather(saving)):
            return False
        return self._finish_background_save() == "retry"

    def restore(self, abstract_state: Tree) -> Restored | None:
        """Reads the newest intact checkpoint, and renames damaged newer ones.

        A damaged checkpoint is reported by one warning, and its folder renamed to
        ``damaged-STEP``, so that the step can be saved again.

        Args:
          abstract_state: pytree of arrays or ``jax.ShapeDtypeStruct`` with the structure, shapes
            and dtypes to restore, and their ``sharding`` (the first local device for leaves without
            one), which may differ from the one they were saved with.

        Returns:
          (step, state, position), or None if the folder holds no checkpoint.

        Raises:
          ValueError: a checkpoint is intact but its arrays are not those of ``abstract_state``; or
            there are checkpoints and none can be read.
        """
        self.wait()
        target = jax.tree.map(_with_sharding, abstract_state)

        def make_target(saved: manifest.Manifest, where: str) -> Tree:
            manifest.check_target(saved, target, where)
            return target

        restored, damaged = restore.newest_intact(self._manager, self._folder, make_target)
        if restored is None:
            return None
        for step, reason in damaged:
            renamed = self._folder / f"damaged-{step}"
            _log.warning(
                f"checkpoint {self._folder / str(step)} is damaged ({reason}): "
                f"resuming from step {restored[0]} instead; it is now {renamed.name}"
            )
            self._rename(self._folder / str(step), renamed)
        if damaged:
            self._manager.reload()
        return restored

    def wait(self) -> None:
        """Waits until the save in progress is on disk.

        Raises:
          OSError: it failed; the checkpoints before it are intact.
        """
        self._finish_background_save(may_retry=False)

    def close(self) -> None:
        """Waits, then ends the threads that save. Raises as ``wait`` does."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def __enter__(self) -> "CheckpointManager":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        # Closing waits for all processes. After an error in this one the others will not come, so
        # it must end without waiting, to report the error.
        if kind is None or self._group.count == 1:
            self.close()

    def _try_to_save(self, step: int, args: ocp.args.Composite, wait: bool) -> SaveOutcome:
        """Starts a save, and finishes it if ``wait``.

        An error at the start is retried by a single process only: several would wait for this one
        at orbax's next barrier.
        """
        error = _caught(lambda: self._manager.save(step, args=args, force=True))
        if error is not None and self._group.count > 1:
            raise OSError(
                f"checkpoints {self._folder}: saving failed ({storage.reason(error)})"
            ) from error
        if error is not None:
            return self._handle_failure(error, storage.error_kind(error), may_retry=True)
        self._in_background = True
        return self._finish_background_save() if wait else "saved"

    def _finish_background_save(self, may_retry: bool = True) -> SaveOutcome:
        """Waits for the save in the background; all processes come to the same outcome."""
        if not self._in_background:
            return "saved"
        self._in_background = False
        error = _caught(self._manager.wait_until_finished)
        severity = _SEVERITY.index(error and storage.error_kind(error))
        worst = _SEVERITY[max(self._group.gather(severity))]
        if worst is None:
            self._failures = 0
            return "saved"
        return self._handle_failure(error or OSError("in another process"), worst, may_retry)

    def _handle_failure(
        self, error: Exception, kind: storage.ErrorKind, may_retry: bool
    ) -> SaveOutcome:
        """Logs the error, then pauses before another try, or raises OSError."""
        for pause in (0.1, 0.3, 1.0, 0.0):  # while a thread still writes there
            if not (cleanup_error := _caught(self._remove_leftovers)):
                break
            time.sleep(pause)
        else:
            _log.debug(f"{self._folder}: leftovers not removed yet: {cleanup_error}")
        latest = self.latest()
        message = (
            f"checkpoints {self._folder}: saving failed ({storage.reason(error)}); "
            f"the newest one is {'none' if latest is None else f'step {latest}'}"
        )
        if kind == "full" and self._on_full_disk == "go_on":
            _log.warning(f"{message}; training continues without it (train.on_full_disk go_on)")
            return "skipped"
        self._failures += 1
        if kind != "transient" or not may_retry or self._failures >= self._tries:
            raise OSError(message) from error
        pause = self._pause * 2 ** (self._failures - 1)
        _log.warning(f"{message}; try {self._failures + 1} of {self._tries} in {pause:g} s")
        time.sleep(pause)
        return "retry"

    def _rename(self, old: epath.Path, new: epath.Path) -> None:
        if self._group.is_primary:
            if new.exists():
                new.rmtree()
            old.rename(new)
        self._group.gather(None)

    def _remove_leftovers(self) -> None:
        """Removes the temporary folders of a failed save.

        If that fails, because a thread still writes there or the storage is down, the next try or
        the next start removes them.
        """
        self._manager.reload()
        if self._group.is_primary:
            for path in filter(ocp.utils.is_tmp_checkpoint, self._folder.iterdir()):
                path.rmtree()


def _with_sharding(x: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(x, "sharding", None) or jax.sharding.SingleDeviceSharding(
        jax.local_devices()[0]
    )
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)


def _caught(action: Callable[[], Any]) -> Exception | None:
    try:
        action()
    except Exception as error:  # tensorstore passes on the errors of every storage
        return error
    return None
