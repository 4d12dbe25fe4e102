"""The watchdog: if one process of a run dies or hangs, all others end with one line that says why.

The others would block in the middle of an update, in native code that no exception reaches. So two
threads run beside the main one. The heartbeat thread reports to the coordination service, again and
again, what its main thread does, and reads the heartbeats of the other processes. The guard thread
checks them against this process's own clock, and ends the process when a heartbeat is missing or
the main thread makes no progress.
"""

import json
import logging
import math
import os
import sys
import threading
import time
from typing import Any, NoReturn

import jax

from tfm.terminal import duration

_log = logging.getLogger(__name__)

FAILED = 1
"""Exit code of a process that ends because of another; to launchers an ordinary failure."""

RESTART_HINT = (
    "start the same command for all processes again: it resumes from the newest checkpoint"
)
"""The end of every line about a process that died or hangs."""


class Watchdog:
    """Watches one process and, through the coordination service, the others of its run."""

    def __init__(self, timeout: float, process: int | None, processes: int | None) -> None:
        """Starts to watch this process; ``connect`` once the processes have found each other.

        Args:
          timeout: seconds without a heartbeat, or in one stage, after which a process ends.
          process, processes: index of this process and their number, if known already.
        """
        self.timeout, self._index, self._count = timeout, process, processes
        self._interval = min(max(timeout / 30, 0.1), 10.0)
        # Seconds in which this process ran: after a pause of its own it must not blame the others.
        self._clock = 0.0
        self._stage = ("starting", 1.0, self._clock)
        self._heartbeats: dict[int, tuple[Any, float]] = {}  # newest, and when it was first seen
        self._last_answer = self._clock
        self._reason, self._code, self._reason_sent = "", FAILED, threading.Event()
        self._closed, self._wake = threading.Event(), threading.Event()
        self._client: Any = None
        threading.Thread(target=self._guard_loop, daemon=True).start()

    def connect(self, client: Any, process: int, processes: int) -> None:
        """Starts to exchange heartbeats through a client of the coordination service."""
        self._client, self._index, self._count = client, process, processes
        self._last_answer = self._clock
        threading.Thread(target=self._heartbeat_loop, daemon=True).start()

    def set_stage(self, stage: str, timeouts: float = 1.0) -> None:
        """Sets what the main thread does from now on.

        Args:
          stage: words that follow "is": "reading the batch of update 7".
          timeouts: how many times ``timeout`` the stage may take. If infinite, a missing heartbeat
            is allowed too, for the work may hold Python's lock; then only JAX notices that a
            process died.
        """
        self._stage = (stage, timeouts, self._clock)

    @property
    def closed(self) -> bool:
        """Whether the watchdog has stopped."""
        return self._closed.is_set()

    @property
    def stage(self) -> str:
        """What the main thread does now."""
        return self._stage[0]

    def reason_of_others(self) -> str:
        """Why another process ended, if it reports that within two heartbeats; else ""."""
        for _ in range(20):
            if reason := self._received()[0]:
                return reason
            time.sleep(self._interval / 10)
        return ""

    def end(self, reason: str, received: str = "", code: int = FAILED) -> NoReturn:
        """Ends this process at once, and the others by sending them the reason.

        Args:
          reason: one line.
          received: the reason that another process sent, if this one ends because of it.
          code: exit code, of the others too; that of the other process if this one ends because
            of it.
        """
        _log.error(f"ends because another process did: {received}" if received else reason)
        self._code = self._received()[1] if received else code
        self._reason = received or f"process {self._index}: {reason}"
        self._reason_sent.clear()
        self._wake.set()
        if self._client is not None:
            self._reason_sent.wait(2 * self._interval)
        if self._index == 0:  # the service ends with it; the others must read the reason first
            time.sleep(2 * self._interval)
        logging.shutdown()
        sys.stderr.flush()
        os._exit(self._code)  # an orderly exit would wait for the other processes

    def close(self) -> None:
        """Stops watching."""
        self._closed.set()
        self._wake.set()

    def _heartbeat_loop(self) -> None:
        number = 0
        while not self._closed.is_set():
            reason, number = self._reason, number + 1
            stage, timeouts, _ = self._stage
            limit = timeouts if math.isfinite(timeouts) else 0
            heartbeat = [number, stage, limit, reason, self._code]
            try:
                self._client.key_value_set(
                    f"tfm/heartbeat/{self._index}", json.dumps(heartbeat), allow_overwrite=True
                )
                found = self._client.key_value_dir_get("tfm/heartbeat/")
            except jax.errors.JaxRuntimeError as error:
                if not self._closed.is_set():
                    _log.debug("no answer from the coordination service: %s", error)
                found = []
            for key, text in found:
                other, heartbeat = int(key.rpartition("/")[2]), json.loads(text)
                if self._heartbeats.get(other, (None,))[0] != heartbeat:
                    self._heartbeats[other] = heartbeat, self._clock
                self._last_answer = self._clock
            if reason:
                self._reason_sent.set()
            self._wake.wait(self._interval)
            self._wake.clear()

    def _guard_loop(self) -> None:
        before = time.monotonic()
        while not self._closed.wait(self._interval / 2):
            passed, before = time.monotonic() - before, time.monotonic()
            self._clock += min(passed, self._interval)
            if self._reason:  # the main thread is ending the process already
                continue
            received = self._received()[0]
            reason = received or self._missing_heartbeat() or self._no_progress()
            if reason:
                self.end(f"{reason}; {RESTART_HINT}", received)

    def _received(self) -> tuple[str, int]:
        """Why another process ended, and with which exit code; ("", FAILED) if none did."""
        for other, (heartbeat, _) in sorted(self._heartbeats.items()):
            if other != self._index and heartbeat[3]:
                return heartbeat[3], heartbeat[4]
        return "", FAILED

    def _missing_heartbeat(self) -> str:
        """Which process has sent no heartbeat for too long; "" if none."""
        now, limit = self._clock, duration(self.timeout)
        if self._client is not None and now - self._last_answer > self.timeout:
            return (
                f"process 0 has not answered for {limit} (this one is {self._stage[0]}): "
                "it died, hangs or lost the network"
            )
        for other, (heartbeat, since) in sorted(self._heartbeats.items()):
            if other != self._index and heartbeat[2] and now - since > self.timeout:
                return (
                    f"process {other} has sent no heartbeat for {limit} (it was {heartbeat[1]}): "
                    "it died, hangs or lost the network"
                )
        return ""

    def _no_progress(self) -> str:
        """What every process does, if this one's stage has taken too long; else ""."""
        stage, timeouts, since = self._stage
        if self._clock - since <= timeouts * self.timeout:
            return ""
        by_stage: dict[str, list[int]] = {}
        for other, (heartbeat, _) in sorted(self._heartbeats.items()):
            by_stage.setdefault(heartbeat[1], []).append(other)
        by_stage = by_stage or {stage: [] if self._index is None else [self._index]}
        stages = "; ".join(f"{_subject(who)} {stage}" for stage, who in by_stage.items())
        return (
            f"no progress for {duration(timeouts * self.timeout)}: {stages} (raise --hosts.timeout "
            f"{self.timeout:g} if this work takes longer)"
        )


def _subject(processes: list[int]) -> str:
    if len(processes) < 2:
        return f"process {processes[0]} is" if processes else "this process is"
    shown = ", ".join(map(str, processes[:8])) + (", ..." if len(processes) > 8 else "")
    return f"processes {shown} are"
