"""What a person sees while things run: log lines and progress bars, both on stderr."""

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
    """The one console, on stderr: stdout is for translations."""
    return Console(stderr=True)


def start_logging(level: int = logging.INFO) -> None:
    """Sends tfm's log to stderr, in colour on a terminal; other packages' from warnings up."""
    if console().is_terminal:
        handler: logging.Handler = RichHandler(console=console(), show_path=False, markup=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(_FORMAT, _DATE))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("tfm").setLevel(level)
    # tfds and orbax warn about the normal; of an error they print every step of its way up to us.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    # Of many reads or writes that fail together one is raised; the others cannot be.
    sys.unraisablehook = lambda unraisable: _log.debug("%s", unraisable.exc_value)


def speak_for(process: int, processes: int) -> None:
    """Of several processes the first one logs; the others warn only, and say which one warns."""
    if process == 0:
        return
    name = f"process {process} of {processes}: %(message)s"
    for handler in logging.getLogger().handlers:
        rich = isinstance(handler, RichHandler)
        text = name if rich else _FORMAT.replace("%(message)s", name)
        handler.setFormatter(logging.Formatter(text, _DATE))
    logging.getLogger("tfm").setLevel(logging.WARNING)


class _ToFile(logging.StreamHandler):
    """Closes its file too, as ``logging.shutdown`` asks it to when a process has to end at once."""

    def close(self) -> None:
        self.stream.close()
        super().close()


@contextmanager
def log_to_file(path: str | os.PathLike) -> Iterator[None]:
    """Appends tfm's log, from infos up, to a file too, while the block runs."""
    handler = _ToFile(storage.Growing(path))
    handler.setFormatter(logging.Formatter(_FORMAT, _DATE))
    logger = logging.getLogger("tfm")
    level = logger.level
    logger.addHandler(handler)
    if not logger.isEnabledFor(logging.INFO):  # nobody called ``start_logging``
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


class Bar:
    """A progress bar on a terminal, nothing elsewhere; it shows a share and a short text."""

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

    def show(self, share: float, text: str = "") -> None:
        """Moves the bar to ``share`` in [0, 1]."""
        self._progress.update(self._task, completed=min(share, 1.0), text=text)


def duration(seconds: float) -> str:
    """Seconds as "1h02m", "3m04s" or "5.2s"."""
    if seconds >= 3600:
        return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02d}m"
    if seconds >= 60:
        return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"
    return f"{seconds:.1f}s"


class Stopwatch:
    """Seconds since the start, with pauses left out."""

    def __init__(self, already: float = 0.0) -> None:
        self._start = time.monotonic() - already

    @property
    def seconds(self) -> float:
        """Seconds so far."""
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
    """Starts this program over, once, with huge pages for large arrays, where glibc can do that.

    XLA asks malloc for hundreds of megabytes in every step; with pages of 4 KiB a CPU spends a
    fifth of a training step on filling them in. glibc reads the setting at the start only.
    """
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
