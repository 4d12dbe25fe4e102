"""Timing the sides of a comparison in turns, and reporting it: a table on stderr, a JSON file."""

import contextlib
import datetime
import importlib.metadata
import json
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

PACKAGES = ("tfm", "jax", "jaxlib", "torch", "transformers", "ctranslate2", "joeynmt")


@dataclass
class Side:
    """One side of a comparison, ready to run.

    Attributes:
      name: in the table.
      run: does the work once and returns when the device has finished it; None in the description
        that is sent to the parent process.
      compile_seconds: spent before the first run at full speed.
      tokens: target tokens, or what else the unit is, per run; 0 for a plain matrix product.
      flops: of the matrix products of a run.
      rate_of: the name of the side that runs plain matrix products in the same framework; "" for
        none.
      details: other numbers, by name.
    """

    name: str
    run: Callable[[], None] | None
    compile_seconds: float
    tokens: int
    flops: float
    rate_of: str = ""
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """The measurements of one side; rates are those of the median run.

    Attributes:
      work: what was measured: the title of the table.
      ratio: the first side's tokens/s over this one's; 0 for a plain matrix product.
      rate_share: FLOP/s over those of a plain matrix product in the same framework; 0 if unknown.
      details: other numbers, by name.
      unit: of ``tokens_per_second``.
    """

    work: str
    side: str
    runs: int
    tokens_per_second: float
    ratio: float
    median_seconds: float = 0.0
    min_seconds: float = 0.0
    compile_seconds: float = 0.0
    gflops: float = 0.0
    rate_share: float = 0.0
    details: dict[str, float] = field(default_factory=dict)
    unit: str = "target tok/s"


def cores() -> int:
    """Processors that this process may use: XLA uses all, and so do the peers."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def seconds(run: Callable[[], Any]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def warm_up(run: Callable[[], Any]) -> float:
    """Runs twice; the seconds the first run took beyond the second, which were compilation."""
    first, second = seconds(run), seconds(run)
    return max(0.0, first - second)


Maker = Callable[[], Side]  # picklable, such as a functools.partial of a function in a module


def compare(
    work: str, makers: Sequence[Maker], rounds: int, repeats: int, unit: str = "target tok/s"
) -> list[Row]:
    """Times the sides in turns, A B C A B C ..., so that a slow phase of the machine affects all.

    Each side has a process of its own, as in normal use: in one process two frameworks compete for
    the heap and for spinning threads, and both get slower. Each turn begins with a run that is not
    counted: a virtual machine reclaims memory that stays idle, and the run that fills it again took
    up to twice its time.

    Args:
      work: what they do.
      makers: create the sides; the others are compared with the first.
      rounds: turns of each side.
      repeats: timed runs in a turn.
      unit: of ``Side.tokens`` a second.
    """
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(own_process()) for _ in makers]
        # One after the other, since creating a side may time its compilation.
        sides = [
            process.submit(_create, maker).result()
            for process, maker in zip(processes, makers, strict=True)
        ]
        times: dict[str, list[float]] = {side.name: [] for side in sides}
        for _ in range(rounds):
            for side, process in zip(sides, processes, strict=True):
                times[side.name] += process.submit(_times, repeats).result()
    return [replace(row, unit=unit) for row in _rows(work, sides, times)]


def own_process(*initializer: Any) -> ProcessPoolExecutor:
    """A fresh process that runs what is submitted to it, one call after the other.

    Args:
      initializer: a function and the tuple of its arguments, to run first.
    """
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), *initializer)


def _create(maker: Maker) -> Side:
    """Creates the side of this process, which ``_times`` runs; returns its description."""
    global _side
    _side = maker()
    return replace(_side, run=None)


def _times(repeats: int) -> list[float]:
    _side.run()
    return [seconds(_side.run) for _ in range(repeats)]


def _rows(work: str, sides: Sequence[Side], times: dict[str, list[float]]) -> list[Row]:
    """The rows of all sides, each compared with the first."""
    median = {side.name: statistics.median(times[side.name]) for side in sides}
    rate = {side.name: side.tokens / median[side.name] for side in sides}
    gflops = {side.name: side.flops / median[side.name] / 1e9 for side in sides}
    return [
        Row(
            work=work,
            side=side.name,
            runs=len(times[side.name]),
            median_seconds=median[side.name],
            min_seconds=min(times[side.name]),
            compile_seconds=side.compile_seconds,
            tokens_per_second=rate[side.name],
            ratio=rate[sides[0].name] / rate[side.name] if rate[side.name] else 0.0,
            gflops=gflops[side.name],
            rate_share=gflops[side.name] / gflops[side.rate_of] if side.rate_of else 0.0,
            details=side.details,
        )
        for side in sides
    ]


def from_speeds(work: str, speeds: dict[str, list[float]]) -> list[Row]:
    """Rows of the median target tokens/s of sides that measured themselves."""
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    first = next(iter(medians.values()))
    return [
        Row(work, name, len(speeds[name]), tokens_per_second=rate, ratio=first / rate)
        for name, rate in medians.items()
    ]


def machine() -> dict[str, Any]:
    """The machine and software of a measurement: device, cores, versions, date and command."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": f"{jax.device_count()} {jax.devices()[0].device_kind}",
        "processor": _processor(),
        "cores": cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": versions,
    }


def report(rows: Sequence[Row], json_file: Path | None) -> None:
    """Prints the rows, and writes them with the machine's description to ``json_file``."""
    about = machine()
    # Rich would read ":2x4:" as an emoji and "[B,T]" as markup.
    width = None if sys.stderr.isatty() else 140
    console = Console(stderr=True, width=width, markup=False, emoji=False)
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    console.print(f"{about['processor']}, {about['cores']} cores, JAX on {about['device']}")
    console.print(f"{versions}; {about['date']}\n$ {about['command']}", highlight=False)
    for work in dict.fromkeys(row.work for row in rows):
        console.print(_table(work, [row for row in rows if row.work == work]))
    if json_file:
        content = about | {"rows": [asdict(row) for row in rows]}
        json_file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _table(work: str, rows: Sequence[Row]) -> Table:
    table = Table(title=work, title_justify="left")
    table.add_column("side")
    for name in ("runs", "median", "min", "compile", rows[0].unit, f"{rows[0].side} / side"):
        table.add_column(name, justify="right")
    for name in ("GFLOP/s", "of matrix rate"):
        table.add_column(name, justify="right")
    if any(row.details for row in rows):
        table.add_column("details")
    for row in rows:
        table.add_row(
            row.side,
            str(row.runs),
            f"{row.median_seconds:.4g} s" if row.median_seconds else "",
            f"{row.min_seconds:.4g} s" if row.min_seconds else "",
            f"{row.compile_seconds:.1f} s" if row.compile_seconds else "",
            f"{row.tokens_per_second:,.0f}" if row.tokens_per_second else "",
            f"{row.ratio:.2f}" if row.ratio else "",
            f"{row.gflops:,.1f}" if row.gflops else "",
            f"{row.rate_share:.0%}" if row.rate_share else "",
            *([", ".join(f"{k} {v:,.4g}" for k, v in row.details.items())] if row.details else []),
        )
    return table


def _processor() -> str:
    """The processor's name, as the operating system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
