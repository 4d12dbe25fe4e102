"""Metrics of a run: log lines, ``metrics.tsv`` and TensorBoard curves."""

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
from tfm.run_folder import RunFolder
from tfm.terminal import Stopwatch, duration
from tfm.training.step import Metrics

_log = logging.getLogger(__name__)
_COLUMNS = ("update", "name", "value")


class MetricsWriter:
    """Collects the metrics of updates, and writes their means when ``log`` is called.

    Attributes:
      training_time: a stopwatch since the last ``log``, for tokens a second.
    """

    def __init__(
        self,
        folder: RunFolder,
        step: int,
        validated: int,
        cells: int,
        unlogged: Sequence[Sequence[float]] = (),
        writes: bool = True,
    ) -> None:
        """Opens the files, and removes what a killed run wrote after ``step``.

        Args:
          folder: of the run.
          step: the update that training resumes from.
          validated: the update of the last finished validation.
          cells: target positions in a batch, padding included, for the density.
          unlogged: from ``unlogged`` of the run that is resumed.
          writes: whether to write files: of several processes only one does.
        """
        self._cells, self._writes = cells, writes
        self._metrics = [Metrics(*values) for values in unlogged]
        self._untimed = len(self._metrics)
        self.training_time = Stopwatch()
        if not writes:
            return
        record_writer.register_writer_factory("tfm", _TensorBoardFiles())
        self._tensorboard = SummaryWriter(f"tfm:{folder.tensorboard}", purge_step=step + 1)
        last = lambda name: validated if name.startswith("dev/") else step  # noqa: E731
        kept = [row for row in _rows(folder.metrics) if int(row[0]) <= last(row[1])]
        text = "".join("\t".join(row) + "\n" for row in (_COLUMNS, *kept))
        storage.write_atomically(folder.metrics, text.encode())
        self._file = storage.AppendFile(folder.metrics)
        self._tsv = csv.writer(self._file, delimiter="\t", lineterminator="\n")

    def add(self, update: int, metrics: Metrics) -> None:
        """Adds the metrics of one update, on the host; warns if the update was skipped."""
        self._metrics.append(metrics)
        if skipped := int(metrics.bad_steps):
            _log.warning(
                f"update {update:,}: loss {metrics.loss} with gradient norm "
                f"{metrics.gradient_norm} skipped ({skipped} in a row)"
            )

    def unlogged(self) -> list[list[float]]:
        """The metrics of the updates since the last ``log``, JSON-able, for the checkpoint."""
        return [[float(value) for value in metrics] for metrics in self._metrics]

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes named values of an update to the TSV file and to TensorBoard."""
        if not self._writes:
            return
        for name, value in values.items():
            self._tsv.writerow((step, name, f"{value:.6g}"))
            if np.isfinite(value):  # tensorboardX warns about each of the others
                self._tensorboard.add_scalar(name, value, step)
        self._file.flush()

    def log(self, step: int, epochs: float, elapsed: float, learning_rate: float) -> str:
        """Logs and writes the means over the updates since the last call.

        Returns:
          A short text for the progress bar.
        """
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
        """Writes everything now, before a checkpoint: a resumed run does not write it again."""
        if self._writes:
            self._file.flush(now=True)

    def close(self) -> None:
        """Closes the files."""
        if not self._writes:
            return
        self._file.close()
        self._tensorboard.close()


class _TensorBoardFiles:
    """How tensorboardX opens files. Its own writer thread would end on a full disk, and then its
    queue would fill up and block the run.
    """

    def open(self, path: str) -> storage.AppendFile:
        return storage.AppendFile(path.removeprefix("tfm:"))

    def directory_check(self, path: str) -> None:
        """Does nothing: ``AppendFile`` creates the folder."""


def _rows(path: epath.Path) -> list[list[str]]:
    """The rows of an existing TSV file; a killed run may have left an incomplete one."""
    if not path.exists():
        return []
    text = io.StringIO(path.read_text(encoding="utf-8"), newline="")
    rows: list[list[Any]] = list(csv.reader(text, delimiter="\t"))[1:]
    return [row for row in rows if len(row) == len(_COLUMNS)]


def _memory() -> float:
    """Peak bytes in use on the first device, or in this process where the device reports none."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("peak_bytes_in_use", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
