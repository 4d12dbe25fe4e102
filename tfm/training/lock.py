"""The lock of a run's folder: of two runs that train in one folder, the second is refused.

The lock is a file (``lock_file``) that names the process that holds it. A process of the same
machine can be looked up: if it has ended, even by ``kill -9``, its lock is taken over at once. One
of another machine cannot, so the holder refreshes its lock every ``INTERVAL`` seconds, and a lock
that has not been refreshed for ``EXPIRY`` seconds is taken over. Until then the second process
watches it, and is refused as soon as it sees a refresh.
"""

import contextlib
import logging
import threading
import time
from os import PathLike

from tfm import lock_file, processes, storage
from tfm.lock_holder import Holder, describe_this_process, this_machine
from tfm.run_folder import RunFolder
from tfm.terminal import duration

_log = logging.getLogger(__name__)

INTERVAL = 15.0
"""Seconds between two refreshes."""
EXPIRY = 120.0
"""Seconds without a refresh after which a lock is taken over from another machine."""

_POLL = 0.5  # seconds between looks at a lock that may be refreshed
_PATIENCE = 5.0  # seconds to wait for a refresh in progress when the lock is released


class FolderInUse(OSError):
    """Another process trains in this folder."""


class RunLock:
    """Holds the lock of a run's folder while its block runs; the folder is created if absent.

    Several processes of one run are one holder: process 0 takes the lock, for the others the block
    does nothing.
    """

    def __init__(
        self,
        folder: str | PathLike,
        group: processes.Group = processes.ALONE,
        interval: float | None = None,
        expiry: float = EXPIRY,
    ) -> None:
        """Prepares only; entering the block takes the lock.

        Args:
          folder: the run's folder.
          group: the processes of the run.
          interval: seconds between refreshes; ``INTERVAL`` if not given.
          expiry: see ``EXPIRY``.
        """
        self._folder, self._holds = RunFolder(folder), group.is_primary
        self._interval, self._expiry = interval or INTERVAL, expiry
        self._content, self._version, self._lost = b"", None, ""
        self._ended = threading.Event()

    def __enter__(self) -> "RunLock":
        """Takes the lock.

        Raises:
          FolderInUse: another process holds it.
          OSError: the folder or the lock cannot be created.
        """
        if self._holds:
            self._folder.create()
            self._file = lock_file.at(self._folder.lock)
            self._content = describe_this_process()
            try:
                self._acquire()
            except FolderInUse:
                raise
            except Exception as error:  # each storage has its own
                raise OSError(
                    f"workdir {self._folder}: cannot be locked: {storage.reason(error)}"
                ) from error
            self._thread = threading.Thread(target=self._heartbeat_loop, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._holds:
            return
        self._ended.set()
        self._thread.join(_PATIENCE)
        try:
            self._file.remove(self._version)
        except Exception as error:
            _log.warning(f"{self._folder.lock}: not removed: {storage.reason(error)}")

    def check(self, now: bool = False) -> None:
        """Raises FolderInUse if another process has taken over the lock.

        That happens after this process could not refresh it for long: its machine was suspended, or
        cut off from the storage.

        Args:
          now: look at the lock, instead of relying on the last refresh.
        """
        if now and self._holds:
            with contextlib.suppress(Exception):  # if the storage fails, the save will tell
                self._refresh()
        if self._lost:
            raise FolderInUse(
                f"workdir {self._folder}: {self._lost} now has the lock of this run, which this "
                f"process had not refreshed for {duration(self._expiry)}: stopped without saving, "
                "the other process continues the run"
            )

    def _acquire(self) -> None:
        """Creates the lock file, after removing that of a holder that is gone."""
        first: lock_file.Found | None = None  # as it was when this process started to watch it
        watched = time.monotonic()
        while True:
            self._version = self._file.create(self._content)
            if self._version is not None:
                return
            found = self._file.read()
            if found is None:
                continue
            if first is None or first.version != found.version:
                first, watched = found, time.monotonic()
            holder = Holder.read(found.content)
            alive = holder.is_alive() if holder else None
            if alive is None and found.refreshed != first.refreshed:
                alive = True
            unrefreshed = max(found.age, time.monotonic() - watched)
            if alive:
                raise FolderInUse(self._refusal(holder))
            if alive is None and unrefreshed < self._expiry:
                if found is first:
                    _log.info(
                        f"workdir {self._folder}: was in use by {holder or 'an unknown process'}, "
                        f"{duration(unrefreshed)} ago; waiting up to "
                        f"{duration(self._expiry - unrefreshed)} to see whether it still is"
                    )
                time.sleep(_POLL)
            elif self._file.remove(found.version):
                _log.info(f"workdir {self._folder}: {_end_of(holder, alive, unrefreshed)}")

    def _refusal(self, holder: Holder | None) -> str:
        text = f"workdir {self._folder}: in use by {holder or 'an unknown process'}"
        if holder is None or holder.machine != this_machine():
            text += f" (a lock that is not refreshed for {duration(self._expiry)} is taken over)"
        return f"{text}: wait until it ends, stop it, or train in another --workdir"

    def _heartbeat_loop(self) -> None:
        failing = False
        while not self._ended.wait(self._interval) and not self._lost:
            try:
                self._refresh()
                failing = False
            except Exception as error:  # training goes on: perhaps the storage recovers
                if not failing:
                    _log.warning(
                        f"{self._folder.lock}: not refreshed for now: {storage.reason(error)}"
                    )
                failing = True

    def _refresh(self) -> None:
        """Refreshes the lock; makes it again if somebody deleted it."""
        if self._version is not None and self._file.refresh(self._version):
            return
        found = self._file.read()
        if self._ended.is_set():
            return
        if found is None:
            self._version = self._file.create(self._content)
        elif found.content == self._content:
            self._version = found.version
        else:
            self._lost = str(Holder.read(found.content) or "an unknown process")


def _end_of(holder: Holder | None, alive: bool | None, unrefreshed: float) -> str:
    """Why the lock of a holder is taken over."""
    who = f"process {holder.pid} on host {holder.host}" if holder else "an unknown process"
    if alive is False:
        return f"{who} has ended without releasing it; taken over"
    return f"{who} has given no sign of life for {duration(unrefreshed)}; taken over"
