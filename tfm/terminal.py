"""Log lines and progress bars, both on stderr, and measured time."""

import functools
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tfm import storage

_log = logging.getLogger(__name__)
_FORMAT = "%(asctime)s %(levelname).1s %(message)s"
_DATE = "%Y-%m-%d %H:%M:%S"


@functools.cache
def console() -> Console:
    """The only console, on stderr: stdout is for results."""
    return Console(stderr=True)


def start_logging(level: int = logging.INFO) -> None:
    """Logs to stderr, in colour on a terminal; of other packages only warnings and errors."""
    if console().is_terminal:
        handler: logging.Handler = RichHandler(console=console(), show_path=False, markup=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(_FORMAT, _DATE))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("tfm").setLevel(level)
    # tfds and orbax warn about normal events, and log a traceback of errors that we report.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    # When many reads or writes fail together, one error is raised; the others are unraisable.
    sys.unraisablehook = lambda unraisable: _log.debug("%s", unraisable.exc_value)


def limit_log_to_primary(process: int, processes: int) -> None:
    """Of several processes, all but process 0 log warnings and errors only, with their number."""
    if process == 0:
        return
    message = f"process {process} of {processes}: %(message)s"
    for handler in logging.getLogger().handlers:
        rich = isinstance(handler, RichHandler)
        text = message if rich else _FORMAT.replace("%(message)s", message)
        handler.setFormatter(logging.Formatter(text, _DATE))
    logging.getLogger("tfm").setLevel(logging.WARNING)


class _FileHandler(logging.StreamHandler):
    """Closes its file too: ``logging.shutdown`` calls ``close`` when a process ends abruptly."""

    def close(self) -> None:
        self.stream.close()
        super().close()


@contextmanager
def log_to_file(path: str | os.PathLike) -> Iterator[None]:
    """While the block runs, also appends tfm's log, from level INFO, to a file."""
    handler = _FileHandler(storage.AppendFile(path))
    handler.setFormatter(logging.Formatter(_FORMAT, _DATE))
    logger = logging.getLogger("tfm")
    level = logger.level
    logger.addHandler(handler)
    if not logger.isEnabledFor(logging.INFO):  # ``start_logging`` was not called
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


class Bar:
    """A progress bar with a short text on a terminal; elsewhere it shows nothing."""

    def __init__(self, title: str, shown: bool = True) -> None:
        self._progress = Progress(
            TextColumn(title),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=console(),
            disable=not (shown and console().is_terminal),
            transient=True,
        )
        self._task = self._progress.add_task(title, total=1.0, text="")

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, fraction: float, text: str = "") -> None:
        """Moves the bar to ``fraction`` in [0, 1]."""
        self._progress.update(self._task, completed=min(fraction, 1.0), text=text)


def duration(seconds: float) -> str:
    """Seconds as "1h02m", "3m04s" or "5.2s"."""
    if seconds >= 3600:
        return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02d}m"
    if seconds >= 60:
        return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"
    return f"{seconds:.1f}s"


class Stopwatch:
    """Elapsed seconds, pauses excluded."""

    def __init__(self, elapsed: float = 0.0) -> None:
        self._start = time.monotonic() - elapsed

    @property
    def seconds(self) -> float:
        """Seconds elapsed so far."""
        return time.monotonic() - self._start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent in the block does not count."""
        before = time.monotonic()
        try:
            yield
        finally:
            self._start += time.monotonic() - before


def use_huge_pages() -> None:
    """Restarts this program, once, with huge pages for large arrays, where glibc supports them.

    XLA allocates hundreds of megabytes in every step; with pages of 4 KiB a CPU spends a fifth of a
    training step on page faults. glibc reads the setting only when a process starts.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
