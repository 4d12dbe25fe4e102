"""Stopping cleanly on SIGTERM, which announces that a machine will be taken away, or on SIGINT."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tfm import signals

_log = logging.getLogger(__name__)


class ValidationInterrupted(BaseException):
    """A stop was requested, so the validation is abandoned; it can be done again later.

    Like KeyboardInterrupt no ``Exception``, so that nothing handles it as a failure of its own.
    """


class PreemptionHandler:
    """Handles SIGTERM and SIGINT while its block runs; a second SIGINT interrupts at once.

    Attributes:
      received: number of the first signal that this process received; 0 until then.
      stop_requested: name of the signal because of which the run stops; empty until then. One of
        several processes does not stop on its own signal but when ``request_stop`` is called.
    """

    def __init__(self, single_process: bool = True) -> None:
        self.received, self.stop_requested = 0, ""
        self._single_process, self._interrupts = single_process, False

    def __enter__(self) -> "PreemptionHandler":
        numbers = (signal.SIGTERM, signal.SIGINT)
        self._previous = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def request_stop(self, number: int) -> None:
        """Requests a stop because of a signal that one of the processes received; 0 is none."""
        if number and not self.stop_requested:
            self.stop_requested = signal.Signals(number).name

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that a signal interrupts: a preemption notice may leave half a minute only.

        With several processes it is not interrupted, since the others would wait for this one.

        Raises:
          ValidationInterrupted: a stop is requested, before or within the block.
        """
        self._interrupts = self._single_process
        try:
            if self.stop_requested:
                raise ValidationInterrupted
            yield
        finally:
            self._interrupts = False

    def _handle(self, number: int, _: Any) -> None:
        if self.received and number == signal.SIGINT:
            raise signals.Stopped(number)
        if not self.received:
            self.received = number
            _log.warning(f"{signal.Signals(number).name}: saving, then stopping")
        if self._single_process:
            self.request_stop(number)
        if self._interrupts:
            self._interrupts = False
            raise ValidationInterrupted
