"""SIGINT (Ctrl-C) and SIGTERM: as exceptions, also while native code runs, and as exit codes."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

NATIVE = "tfm native call"
"""The name of threads that run native code, which ``leave`` does not wait for."""
_REPEATS = 5.0  # seconds in which a launcher repeats SIGTERM


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end.

    A KeyboardInterrupt, so that what cleans up on Ctrl-C does so on SIGTERM.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"received {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """The exit code that shells give to a process that ended by this signal."""
        return exit_code(self.number)


def exit_code(number: int) -> int:
    """The exit code of a process that a signal ended: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + number


@contextmanager
def raising() -> Iterator[None]:
    """While the block runs, SIGINT and SIGTERM raise ``Stopped`` in the main thread.

    A SIGTERM that follows within seconds is ignored, since launchers repeat it; another SIGINT
    interrupts what cleans up after the first.
    """
    last = -_REPEATS

    def handle(number: int, _: Any) -> None:
        nonlocal last
        repeated = time.monotonic() - last < _REPEATS
        last = time.monotonic()
        if not repeated or number == signal.SIGINT:
            raise Stopped(number)

    def report(unraisable: Any) -> None:
        """Python drops what is raised in a finaliser or a callback: sends the signal again."""
        nonlocal last
        error = unraisable.exc_value
        if not isinstance(error, Stopped):
            return hook(unraisable)
        last = -_REPEATS
        main = threading.main_thread().ident
        timer = threading.Timer(0.05, signal.pthread_kill, (main, error.number))
        timer.daemon = True
        timer.start()

    hook, sys.unraisablehook = sys.unraisablehook, report
    previous = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def interruptible(work: Callable[[], T]) -> T:
    """Calls native code such that a signal interrupts it: in another thread, which is abandoned.

    Python handles a signal only between two instructions of the main thread, so that a compilation
    there would delay it for minutes. The native code must let other threads run.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=NATIVE, daemon=True).start()
    return future.result()


def leave(code: int | str) -> NoReturn:
    """Ends the process as ``sys.exit`` does, but without waiting for abandoned native code."""
    if not any(thread.name == NATIVE for thread in threading.enumerate()):
        sys.exit(code)
    if isinstance(code, str):
        print(code, file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if isinstance(code, str) else code)
