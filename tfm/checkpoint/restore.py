"""Finds the newest checkpoint of a folder that is whole, and reads it."""

import contextlib
import gc
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from tfm import storage
from tfm.checkpoint import manifest

Tree = Any  # any pytree of arrays
MakeTarget = Callable[[manifest.Manifest, str], Tree]  # (manifest, whose) -> what to read
Found = tuple[int, Tree, dict[str, Any]]  # step, state, position

_log = logging.getLogger(__name__)


def whole(
    manager: ocp.CheckpointManager, folder: epath.Path, make_target: MakeTarget
) -> tuple[Found | None, list[tuple[int, str]]]:
    """Reads the newest checkpoint that can be read.

    Args:
      make_target: (manifest, what it belongs to, for messages) → the arrays to read into.

    Returns:
      ((step, state, position) or None, [(damaged newer step, reason), ...]).

    Raises:
      ValueError: there are checkpoints and none can be read, or ``make_target`` refuses one.
    """
    damaged = []
    with _hushed():
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                return (step, *_read(manager, folder, step, make_target)), damaged
            except manifest.Disagreement:
                raise
            except Exception as error:  # damaged files fail in every way there is
                if jax.process_count() > 1 and not isinstance(error, manifest.Damage):
                    # Each reads its own part: the others may find nothing wrong with theirs.
                    raise ValueError(
                        f"checkpoint {folder / str(step)} cannot be read ({storage.reason(error)}):"
                        " start once with one process, which sets it aside, or move it away"
                    ) from error
                damaged.append((step, storage.reason(error)))
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
        raise manifest.Damage("it has no manifest")
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
