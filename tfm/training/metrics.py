"""The record of a run: log lines, ``metrics.tsv`` and TensorBoard curves, in the run's folder."""

import csv
import io
import logging
import resource
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from tensorboardX import SummaryWriter, record_writer

from tfm import storage
from tfm.terminal import Stopwatch, duration
from tfm.training.step import Metrics

_log = logging.getLogger(__name__)
_COLUMNS = ("update", "name", "value")


class Record:
    """Collects the metrics of updates and writes them down every now and then."""

    def __init__(
        self,
        folder: epath.Path,
        step: int,
        validated: int,
        cells: int,
        unfinished: Sequence[Sequence[float]] = (),
        writes: bool = True,
    ) -> None:
        """Opens the record, forgetting what was written after ``step`` by a run that was killed.

        Args:
          folder: of the run.
          step: the update to go on from.
          validated: the update of the last validation that is not to be done again.
          cells: places for target tokens in a batch, for the density.
          unfinished: what ``unfinished`` gave when the run stopped.
          writes: whether anything is written: of several processes one does.
        """
        self._cells, self._writes = cells, writes
        self._metrics = [Metrics(*values) for values in unfinished]
        self._untimed = len(self._metrics)
        self.training_time = Stopwatch()
        if not writes:
            return
        self._path = folder / "metrics.tsv"
        record_writer.register_writer_factory("tfm", _Curves())
        self._board = SummaryWriter(f"tfm:{folder / 'tensorboard'}", purge_step=step + 1)
        last = lambda name: validated if name.startswith("dev/") else step  # noqa: E731
        kept = [row for row in _rows(self._path) if int(row[0]) <= last(row[1])]
        text = "".join("\t".join(row) + "\n" for row in (_COLUMNS, *kept))
        storage.write_atomically(self._path, text.encode())
        self._file = storage.Growing(self._path)
        self._writer = csv.writer(self._file, delimiter="\t", lineterminator="\n")

    def add(self, metrics: Metrics) -> None:
        """Takes the metrics of one update, on the host."""
        self._metrics.append(metrics)

    def unfinished(self) -> list[list[float]]:
        """The metrics of the updates since the last ``log``, JSON-able: for who goes on later."""
        return [[float(value) for value in metrics] for metrics in self._metrics]

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes named values of an update to the TSV and the curves."""
        if not self._writes:
            return
        for name, value in values.items():
            self._writer.writerow((step, name, f"{value:.6g}"))
            if np.isfinite(value):  # a curve has no place for others, and a warning for each
                self._board.add_scalar(name, value, step)
        self._file.flush()

    def log(self, step: int, epochs: float, elapsed: float, learning_rate: float) -> str:
        """Sums up the updates since the last call; returns a few words for the progress bar."""
        m = Metrics(*np.asarray(self._metrics, np.float64).T)
        good = m.bad_steps == 0
        weights = m.target_tokens * good
        timed_tokens = float(m.target_tokens[self._untimed :].sum())
        mean = lambda x: float(np.average(x[good], weights=weights[good])) if good.any() else np.nan  # noqa: E731
        values = {
            "train/loss": mean(m.loss),
            "train/nll": mean(m.nll),
            "train/accuracy": mean(m.correct),
            "train/gradient_norm": mean(m.gradient_norm),
            "train/learning_rate": learning_rate,
            "train/tokens_per_second": timed_tokens / self.training_time.seconds,
            "train/density": float(m.target_tokens.mean()) / self._cells,
            "train/skipped": float((~good).sum()),
            "train/epochs": epochs,
            "train/memory_mib": _memory() / 2**20,
        }
        self.write(step, values)
        v = {name.split("/")[1]: value for name, value in values.items()}
        _log.info(
            f"update {step:,} | {epochs:.2f} epochs | {duration(elapsed)} | loss {v['loss']:.3f} | "
            f"nll {v['nll']:.3f} | acc {v['accuracy']:.1%} | {v['tokens_per_second']:,.0f} tok/s | "
            f"density {v['density']:.1%} | grad {v['gradient_norm']:.2f} | "
            f"lr {learning_rate:.2e} | mem {v['memory_mib']:,.0f} MiB"
            + (f" | {int(v['skipped'])} skipped" if v["skipped"] else "")
        )
        self._metrics, self._untimed, self.training_time = [], 0, Stopwatch()
        return f"loss {v['loss']:.3f}, {v['tokens_per_second']:,.0f} tok/s"

    def flush(self) -> None:
        """Sees to it that all is written: a checkpoint holds nothing of what came before it."""
        if self._writes:
            self._file.flush(now=True)

    def close(self) -> None:
        """Ends the files."""
        if not self._writes:
            return
        self._file.close()
        self._board.close()


class _Curves:
    """Where tensorboardX opens its files. Its own files would end its thread on a full disk, and
    with it the run: nobody would take what is to be written.
    """

    def open(self, path: str) -> storage.Growing:
        return storage.Growing(path.removeprefix("tfm:"))

    def directory_check(self, path: str) -> None:
        """Nothing to do: a file makes its folder."""


def _rows(path: epath.Path) -> list[list[str]]:
    if not path.exists():
        return []
    text = io.StringIO(path.read_text(encoding="utf-8"), newline="")
    rows: list[list[Any]] = list(csv.reader(text, delimiter="\t"))[1:]
    return [row for row in rows if len(row) == len(_COLUMNS)]  # a killed run may leave half a line


def _memory() -> float:
    """Peak bytes in use on the first device, or by this process where devices do not say."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
