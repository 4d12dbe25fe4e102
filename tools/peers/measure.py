"""Taking times in turns, and saying what was measured: a table on stderr, a JSON file."""

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
    """One party of a comparison, ready to run.

    Attributes:
      name: in the table.
      run: does the work once and returns when it is done, device included; None in a description
        that left its process.
      compile_seconds: spent before the first run at full speed.
      tokens: target tokens in a run; 0 for a bare matrix product.
      flops: floating-point operations of the matrix products in a run.
      rate_of: the name of the side whose FLOP/s are this one's matrix rate; "" for none.
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
    """What was measured of one side; rates are those of the median run.

    Attributes:
      ratio: the first side's tokens/s over this one's; 0 for a bare matrix product.
      rate_share: FLOP/s over those of a bare matrix product in the same framework; 0 if unknown.
      details: other numbers, by name.
      unit: what is counted as a token.
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
    """Processors this process may use: XLA takes them all, and the peers are given as many."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def seconds(run: Callable[[], Any]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def warm_up(run: Callable[[], Any]) -> float:
    """Runs twice; what the first run took beyond the second, which is compilation if any."""
    first, second = seconds(run), seconds(run)
    return max(0.0, first - second)


Maker = Callable[[], Side]  # picklable, such as a functools.partial of a module's function


def compare(work: str, makers: Sequence[Maker], rounds: int, repeats: int) -> list[Row]:
    """Times the sides in turns, A B C A B C ..., so that a slow spell of the machine hits all.

    Each side lives in a process of its own, as it would at work: in one process two frameworks
    fight over the heap and over spinning threads, and both come out slower. A turn begins with a
    run that does not count, for a virtual machine takes back what memory lies idle meanwhile, and
    the run that fills it again took up to twice its time.

    Args:
      work: what they do.
      makers: give the sides; the first is what the others are compared with.
      rounds: turns each side has.
      repeats: runs in a turn that count, each timed.
    """
    with contextlib.ExitStack() as stack:
        homes = [
            stack.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
            for _ in makers
        ]
        # One after the other: compilation is timed, too.
        sides = [
            home.submit(_move_in, maker).result() for home, maker in zip(homes, makers, strict=True)
        ]
        times: dict[str, list[float]] = {side.name: [] for side in sides}
        for _ in range(rounds):
            for side, home in zip(sides, homes, strict=True):
                times[side.name] += home.submit(_times, repeats).result()
    medians = {name: statistics.median(values) for name, values in times.items()}
    gflops = {side.name: side.flops / medians[side.name] / 1e9 for side in sides}
    first = sides[0].tokens / medians[sides[0].name]
    rows = []
    for side in sides:
        rate = side.tokens / medians[side.name]
        rows.append(
            Row(
                work=work,
                side=side.name,
                runs=len(times[side.name]),
                median_seconds=medians[side.name],
                min_seconds=min(times[side.name]),
                compile_seconds=side.compile_seconds,
                tokens_per_second=rate,
                ratio=first / rate if rate else 0.0,
                gflops=gflops[side.name],
                rate_share=gflops[side.name] / gflops[side.rate_of] if side.rate_of else 0.0,
                details=side.details,
            )
        )
    return rows


def _move_in(maker: Maker) -> Side:
    """Makes the one side of this process, where ``_times`` finds it; gives its description."""
    global _resident
    _resident = maker()
    return replace(_resident, run=None)


def _times(repeats: int) -> list[float]:
    _resident.run()
    return [seconds(_resident.run) for _ in range(repeats)]


def from_speeds(work: str, speeds: dict[str, list[float]]) -> list[Row]:
    """Rows from target tokens/s that the sides measured themselves; the median stands for each."""
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    first = next(iter(medians.values()))
    return [
        Row(work, name, len(speeds[name]), tokens_per_second=rate, ratio=first / rate)
        for name, rate in medians.items()
    ]


def machine() -> dict[str, Any]:
    """Where and with what: device, cores, versions, date, and the command that did it."""
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
    # Names are text: ":2x4:" is no emoji, and "[B,T]" no markup.
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
        table.add_column("besides")
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
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
