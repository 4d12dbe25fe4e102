"""The training loop: the same command starts a run, and goes on with it wherever it stopped.

A run's folder holds all there is to it: ``config.json``, ``tokenizers/``, ``checkpoints/`` (to go
on from), ``best/`` (to translate with), ``hypotheses/`` (of every validation), ``metrics.tsv``,
``tensorboard/`` and ``log.txt``.
"""

import dataclasses
import functools
import logging
import signal
import time
from contextlib import ExitStack
from os import PathLike
from typing import Any, NamedTuple

import jax
from etils import epath

from tfm import checkpoint, config, params, processes, sharding, storage, terminal, transformer
from tfm.data import stream
from tfm.terminal import Stopwatch
from tfm.training import optimizer, setup, step
from tfm.training.metrics import Record
from tfm.training.preemption import BrokenOff, Signals
from tfm.training.progress import Progress
from tfm.training.setup import Data, check_same, open_data, resolve
from tfm.training.validation import Validation

_log = logging.getLogger(__name__)

SIGTERM_EXIT = 128 + signal.SIGTERM
"""Exit code of a run that was told to stop, saved, and can go on."""


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
      step: updates made, over all resumes.
      reason: in words.
      best: the best value of ``train.metric`` on the dev set, or None.
      interrupted: it was told to stop before it was done.
    """

    step: int
    reason: str
    best: float | None
    interrupted: bool


def train(
    c: config.Config, folder: str | PathLike, group: processes.Group = processes.ALONE
) -> Outcome:
    """Trains until ``c.train.stop``, early stopping or SIGTERM.

    Of several processes all call it, and process 0 writes the log, the record and the like.

    Raises:
      ValueError: settings, data or a kept run that do not fit together.
      FloatingPointError: ``c.train.bad_steps`` updates in a row had no finite loss.
      OSError: a checkpoint could not be written.
    """
    folder = storage.path(folder)
    config.parse_stop(c.train.stop)
    transformer.check(c.model, vocabularies=False)  # before time is spent on the data
    group.check_shared(folder)
    with ExitStack() as stack:
        if group.first:
            stack.enter_context(terminal.log_to_file(folder / "log.txt"))
        data = open_data(c, folder, group)
        c = resolve(c, data)
        check_same(c, folder / "config.json")
        run = _Run(c, folder, data, group, stack)
        # Now that the settings are known to work: they bind all that comes after.
        if group.first:
            storage.write_atomically(folder / "config.json", config.to_json(c).encode())
        return run.go()


class _Run:
    """One process's part of a run, from where it stands to the end."""

    def __init__(
        self,
        c: config.Config,
        folder: epath.Path,
        data: Data,
        group: processes.Group,
        stack: ExitStack,
    ) -> None:
        self.c, self.folder, self.data, self.group = c, folder, data, group
        group.at("opening the checkpoints", 10)
        declaration = transformer.declare(c.model)
        self.rate = optimizer.schedule(c.optimizer)
        rule = optimizer.make(c.optimizer, declaration)
        self.layout = sharding.Layout(sharding.make(c.mesh))
        self.update = step.jit_update(c, rule, self.layout)
        saving = {
            "tries": c.train.save_tries,
            "pause": c.train.save_pause,
            "on_full_disk": c.train.on_full_disk,
            "group": group,
        }
        self.checkpoints, self.best = (
            stack.enter_context(checkpoint.Checkpoints(folder / name, keep, **saving))
            for name, keep in (("checkpoints", 2), ("best", 1))
        )
        host, self.hosts = self.layout.host_block()
        self.batches = stream.batches(
            data.pairs,
            data.scan,
            data.tokenizers,
            c.data,
            nbest=c.tokenizer.sample_nbest,
            alpha=c.tokenizer.sample_alpha,
            host=host,
            hosts=self.hosts,
        )
        stack.callback(self.batches.close)
        self.state, self.progress, unfinished = self._begin(rule)
        self.step = int(self.state.step)
        cells = c.data.rows * c.data.target_length
        self.record = Record(
            folder, self.step, self.progress.validated, cells, unfinished, writes=group.first
        )
        stack.callback(self.record.close)
        self.validation = None
        if data.dev is not None:
            self.validation = Validation(c, folder, data.dev, data.tokenizers, group)
        _log.info(
            f"{params.count(declaration):,} parameters on {sharding.describe(self.layout.mesh)}, "
            f"activations in {transformer.compute_dtype(c.model)}; batches of {c.data.rows} rows"
        )
        lengths = c.data.source_length, c.data.target_length
        _log.info(transformer.computed(c.model, *lengths, self.layout))

    def _begin(self, rule: Any) -> tuple[step.State, Progress, list[list[float]]]:
        """The newest checkpoint's state, or a fresh one; progress; metrics not yet recorded."""
        wanted = step.abstract_state(self.c, rule, self.layout)
        found = self.checkpoints.restore(wanted)
        if found is None:
            places = jax.tree.map(lambda x: x.sharding, wanted)
            init = functools.partial(step.init_state, self.c, rule)
            fresh = jax.jit(init, out_shardings=places)()
            fresh = setup.with_vectors(fresh, self.c, self.data.tokenizers)
            return jax.device_put(fresh, places), Progress(), []
        at, state, position = found
        self.batches.set_state(position["data"])
        _log.info(f"going on from update {at:,} in {self.folder}")
        return state, Progress(**position["progress"]), position.get("metrics", [])

    def go(self) -> Outcome:
        """Trains to the end; returns how it ended."""
        watch = Stopwatch(self.progress.elapsed)
        reason = self.progress.reason_to_stop(*self._so_far(self.progress.elapsed))
        if reason and not self.progress.owed:
            return Outcome(self.step, f"nothing left to do: {reason}", self.progress.best, False)
        compiled, pending, due = None, None, False
        alone = self.group.count == 1
        with Signals(alone) as signals, terminal.Bar("training", self.group.first) as bar:
            if self.progress.owed:
                self._validate(signals)
                reason = self.progress.reason_to_stop(*self._so_far(watch.seconds))
            while not reason and not signals.told:
                self.group.at(f"reading the batch of update {self.step + 1:,}")
                batch = next(self.batches)
                times = 1 if compiled else 10
                compiled = compiled or self._compile()
                self.group.at(f"in update {self.step + 1:,}", times)
                # Asked ahead of the update, so that the answer is there while it is worked on.
                pairs = batch["target_segments"].max(axis=1).sum()
                facts = [pairs, signals.number, watch.seconds]
                asked, count = self.group.ask(facts, self.state.step)
                self.state = self.state.replace(step=count)
                rows = {name: self.layout.put(x, "batch", "length") for name, x in batch.items()}
                self.state, metrics = compiled(self.state, rows)
                self.step += 1
                # The device works on this update while the host looks at the one before.
                self._take(pending)
                pending = self.step, metrics
                seconds = self._hear(asked, signals)
                if self.step % self.c.train.log_every == 0:
                    self._take(pending)
                    pending = None
                    rate = float(self.rate(self.step - 1))
                    words = self.record.log(self.step, self._epochs(), watch.seconds, rate)
                    bar.show(self.progress.share(*self._so_far(seconds)), words)
                    due = self.checkpoints.failed()
                if self.step % self.c.train.validate_every == 0:
                    self._validate(signals)
                reason = self.progress.reason_to_stop(*self._so_far(seconds))
                due = due or self.step % self.c.train.checkpoint_every == 0
                if due and not reason and not signals.told:
                    self._take(pending)
                    pending, due = None, False
                    self._save(watch)
            self._take(pending)
            if reason and self.progress.validated != self.step:
                self._validate(signals)
            self._save(watch, wait=True)
        if reason and not self.progress.owed:
            return Outcome(self.step, reason, self.progress.best, interrupted=False)
        reason = f"told to stop by {signals.told}; the same command goes on"
        return Outcome(self.step, reason, self.progress.best, interrupted=True)

    def _hear(self, asked: Any, signals: Signals) -> float:
        """Counts the pairs of all processes, and tells ``signals`` if one of them got any.

        Returns the seconds on one process's clock. All hear the same, so all end together.
        """
        pairs, numbers, seconds = jax.device_get(asked).T
        # Every row is counted by as many devices as its process has, and others that hold it.
        self.progress.pairs += int(pairs.sum(dtype=int)) * self.hosts // len(pairs)
        signals.agree(int(numbers.max()))
        return float(seconds[0])

    def _compile(self) -> Any:
        self.group.at("compiling the update", 10)
        began = time.perf_counter()
        batch = step.abstract_batch(self.c, self.layout)
        compiled = self.update.lower(self.state, batch).compile()
        _log.info(f"compiled the update in {time.perf_counter() - began:.1f} s")
        self.record.training_time = Stopwatch()
        return compiled

    def _take(self, pending: tuple[int, step.Metrics] | None) -> None:
        """Fetches an update's metrics and gives up if too many went wrong."""
        if pending is None:
            return
        update, metrics = pending[0], jax.device_get(pending[1])
        self.record.add(metrics)
        if bad := int(metrics.bad_steps):
            _log.warning(
                f"update {update:,}: loss {metrics.loss} with gradient norm "
                f"{metrics.gradient_norm} skipped ({bad} in a row)"
            )
            if bad >= self.c.train.bad_steps:
                at = self.checkpoints.latest()
                newest = f"the newest checkpoint is of update {at or 0:,}"
                raise FloatingPointError(
                    f"{bad} updates in a row, up to {update:,}, had no finite loss or gradient: "
                    "lower optimizer.learning_rate, raise optimizer.warmup or set optimizer.clip; "
                    + ("there is no checkpoint" if at is None else newest)
                )

    def _epochs(self) -> float:
        return self.progress.pairs / len(self.data.scan.kept)

    def _so_far(self, seconds: float) -> tuple[config.Train, int, float, float]:
        """What ``Progress`` is asked about."""
        return self.c.train, self.step, self._epochs(), seconds

    def _save(self, watch: Stopwatch, wait: bool = False) -> None:
        self.group.at(f"saving update {self.step:,}", 10)
        self.record.flush()
        self.progress.elapsed = watch.seconds
        position = {
            "data": stream.merge(self.group.gather(self.batches.get_state())),
            "progress": dataclasses.asdict(self.progress),
            "metrics": self.record.unfinished(),
        }
        self.checkpoints.save(self.step, self.state, position, wait=wait)

    def _validate(self, signals: Signals) -> None:
        """Scores the dev set, and saves the weights if they are best. When told to stop it is
        broken off, and done by whoever goes on: saving comes first.
        """
        if self.validation is None:
            self.progress.validated = self.step
            return
        self.group.at(f"validating update {self.step:,}", 10)
        try:
            self.progress.owed = True
            with self.record.training_time.paused(), signals.may_break_off():
                scores = self.validation.scores(
                    self.step, self.layout.replicate(self.state.weights)
                )
        except BrokenOff:
            return
        self.progress.validated, self.progress.owed = self.step, False
        self.record.write(self.step, {f"dev/{name}": value for name, value in scores.items()})
        metric = self.c.train.metric
        better = self.progress.is_better(self.c.train, scores[metric])
        _log.info(
            f"update {self.step:,} | dev loss {scores['loss']:.3f} | BLEU {scores['bleu']:.2f} | "
            f"chrF {scores['chrf']:.2f} | exact {scores['exact']:.1f} %"
            + (" | best so far" if better else "")
        )
        if better:
            self.progress.since_best = 0
            # Numbered apart from updates: a resumed run may come by the same update again.
            number = (self.best.latest() or 0) + 1
            info = {"update": self.step, metric: scores[metric]}
            # It is on disk before a checkpoint can tell of it.
            if self.best.save(number, self.state.weights, info, wait=True):
                self.progress.best = scores[metric]
        else:
            self.progress.since_best += 1
