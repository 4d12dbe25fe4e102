"""The training loop: one command starts a run, and the same command resumes it.

Everything about a run is in its folder, see ``run_folder.RunFolder``.
"""

import dataclasses
import logging
import math
import signal
import time
from contextlib import ExitStack
from os import PathLike
from typing import Any, NamedTuple

import jax

from tfm import config, params, processes, sharding, signals, storage, terminal, transformer
from tfm.data import stream
from tfm.run_folder import RunFolder
from tfm.terminal import Stopwatch
from tfm.training import optimizer, setup, step, update_memory
from tfm.training.lock import RunLock
from tfm.training.metrics import MetricsWriter
from tfm.training.preemption import PreemptionHandler, ValidationInterrupted
from tfm.training.progress import Progress
from tfm.training.setup import Data, check_same, open_data, resolve
from tfm.training.validation import Validation
from tfm.transformer import kernels

_log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
      step: updates made, over all resumes.
      reason: why it ended, in words.
      best: the best value of ``train.metric`` on the dev set, or None.
      signal: number of the signal that stopped it before it was done; 0 if none did.
    """

    step: int
    reason: str
    best: float | None
    signal: int = 0

    @property
    def interrupted(self) -> bool:
        """Whether a signal stopped it before it was done; the same command resumes it."""
        return self.signal != 0

    @property
    def exit_code(self) -> int:
        """0, or that of the signal: 143 for SIGTERM, after which launchers start it again."""
        return signals.exit_code(self.signal) if self.signal else 0


def train(
    experiment: config.Config, folder: str | PathLike, group: processes.Group = processes.ALONE
) -> Outcome:
    """Trains until ``train.stop``, early stopping or SIGTERM.

    All processes of a run call it; process 0 writes the log and the metrics.

    Raises:
      ValueError: settings, data or an existing run that do not fit together.
      FloatingPointError: ``train.bad_steps`` updates in a row had no finite loss.
      FolderInUse: another process trains in the folder, or has taken it over.
      OSError: a checkpoint could not be saved.
    """
    folder = RunFolder(folder)
    # What can be known without the data, before it is prepared.
    config.check(experiment)
    optimizer.check(experiment.optimizer)
    transformer.validate(experiment.model, experiment.execution, vocabularies=False)
    with ExitStack() as stack:
        group.set_stage("locking the run's folder", timeouts=10)
        lock = stack.enter_context(RunLock(folder, group))  # released last
        group.check_shared(folder.path)
        if group.is_primary:
            stack.enter_context(terminal.log_to_file(folder.log))
        data = open_data(experiment, folder, group)
        experiment = resolve(experiment, data)
        check_same(experiment, folder.config)
        run = _Run(experiment, folder, data, group, lock, stack)
        # Only now are the settings known to work: a later start must use the same.
        if group.is_primary:
            storage.write_atomically(folder.config, config.to_json(experiment).encode())
        return run.train()


class _Run:
    """One process's part of a run. Read ``train`` first."""

    def __init__(
        self,
        experiment: config.Config,
        folder: RunFolder,
        data: Data,
        group: processes.Group,
        lock: RunLock,
        stack: ExitStack,
    ) -> None:
        """Builds the update, opens checkpoints and data, and restores or initialises the state."""
        self.experiment, self.folder, self.data, self.group = experiment, folder, data, group
        self.lock = lock
        group.set_stage("opening the checkpoints", timeouts=10)
        declaration = transformer.declare(experiment.model)
        self.learning_rate = optimizer.schedule(experiment.optimizer)
        rule = optimizer.make(experiment.optimizer, declaration)
        self.layout = sharding.Layout(sharding.make(experiment.mesh))
        self.jit_update = step.jit_update(experiment, rule, self.layout)
        self.first = True  # the next update is the first since this start
        self.checkpoints, self.best = (
            stack.enter_context(setup.open_checkpoints(experiment, path, keep, group))
            for path, keep in ((folder.checkpoints, 2), (folder.best, 1))
        )
        self.batches = setup.open_batches(experiment, data, self.layout)
        stack.callback(self.batches.close)
        self.state, self.progress, unlogged = self._restore_or_init(rule)
        self.step = int(self.state.step)
        self.pending: tuple[int, step.Metrics] | None = None  # metrics on the devices
        sizes = experiment.data
        cells = sizes.rows * sizes.target_length
        self.metrics = MetricsWriter(
            folder, self.step, self.progress.validated, cells, unlogged, writes=group.is_primary
        )
        stack.callback(self.metrics.close)
        self.validation = None
        if data.dev is not None:
            self.validation = Validation(
                experiment, folder, data.dev, data.tokenizers, self.layout, group
            )
        _log.info(
            f"{params.count(declaration):,} parameters on {sharding.describe(self.layout.mesh)}, "
            f"activations in {transformer.compute_dtype(experiment.execution)}; "
            f"batches of {sizes.rows} rows"
        )
        lengths = sizes.source_length, sizes.target_length
        _log.info(kernels.describe(experiment.model, experiment.execution, *lengths, self.layout))

    def _restore_or_init(self, rule: Any) -> tuple[step.State, Progress, list[list[float]]]:
        """The state and progress of the newest checkpoint, or initial ones; unlogged metrics."""
        abstract = step.abstract_state(self.experiment, rule, self.layout)
        update_memory.require_state(abstract)
        restored = self.checkpoints.restore(abstract)
        if restored is None:
            state = setup.initial_state(self.experiment, rule, abstract, self.data.tokenizers)
            return state, Progress(), []
        update, state, position = restored
        self.batches.set_state(position["data"])
        _log.info(f"resuming from update {update:,} in {self.folder}")
        progress = Progress.from_json(position["progress"])
        return state, progress, position.get("metrics", [])

    def train(self) -> Outcome:
        """The loop: from the current update until there is a reason to stop, or a signal."""
        every = self.experiment.train
        self.clock = Stopwatch(self.progress.elapsed)
        reason = self.progress.reason_to_stop(*self._so_far(self.progress.elapsed))
        if reason and not self.progress.pending_validation:
            return Outcome(self.step, f"nothing left to do: {reason}", self.progress.best)
        # Before signals make it save first: there is nothing new to save until the first update.
        self.update = self._compile()
        with (
            PreemptionHandler(self.group.count == 1) as self.preemption,
            terminal.Bar("training", self.group.is_primary) as bar,
        ):
            if self.progress.pending_validation:
                self._validate()
                seconds = self.group.gather(self.clock.seconds)[0]  # all must decide alike
                reason = self.progress.reason_to_stop(*self._so_far(seconds))

            while not reason and not self.preemption.stop_requested:
                self.lock.check()
                seconds = self._train_step()
                save = self.step % every.checkpoint_every == 0
                if self.step % every.log_every == 0:
                    fraction = self.progress.fraction(*self._so_far(seconds))
                    bar.show(fraction, self._log_metrics())
                    save = self.checkpoints.needs_retry() or save
                if self.step % every.validate_every == 0:
                    self._validate()
                reason = self.progress.reason_to_stop(*self._so_far(seconds))
                if save and not reason and not self.preemption.stop_requested:
                    self._save()

            self._collect_metrics()
            if reason and self.progress.validated != self.step:
                self._validate()
            self._save(wait=True)
        if reason and not self.progress.pending_validation:
            return Outcome(self.step, reason, self.progress.best)
        name = self.preemption.stop_requested
        reason = f"received {name}; the same command resumes the run"
        return Outcome(self.step, reason, self.progress.best, signal.Signals[name])

    def _train_step(self) -> float:
        """One update on the next batch; returns the seconds of training, by process 0's clock.

        While the devices compute, the host handles the metrics of the update before.
        """
        self.group.set_stage(f"reading the batch of update {self.step + 1:,}")
        batch = next(self.batches)
        self.group.set_stage(f"in update {self.step + 1:,}", timeouts=10 if self.first else 1)
        self.first = False
        # Before the update, so that the result is there while the update still runs.
        pairs = batch.target_segments.max(axis=1).sum()
        numbers = [pairs, self.preemption.received, self.clock.seconds]
        gathered, count = self.group.all_gather(numbers, after=self.state.step)
        self.state = dataclasses.replace(self.state, step=count)
        rows = jax.tree.map(lambda x: self.layout.put(x, "batch", "length"), batch)
        self.state, metrics = self.update(self.state, rows)
        self.step += 1
        self._collect_metrics()
        self.pending = self.step, metrics
        return self._agree(gathered)

    def _agree(self, gathered: Any) -> float:
        """Adds up the pairs of all processes, and requests a stop if any received a signal.

        All processes see the same numbers, and thus stop after the same update.

        Args:
          gathered: [devices, (pairs, signal number, seconds)].

        Returns:
          Seconds of training, by process 0's clock.
        """
        pairs, signals, seconds = jax.device_get(gathered).T
        # A process's pairs are there once for each of its devices, and several processes may feed
        # one shard of the batch: each shard is counted devices / shards times.
        shards = self.layout.data_shard()[1]
        self.progress.pairs += int(pairs.sum(dtype=int)) * shards // len(pairs)
        self.preemption.request_stop(int(signals.max()))
        return float(seconds[0])

    def _collect_metrics(self) -> None:
        """Fetches the metrics of the update in flight; raises if too many updates were skipped."""
        if self.pending is None:
            return
        update, metrics = self.pending[0], jax.device_get(self.pending[1])
        self.pending = None
        self.metrics.add(update, metrics)
        skipped = int(metrics.bad_steps)
        if skipped and skipped >= self.experiment.train.bad_steps:
            latest = self.checkpoints.latest()
            newest = f"the newest checkpoint is of update {latest or 0:,}"
            raise FloatingPointError(
                f"{skipped} updates in a row, up to {update:,}, had no finite loss "
                "or gradient: lower optimizer.learning_rate, raise optimizer.warmup or set "
                "optimizer.clip; " + ("there is no checkpoint" if latest is None else newest)
            )

    def _log_metrics(self) -> str:
        """Logs the metrics since the last log line; returns a short text for the progress bar."""
        self._collect_metrics()
        learning_rate = float(self.learning_rate(self.step - 1))
        return self.metrics.log(self.step, self._epochs(), self.clock.seconds, learning_rate)

    def _validate(self) -> None:
        """Scores the dev set, and saves the weights if they are the best so far.

        A stop request interrupts it, since saving is more urgent; the resumed run validates then.
        """
        if self.validation is None:
            self.progress.validated = self.step
            return
        self.group.set_stage(f"validating update {self.step:,}", timeouts=10)
        try:
            self.progress.pending_validation = True
            with self.metrics.training_time.paused(), self.preemption.interruptible():
                scores = self.validation.scores(self.step, self.state.weights)
        except ValidationInterrupted:
            return
        self.progress.validated, self.progress.pending_validation = self.step, False
        self.metrics.write(self.step, {f"dev/{name}": value for name, value in scores.items()})
        value = scores[self.experiment.train.metric]
        # Weights that give no finite loss are broken, whatever their translations score.
        finite = math.isfinite(scores["loss"])
        better = finite and self.progress.is_better(self.experiment.train, value)
        _log.info(
            f"update {self.step:,} | dev loss {scores['loss']:.3f} | BLEU {scores['bleu']:.2f} | "
            f"chrF {scores['chrf']:.2f} | exact {scores['exact']:.1f} %"
            + (" | best so far" if better else "")
        )
        self.progress.since_best = 0 if better else self.progress.since_best + 1
        if better:
            self._save_best(value)

    def _save_best(self, value: float) -> None:
        self.lock.check(now=True)
        # Numbered independently of updates, since a resumed run may validate an update again.
        number = (self.best.latest() or 0) + 1
        info = {"update": self.step, self.experiment.train.metric: value}
        # Waits, because a checkpoint must not mention a best value that is not on disk.
        if self.best.save(number, self.state.weights, info, wait=True):
            self.progress.best = value

    def _save(self, wait: bool = False) -> None:
        """Saves a checkpoint of the state and of everything else that resuming needs."""
        self.lock.check(now=True)
        self._collect_metrics()
        self.group.set_stage(f"saving update {self.step:,}", timeouts=10)
        self.metrics.flush()
        self.progress.elapsed = self.clock.seconds
        position = {
            "data": stream.merge(self.group.gather(self.batches.get_state())),
            "progress": self.progress.to_json(),
            "metrics": self.metrics.unlogged(),
        }
        self.checkpoints.save(self.step, self.state, position, wait=wait)

    def _so_far(self, seconds: float) -> tuple[config.Train, int, float, float]:
        """The arguments of ``Progress.reason_to_stop`` and ``fraction``."""
        return self.experiment.train, self.step, self._epochs(), seconds

    def _epochs(self) -> float:
        return self.progress.pairs / len(self.data.scan.kept)

    def _compile(self) -> jax.stages.Compiled:
        self.group.set_stage("compiling the update", timeouts=10)
        start = time.perf_counter()
        batch = step.abstract_batch(self.experiment, self.layout)
        compiled = signals.interruptible(self.jit_update.lower(self.state, batch).compile)
        _log.info(f"compiled the update in {time.perf_counter() - start:.1f} s")
        update_memory.require_update(compiled, self.state.step.sharding.addressable_devices)
        self.metrics.training_time = Stopwatch()
        return compiled
