"""Reading the newest intact checkpoint of a folder."""

import contextlib
import gc
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath

from tfm import storage
from tfm.checkpoint import manifest

Tree = Any  # any pytree of arrays
MakeTarget = Callable[[manifest.Manifest, str], Tree]  # (manifest, checkpoint's name) -> target
Restored = tuple[int, Tree, dict[str, Any]]  # step, state, position

_log = logging.getLogger(__name__)

# Lightweight: a step that was only partly deleted is not read when the manager opens.
ORBAX_OPTIONS = {"save_root_metadata": False, "lightweight_initialize": True}


class Advice(NamedTuple):
    """What to do about a folder of checkpoints, for messages.

    Attributes:
      damaged: if none can be read.
      mismatch: if its arrays are not the expected ones.
    """

    damaged: str = "copy the model again from where it was trained"
    mismatch: str = "put back the config that belongs to these weights"


def load(
    folder: str | PathLike,
    only: Sequence[str] = (),
    expected: Tree = None,
    advice: Advice = Advice(),  # noqa: B008
) -> Restored:
    """Reads the newest intact checkpoint, on any kind of device.

    This is how a translator reads weights; the folder is not changed.

    Args:
      folder: as for ``CheckpointManager``.
      only: first names of the arrays to read, such as ("params",); missing ones are ignored. ()
        reads all, which must form nested dicts; an optimizer's state does not.
      expected: pytree of shapes and dtypes that the arrays must have, which is checked before they
        are read; with ``only``, a dict of such trees by first name. None allows any.
      advice: what to do if something is wrong, for the message.

    Returns:
      (step, state, position): the state as nested dicts of NumPy arrays.

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: there are checkpoints and none can be read, or the arrays are not as expected.
    """
    path = absolute_path(folder)

    def make_target(saved: manifest.Manifest, where: str) -> Tree:
        if expected is not None:
            there = {name.split("/")[0] for name in saved["arrays"]}
            chosen = [name for name in only if name in there] or only
            target = {name: expected[name] for name in chosen} if only else expected
            manifest.check_target(saved, target, where, advice.mismatch, chosen)
        return manifest.numpy_tree(saved, only)

    if not path.is_dir():
        raise FileNotFoundError(f"checkpoints {path}: no such folder")
    with ocp.CheckpointManager(
        path, options=ocp.CheckpointManagerOptions(create=False, **ORBAX_OPTIONS)
    ) as manager:
        restored, damaged = newest_intact(manager, path, make_target, advice.damaged)
    if restored is None:
        raise FileNotFoundError(f"checkpoints {path}: no checkpoint there")
    for step, reason in damaged:
        _log.warning(f"checkpoint {path / str(step)} is damaged ({reason}): reading {restored[0]}")
    return restored


def newest_intact(
    manager: ocp.CheckpointManager,
    folder: epath.Path,
    make_target: MakeTarget,
    advice: str = "move the folder away to start from scratch",
) -> tuple[Restored | None, list[tuple[int, str]]]:
    """Reads the newest checkpoint that is intact.

    Args:
      make_target: (manifest, the checkpoint's name for messages) → the arrays to read into.
      advice: what to do if none can be read, for the message.

    Returns:
      ((step, state, position) or None, [(damaged newer step, reason), ...]).

    Raises:
      ValueError: there are checkpoints and none can be read, or ``make_target`` raises it.
    """
    damaged: list[tuple[int, str]] = []
    with _silenced():
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                return (step, *_read(manager, folder, step, make_target)), damaged
            except manifest.StructureMismatch:
                raise
            except Exception as error:  # damaged files raise all kinds of errors
                if jax.process_count() > 1 and not isinstance(error, manifest.DamagedCheckpoint):
                    # Each process reads its own shards: others may have read theirs well.
                    raise ValueError(
                        f"checkpoint {folder / str(step)} cannot be read ({storage.reason(error)}):"
                        " start once with one process, which renames it, or move it away"
                    ) from error
                damaged.append((step, storage.reason(error)))
                time.sleep(0.2)  # its other reads end meanwhile, silenced
    if damaged:
        reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged)
        raise ValueError(f"checkpoints {folder}: none can be read ({reasons}); {advice}")
    return None, []


def _read(
    manager: ocp.CheckpointManager,
    folder: epath.Path,
    step: int,
    make_target: MakeTarget,
) -> tuple[Tree, dict[str, Any]]:
    """(state, position) of one step; damaged files raise errors of any type."""
    if not (folder / str(step) / "manifest").is_dir():  # orbax would return None, and log it
        raise manifest.DamagedCheckpoint("it has no manifest")
    args = ocp.args.Composite(manifest=ocp.args.JsonRestore())
    saved = manager.restore(step, args=args).manifest
    manifest.check_itself(saved)
    target = make_target(saved, f"checkpoint {folder / str(step)}")
    # Partial: nodes without arrays (None, an empty optimizer state) are not on disk.
    restore = ocp.args.PyTreeRestore(
        target,
        restore_args=ocp.checkpoint_utils.construct_restore_args(target),
        partial_restore=True,
    )
    state = manager.restore(step, args=ocp.args.Composite(state=restore)).state
    manifest.check_data(saved, state)
    return state, saved["position"]


def absolute_path(folder: str | PathLike) -> epath.Path:
    """The path as orbax needs it: absolute, or in a bucket."""
    path = storage.path(folder)
    return path if path.is_absolute() else path.absolute()  # absolute() fails for bucket paths


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Drops messages of orbax's other reads when one fails and their event loop is closed.

    They print tracebacks that cannot be caught; our one line reports the damage.
    """
    hook, asyncio_log = sys.unraisablehook, logging.getLogger("asyncio")
    level = asyncio_log.level
    sys.unraisablehook = lambda unraisable: _log.debug("%s", unraisable.exc_value)
    asyncio_log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        gc.collect()  # failed reads print when they are collected
        sys.unraisablehook = hook
        asyncio_log.setLevel(level)
