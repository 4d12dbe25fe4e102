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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tfm import config, params, sharding, terminal, transformer
from tfm.data import corpus, stream, tokenizer
from tfm.data import scan as scanning
from tfm.terminal import Stopwatch, duration
from tfm.training import checkpoint, optimizer, start, step
from tfm.training.record import Record
from tfm.training.validation import Validation

_log = logging.getLogger(__name__)

SIGTERM_EXIT = 128 + signal.SIGTERM
"""Exit code of a run that was told to stop, saved, and can go on."""

_MAY_CHANGE = (
    "train.stop", "train.log_every", "train.validate_every", "train.checkpoint_every",
    "train.patience", "train.dev_limit", "train.dev_beam", "train.bad_steps", "train.loss_chunk",
    "decode", "mesh", "data.test", "data.cache_dir", "model.unroll", "model.remat", "model.lookup",
    "model.implementation",
)  # fmt: skip


class Data(NamedTuple):
    """What training reads."""

    pairs: corpus.Pairs
    scan: scanning.Scan
    dev: corpus.Pairs | None
    tokenizers: scanning.Tokenizers


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


@dataclass
class Progress:
    """What a run must remember besides weights and data position; saved with each checkpoint."""

    elapsed: float = 0.0
    pairs: int = 0
    best: float | None = None
    since_best: int = 0
    validated: int = -1


def train(c: config.Config, folder: str | Path) -> Outcome:
    """Trains until ``c.train.stop``, early stopping or SIGTERM.

    Raises:
      ValueError: settings, data or a kept run that do not fit together.
      FloatingPointError: ``c.train.bad_steps`` updates in a row had no finite loss.
      OSError: a checkpoint could not be written.
    """
    folder = Path(folder)
    config.parse_stop(c.train.stop)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(terminal.log_to_file(folder / "log.txt"))
        data = open_data(c, folder)
        c = resolve(c, data)
        _check_same(c, folder / "config.json")
        run = _Run(c, folder, data, stack)
        # Now that the settings are known to work: they bind all that comes after.
        corpus.write_atomically(folder / "config.json", config.to_json(c).encode())
        return run.go()


def open_data(c: config.Config, folder: Path) -> Data:
    """Opens the corpora, trains tokenizers where there are none, and says what is dropped."""
    pairs = corpus.open_corpus(c.data.train, c.data)
    dev = corpus.open_corpus(c.data.dev, c.data) if c.data.dev else None
    start = time.monotonic()
    tokenizers = tokenizer.prepare(c, pairs, folder / "tokenizers")
    scan = scanning.scan(pairs, tokenizers, c.data)
    _log.info(f"training data: {scan.report()} ({duration(time.monotonic() - start)})")
    return Data(pairs, scan, dev, tokenizers)


def resolve(c: config.Config, data: Data) -> config.Config:
    """Fills in what follows from the data: vocabulary sizes and row lengths.

    Raises:
      ValueError: a row can hold a sentence longer than the table of learned positions.
    """
    source, target = data.tokenizers
    longest = max(data.scan.source_length, data.scan.target_length)
    if c.model.positions == "learned" and longest > c.model.max_length:
        raise ValueError(
            f"model.max_length {c.model.max_length}: rows hold up to {longest} tokens a sentence; "
            "raise it, or lower data.source_length and data.target_length"
        )
    model = dataclasses.replace(c.model, source_vocab=source.size, target_vocab=target.size)
    return dataclasses.replace(c, model=model, data=data.scan.resolved(c.data))


def _check_same(c: config.Config, path: Path) -> None:
    """Raises ValueError if ``path`` keeps the config of another run."""
    if not path.exists():
        return
    kept = config.read(path)
    for name, old, new in config.differences(kept, c):
        if not name.startswith(_MAY_CHANGE):
            raise ValueError(
                f"{path.parent} holds a run with {name} {old!r}, now {new!r}: "
                "set it back to go on, or train in another --workdir"
            )


