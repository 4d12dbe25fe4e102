"""tfm's side on real text: the packed data stream, and the whole training loop."""

import csv
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from peers import measure
from peers.measure import Row
from peers.ours import Updates
from tfm import config
from tfm.data import stream
from tfm.run_folder import RunFolder
from tfm.training import loop, setup


class Streamed(NamedTuple):
    """Measurements of the packed stream.

    Attributes:
      pairs, target_tokens: per second, padding not counted.
      density: the share of target positions that hold a token.
      resident_mib, peak_mib: memory of this whole process.
    """

    pairs: float
    target_tokens: float
    density: float
    resident_mib: float
    peak_mib: float


def configuration(train: tuple[str, ...], pieces: int, rows: int) -> config.Config:
    """The small model on a corpus: rows of 64 target tokens, no validation."""
    return config.Config(
        tokenizer=config.Tokenizer(source_size=pieces, target_size=pieces),
        data=config.Data(train=train, dev=(), test=(), rows=rows, source_length=0),
    )


def compare_stream(experiment: config.Config, batches: int, steps: int) -> list[Row]:
    """Measures the stream against the update that consumes it.

    Args:
      batches: how many to read.
      steps: updates to time.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = setup.open_data(experiment, Path(folder))
    experiment = setup.resolve(experiment, data)
    details = stream_speed(experiment, data, batches)._asdict()
    step, compile_seconds = step_speed(experiment, data, steps)
    sizes = experiment.data
    work = (
        f"{' '.join(sizes.train)}, {sizes.rows} rows of {sizes.source_length}/{sizes.target_length}"
    )
    speeds = {"packed stream": [details.pop("target_tokens")], "update, d=256 3+3": [step]}
    stream_row, step_row = measure.from_speeds(work, speeds)
    return [
        replace(stream_row, details=details),
        replace(step_row, compile_seconds=compile_seconds),
    ]


def stream_speed(experiment: config.Config, data: setup.Data, batches: int) -> Streamed:
    """Reads batches as fast as possible, as the loop reads them; the first eight do not count."""
    reader = stream.batches(data.pairs, data.scan, data.tokenizers, experiment.data)
    for _ in range(8):
        next(reader)
    pairs = tokens = positions = 0
    start = time.perf_counter()
    for _ in range(batches):
        segments = next(reader).target_segments
        pairs += int(segments.max(axis=1).sum())
        tokens += int((segments != 0).sum())
        positions += segments.size
    seconds = time.perf_counter() - start
    resident = _resident_mib()
    reader.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Streamed(pairs / seconds, tokens / seconds, tokens / positions, resident, peak)


def step_speed(experiment: config.Config, data: setup.Data, steps: int) -> tuple[float, float]:
    """Target tokens/s of the update alone, on one batch, and the seconds it took to compile."""
    reader = stream.batches(data.pairs, data.scan, data.tokenizers, experiment.data, prefetch=0)
    batch = next(reader)
    reader.close()
    updates = Updates(experiment, batch)
    updates(batch)
    times = [measure.seconds(lambda: updates(batch)) for _ in range(steps)]
    tokens = int((np.asarray(batch.target_segments) != 0).sum())
    return tokens / statistics.median(times), updates.compile_seconds


def loop_speeds(experiment: config.Config, updates: int, log_every: int) -> list[float]:
    """Target tokens/s without padding that the loop logs, interval by interval but the first."""
    train = replace(
        experiment.train, stop=f"{updates}u", log_every=log_every, checkpoint_every=updates + 1
    )
    with tempfile.TemporaryDirectory() as folder:
        loop.train(replace(experiment, train=train), folder)
        with RunFolder(folder).metrics.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    speeds = [float(r["value"]) for r in rows if r["name"] == "train/tokens_per_second"]
    return speeds[1:]


def _resident_mib() -> float:
    """The memory that this process uses now (Linux), in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20
