"""A process that dies, hangs or is stuck ends the others with one line: none waits for ever.

The others would wait in the middle of an update, in code that no exception reaches. So two threads
stand beside the main one. The first tells the coordination service, again and again, where the
main thread is, and reads where the others' are: their pulse. The second looks at what is known, on
this process's own clock, and ends the process when a pulse is missing or nothing goes on.
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
"""Exit code of a process that ends because of another: to launchers a failure like others."""

AGAIN = "start the same command for all again: it goes on from the newest checkpoint"
"""What to do about it."""


class Watch:
    """Watches over one process and, through the coordination service, over the others."""

    def __init__(self, timeout: float, process: int | None, processes: int | None) -> None:
        """Starts to watch; ``join`` once the processes have found each other.

        Args:
          timeout: seconds.
          process, processes: which one of how many, if known already.
        """
        self.timeout, self._index, self._count = timeout, process, processes
        self._interval = min(max(timeout / 30, 0.1), 10.0)
        # Seconds in which this process ran: one that was paused blames nobody when it wakes.
        self._clock = 0.0
        self._stage = ("starting", 1.0, self._clock)
        self._pulses: dict[int, tuple[Any, float]] = {}  # what each said last, and when it was new
        self._answered = self._clock
        self._words, self._beaten, self._over = "", threading.Event(), threading.Event()
        self._hurry = threading.Event()
        self._client: Any = None
        threading.Thread(target=self._guard, daemon=True).start()

    def join(self, client: Any, process: int, processes: int) -> None:
        """Goes on with the coordination service's client, from where the others can be watched."""
        self._client, self._index, self._count = client, process, processes
        self._answered = self._clock
        threading.Thread(target=self._beat, daemon=True).start()

    def at(self, stage: str, times: float = 1.0) -> None:
        """Tells what the main thread does now, in words that follow "is".

        Args:
          times: how many times ``timeout`` it may take. While it may take for ever, only the
            service itself tells who is dead, for it may be work that holds Python's lock.
        """
        self._stage = (stage, times, self._clock)

    @property
    def closed(self) -> bool:
        """Whether nobody is watched any more."""
        return self._over.is_set()

    @property
    def stage(self) -> str:
        """What the main thread does now."""
        return self._stage[0]

    def others_words(self) -> str:
        """Why another process ended, if one said so within two beats."""
        for _ in range(20):
            if said := self._said():
                return said
            time.sleep(self._interval / 10)
        return ""

    def end(self, words: str, echo: str = "") -> NoReturn:
        """Ends this process at once, and with it, by telling them why, the others.

        Args:
          words: one line.
          echo: what another process said, if that is the reason.
        """
        _log.error(f"ends too: {echo}" if echo else words)
        self._words = echo or f"process {self._index}: {words}"
        self._beaten.clear()
        self._hurry.set()
        if self._client is not None:
            self._beaten.wait(2 * self._interval)
        if self._index == 0:  # its end is the service's, from which the others have to hear
            time.sleep(2 * self._interval)
        logging.shutdown()
        sys.stderr.flush()
        os._exit(FAILED)  # an orderly exit would wait for the others

    def close(self) -> None:
        """Ends the watch, when nobody is waited for any more."""
        self._over.set()
        self._hurry.set()

    def _beat(self) -> None:
        """The first thread."""
        number = 0
        while not self._over.is_set():
            said, number = self._words, number + 1
            stage, times, _ = self._stage
            pulse = [number, stage, times if math.isfinite(times) else 0, said]
            try:
                self._client.key_value_set(
                    f"tfm/pulse/{self._index}", json.dumps(pulse), allow_overwrite=True
                )
                found = self._client.key_value_dir_get("tfm/pulse/")
            except jax.errors.JaxRuntimeError as error:
                if not self._over.is_set():
                    _log.debug("no answer from the coordination service: %s", error)
                found = []
            for key, text in found:
                other, pulse = int(key.rpartition("/")[2]), json.loads(text)
                if self._pulses.get(other, (None,))[0] != pulse:
                    self._pulses[other] = pulse, self._clock
                self._answered = self._clock
            if said:
                self._beaten.set()
            self._hurry.wait(self._interval)
            self._hurry.clear()

    def _guard(self) -> None:
        """The second thread."""
        before = time.monotonic()
        while not self._over.wait(self._interval / 2):
            passed, before = time.monotonic() - before, time.monotonic()
            self._clock += min(passed, self._interval)
            if self._words:  # the main thread is ending the process already
                continue
            echo = self._said()
            words = echo or self._missing() or self._stuck()
            if words:
                self.end(f"{words}; {AGAIN}", echo)

    def _said(self) -> str:
        for other, (pulse, _) in sorted(self._pulses.items()):
            if other != self._index and pulse[3]:
                return pulse[3]
        return ""

    def _missing(self) -> str:
        """Who gives no sign of life."""
        now, limit = self._clock, duration(self.timeout)
        if self._client is not None and now - self._answered > self.timeout:
            return (
                f"process 0 has not answered for {limit} (this one is {self._stage[0]}): "
                "it died, hangs or lost the network"
            )
        for other, (pulse, since) in sorted(self._pulses.items()):
            if other != self._index and pulse[2] and now - since > self.timeout:
                return (
                    f"process {other} has given no sign of life for {limit} (it was {pulse[1]}): "
                    "it died, hangs or lost the network"
                )
        return ""

    def _stuck(self) -> str:
        """What has taken too long."""
        stage, times, since = self._stage
        if self._clock - since <= times * self.timeout:
            return ""
        places: dict[str, list[int]] = {}
        for other, (pulse, _) in sorted(self._pulses.items()):
            places.setdefault(pulse[1], []).append(other)
        places = places or {stage: [] if self._index is None else [self._index]}
        where = "; ".join(f"{_named(who)} {stage}" for stage, who in places.items())
        return (
            f"nothing has gone on for {duration(times * self.timeout)}: {where} (--hosts.timeout "
            f"{self.timeout:g} is for work that takes longer)"
        )


def _named(processes: list[int]) -> str:
    if len(processes) < 2:
        return f"process {processes[0]} is" if processes else "this process is"
    shown = ", ".join(map(str, processes[:8])) + (", ..." if len(processes) > 8 else "")
    return f"processes {shown} are"