class _Run:
    """One process's part of a run, from where it stands to the end."""

    def __init__(self, c: config.Config, folder: Path, data: Data, stack: ExitStack) -> None:
        self.c, self.folder, self.data = c, folder, data
        declaration = transformer.declare(c.model)
        self.rate = optimizer.schedule(c.optimizer)
        rule = optimizer.make(c.optimizer, declaration)
        self.layout = sharding.Layout(sharding.make(c.mesh))
        self.update = step.jit_update(c, rule, self.layout)
        self.checkpoints = stack.enter_context(checkpoint.Checkpoints(folder / "checkpoints"))
        self.best = stack.enter_context(checkpoint.Checkpoints(folder / "best", keep=1))
        host, hosts = self.layout.share()
        self.batches = stream.batches(
            data.pairs,
            data.scan,
            data.tokenizers,
            c.data,
            nbest=c.tokenizer.sample_nbest,
            alpha=c.tokenizer.sample_alpha,
            host=host,
            hosts=hosts,
        )
        stack.callback(self.batches.close)
        self.state, self.progress = self._begin(rule)
        self.step = int(self.state.step)
        self.record = Record(folder, self.step, c.data.rows * c.data.target_length)
        stack.callback(self.record.close)
        self.validation = None
        if data.dev is not None:
            self.validation = Validation(c, folder, data.dev, data.tokenizers)
        _log.info(
            f"{params.count(declaration):,} parameters on {sharding.describe(self.layout.mesh)}, "
            f"activations in {transformer.compute_dtype(c.model)}; batches of {c.data.rows} rows"
        )
        if c.model.attention == "softmax":
            length = c.data.target_length
            name, why = transformer.implementation(c.model, length, length)
            _log.info(f"attention computed by {name}: {why}")

    def _begin(self, rule: Any) -> tuple[step.State, Progress]:
        """The newest checkpoint's state, or a fresh one."""
        wanted = step.abstract_state(self.c, rule, self.layout)
        found = self.checkpoints.restore(wanted)
        if found is None:
            places = jax.tree.map(lambda x: x.sharding, wanted)
            init = functools.partial(step.init_state, self.c, rule)
            fresh = jax.jit(init, out_shardings=places)()
            fresh = start.with_vectors(fresh, self.c, self.data.tokenizers)
            return jax.device_put(fresh, places), Progress()
        at, state, position = found
        self.batches.set_state(position["data"])
        _log.info(f"going on from update {at:,} in {self.folder}")
        return state, Progress(**position["progress"])

    def go(self) -> Outcome:
        """Trains to the end; returns how it ended."""
        watch = Stopwatch(self.progress.elapsed)
        reason = self._reason_to_stop(watch)
        if reason:
            return Outcome(self.step, f"nothing left to do: {reason}", self.progress.best, False)
        compiled, pending = None, None
        with _told_to_stop() as told, terminal.Bar("training") as bar:
            while not reason and not told:
                batch = next(self.batches)
                if compiled is None:
                    compiled = self._compile()
                rows = {name: self.layout.put(x, "batch", "length") for name, x in batch.items()}
                self.state, metrics = compiled(self.state, rows)
                self.step += 1
                self.progress.pairs += int(batch["target_segments"].max(axis=1).sum())
                # The device works on this update while the host looks at the one before.
                self._take(pending)
                pending = self.step, metrics
                if self.step % self.c.train.log_every == 0:
                    self._take(pending)
                    pending = None
                    rate = float(self.rate(self.step - 1))
                    words = self.record.log(self.step, self._epochs(), watch.seconds, rate)
                    bar.show(self._share(watch), words)
                if self.step % self.c.train.validate_every == 0:
                    self._validate()
                reason = self._reason_to_stop(watch)
                if self.step % self.c.train.checkpoint_every == 0 and not reason:
                    self._save(watch)
            self._take(pending)
        if reason and self.progress.validated != self.step:
            self._validate()
        self._save(watch)
        self.checkpoints.wait()
        if reason:
            return Outcome(self.step, reason, self.progress.best, interrupted=False)
        reason = f"told to stop by {told[0]}; the same command goes on"
        return Outcome(self.step, reason, self.progress.best, interrupted=True)

    def _compile(self) -> Any:
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
                latest = self.checkpoints.latest()
                raise FloatingPointError(
                    f"{bad} updates in a row, up to {update:,}, had no finite loss or gradient: "
                    "lower optimizer.learning_rate, raise optimizer.warmup or set optimizer.clip; "
                    + (
                        "there is no checkpoint"
                        if latest is None
                        else f"the newest checkpoint is of update {latest:,}"
                    )
                )

    def _epochs(self) -> float:
        return self.progress.pairs / len(self.data.scan.kept)

    def _share(self, watch: Stopwatch) -> float:
        """How much of ``train.stop`` is done."""
        done = {"u": self.step, "e": self._epochs(), "m": watch.seconds / 60}
        limits = config.parse_stop(self.c.train.stop)
        return max(done[unit] / amount for unit, amount in limits.items())

    def _reason_to_stop(self, watch: Stopwatch) -> str:
        patience, since = self.c.train.patience, self.progress.since_best
        if patience and since >= patience:
            return f"no better {self.c.train.metric} in {since} validations"
        return f"train.stop {self.c.train.stop} reached" if self._share(watch) >= 1 else ""

    def _save(self, watch: Stopwatch) -> None:
        self.progress.elapsed = watch.seconds
        position = {
            "data": stream.gather(self.batches.get_state()),
            "progress": dataclasses.asdict(self.progress),
        }
        self.checkpoints.save(self.step, self.state, position)

    def _validate(self) -> None:
        """Scores the dev set, and saves the weights if they are best."""
        self.progress.validated = self.step
        if self.validation is None:
            return
        with self.record.training_time.paused():
            scores = self.validation.scores(self.step, self.layout.whole(self.state.weights))
        self.record.write(self.step, {f"dev/{name}": value for name, value in scores.items()})
        value = scores[self.c.train.metric]
        sign = -1 if self.c.train.metric == "loss" else 1
        best = self.progress.best
        better = best is None or sign * value > sign * best
        _log.info(
            f"update {self.step:,} | dev loss {scores['loss']:.3f} | BLEU {scores['bleu']:.2f} | "
            f"chrF {scores['chrf']:.2f} | exact {scores['exact']:.1f} %"
            + (" | best so far" if better else "")
        )
        if better:
            self.progress.best, self.progress.since_best = value, 0
            # Numbered apart from updates: a resumed run may come by the same update again.
            info = {"update": self.step, self.c.train.metric: value}
            self.best.save((self.best.latest() or 0) + 1, self.state.weights, info)
            self.best.wait()  # before a checkpoint can tell of it
        else:
            self.progress.since_best += 1


@contextmanager
def _told_to_stop() -> Iterator[list[str]]:
    """A list that is empty until SIGTERM or SIGINT comes; a second SIGINT interrupts at once."""
    told: list[str] = []

    def tell(number: int, _: Any) -> None:
        if told and number == signal.SIGINT:
            raise KeyboardInterrupt
        told.append(signal.Signals(number).name)
        _log.warning(f"{told[-1]}: saving, then stopping")

    before = {number: signal.signal(number, tell) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
