"""tfm's side on real text: the packed stream alone, and the whole training loop."""

import csv
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from peers.ours import Updates
from tfm import config
from tfm.data import stream
from tfm.training import loop, setup


class Streamed(NamedTuple):
    """What a stretch of the packed stream gave.

    Attributes:
      pairs, target_tokens: real ones, a second.
      density: share of the target cells that hold a token.
      resident_mib, peak_mib: memory of this process, all that it holds.
    """

    pairs: float
    target_tokens: float
    density: float
    resident_mib: float
    peak_mib: float


def configuration(train: tuple[str, ...], pieces: int, rows: int) -> config.Config:
    """The small model on this corpus: rows of 64 target tokens, no validation."""
    return config.Config(
        tokenizer=config.Tokenizer(source_size=pieces, target_size=pieces),
        data=config.Data(train=train, dev=(), test=(), rows=rows, source_length=0),
    )


def stream_speed(c: config.Config, data: setup.Data, batches: int) -> Streamed:
    """Reads batches as fast as they come, as the loop reads them; the first few do not count."""
    reader = stream.batches(data.pairs, data.scan, data.tokenizers, c.data)
    for _ in range(8):
        next(reader)
    pairs = tokens = cells = 0
    start = time.perf_counter()
    for _ in range(batches):
        segments = next(reader)["target_segments"]
        pairs += int(segments.max(axis=1).sum())
        tokens += int((segments != 0).sum())
        cells += segments.size
    seconds = time.perf_counter() - start
    resident = _resident_mib()
    reader.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Streamed(pairs / seconds, tokens / seconds, tokens / cells, resident, peak)


def step_speed(c: config.Config, data: setup.Data, steps: int) -> tuple[float, float]:
    """Target tokens/s of the update alone, on one batch, and the seconds it took to compile."""
    reader = stream.batches(data.pairs, data.scan, data.tokenizers, c.data, prefetch=0)
    batch = next(reader)
    reader.close()
    updates = Updates(c, batch)
    updates(batch)
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        updates(batch)
        times.append(time.perf_counter() - start)
    tokens = int((np.asarray(batch["target_segments"]) != 0).sum())
    return tokens / statistics.median(times), updates.compile_seconds


def loop_speeds(c: config.Config, updates: int, log_every: int) -> list[float]:
    """Real target tokens/s that the training loop logs, interval by interval but the first."""
    settings = replace(
        c.train, stop=f"{updates}u", log_every=log_every, checkpoint_every=updates + 1
    )
    with tempfile.TemporaryDirectory() as folder:
        loop.train(replace(c, train=settings), folder)
        with (Path(folder) / "metrics.tsv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    speeds = [float(r["value"]) for r in rows if r["name"] == "train/tokens_per_second"]
    return speeds[1:]


def _resident_mib() -> float:
    """What this process holds now (Linux), in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
