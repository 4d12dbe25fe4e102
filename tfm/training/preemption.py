"""What a run is told from outside: SIGTERM, which announces the end of a machine, and SIGINT."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_log = logging.getLogger(__name__)


class BrokenOff(BaseException):
    """What was under way is left undone: the run was told to stop.

    As KeyboardInterrupt, so that nothing on the way takes it for a failure of its own.
    """


class Signals:
    """Listens while its block runs. A second SIGINT interrupts at once.

    Attributes:
      number: of the first signal that came to this process; 0 until there is one.
      told: the name of the signal that the run stops by; empty until there is one. Of several
        processes one alone does not stop: ``agree`` says when.
    """

    def __init__(self, alone: bool = True) -> None:
        self.number, self.told = 0, ""
        self._alone, self._breaking_off = alone, False

    def __enter__(self) -> "Signals":
        numbers = (signal.SIGTERM, signal.SIGINT)
        self._before = {number: signal.signal(number, self._tell) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def agree(self, number: int) -> None:
        """Takes the signal that one of the processes got, 0 if none did."""
        if number and not self.told:
            self.told = signal.Signals(number).name

    @contextmanager
    def may_break_off(self) -> Iterator[None]:
        """For what takes long and can be done again: a notice gives half a minute.

        One process of several does not break off: the others would wait for it.

        Raises:
          BrokenOff: the run was told to stop, before or in the block.
        """
        self._breaking_off = self._alone
        try:
            if self.told:
                raise BrokenOff
            yield
        finally:
            self._breaking_off = False

    def _tell(self, number: int, _: Any) -> None:
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.number:
            self.number = number
            _log.warning(f"{signal.Signals(number).name}: saving, then stopping")
        if self._alone:
            self.agree(number)
        if self._breaking_off:
            self._breaking_off = False
            raise BrokenOff
