import csv
import logging
import os
import shutil
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import tfm
from tfm import checkpoint, config
from tfm.training import loop, step
from tfm.training.validation import Validation

pytestmark = pytest.mark.usefixtures("quick_compile")


def rows(run):
    with (run / "metrics.tsv").open(newline="") as file:
        return [
            (int(r["update"]), r["name"], float(r["value"]))
            for r in csv.DictReader(file, delimiter="\t")
        ]


def read_experiment(tiny_run):
    """The experiment that a run was started with."""
    return config.from_json((tiny_run / "config.json").read_text())


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of the tiny run that may be resumed."""
    return shutil.copytree(tiny_run, tmp_path / "run")


def test_files_in_the_folder_of_a_run(tiny_run):
    files = {str(p.relative_to(tiny_run)) for p in tiny_run.rglob("*")}
    assert files >= {
        "config.json", "log.txt", "metrics.tsv", "hypotheses/100.txt", "hypotheses/200.txt",
        "tokenizers/source.model", "tokenizers/target.model",
        "checkpoints/160", "checkpoints/200", "best",
    }  # fmt: skip
    assert any(name.startswith("tensorboard/events") for name in files)
    assert not [name for name in files if "tmp" in name or "damaged" in name]

    experiment = read_experiment(tiny_run)
    assert experiment.model.source_vocab == tfm.load(tiny_run).source.size
    dev = Path(experiment.data.dev[0]).read_text().splitlines()
    for update in (100, 200):
        text = (tiny_run / "hypotheses" / f"{update}.txt").read_text()
        assert len(text.splitlines()) == len(dev)


def test_metrics_and_log_of_a_run(tiny_run):
    found = rows(tiny_run)
    assert {update for update, _, _ in found} == set(range(25, 201, 25))
    last = {name: value for update, name, value in found if update == 200}
    assert set(last) == {
        "train/loss", "train/nll", "train/accuracy", "train/gradient_norm", "train/learning_rate",
        "train/tokens_per_second", "train/density", "train/skipped", "train/epochs",
        "train/memory_mib", "dev/loss", "dev/bleu", "dev/chrf", "dev/exact",
    }  # fmt: skip
    first = {name: value for update, name, value in found if update == 25}
    assert last["train/nll"] < 0.8 * first["train/nll"]
    assert last["train/learning_rate"] == pytest.approx(1e-2 * np.sqrt(20 / 200), rel=1e-4)
    assert 0.9 < last["train/density"] <= 1
    assert last["train/skipped"] == 0
    assert 100 < last["train/memory_mib"] < 100_000

    log = (tiny_run / "log.txt").read_text()
    for words in ("600 pairs: 600 kept", "compiled the update in", "8 cpu device(s)", "human: "):
        assert words in log
    assert "attention computed by xla: there is no kernel for the cpu" in log
    assert "update 200 | " in log


def test_dev_loss_equals_that_of_forced_scoring(tiny_run):
    """Packed in batches here, one pair at a time there."""
    experiment = read_experiment(tiny_run)
    sources, targets = (Path(name).read_text().splitlines() for name in experiment.data.dev)
    model = tfm.load(tiny_run)
    nats = -sum(model.score(sources, targets))
    tokens = sum(len(model.target.encode(text)) for text in targets)
    recorded = {(update, name): value for update, name, value in rows(tiny_run)}
    best = max((100, 200), key=lambda update: (recorded[update, "dev/bleu"], -update))
    assert recorded[best, "dev/loss"] == pytest.approx(nats / tokens, rel=1e-4)


def test_epochs_are_counted_in_pairs(tiny_run):
    epochs = [value for _, name, value in rows(tiny_run) if name == "train/epochs"]
    steps = np.diff([0.0, *epochs])
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.1)
    pairs = 25 * 8 * 32 / 13.3  # updates · rows · cells / mean tokens
    assert steps.mean() == pytest.approx(pairs / 600, rel=0.1)


def test_starting_a_finished_run_again_does_nothing(run, tiny_run, monkeypatch):
    monkeypatch.setattr(loop._Run, "_compile", None)  # nothing is compiled or trained
    outcome = loop.train(read_experiment(tiny_run), run)
    assert outcome.step == 200
    assert outcome.reason == "nothing left to do: train.stop 200u reached"
    assert not outcome.interrupted
    assert rows(run) == rows(tiny_run)


def test_longer_stop_resumes_and_other_changes_are_refused(run, tiny_run, caplog):
    experiment = read_experiment(tiny_run)
    for changes, words in (
        ({"model": {"d_ff": 128}}, "model.d_ff 64, now 128"),
        ({"optimizer": {"learning_rate": 0.5}}, "optimizer.learning_rate 0.01, now 0.5"),
        ({"train": {"ema": 0.9}}, "train.ema 0.0, now 0.9"),
        ({"data": {"rows": 4}}, "data.rows 8, now 4"),
    ):
        with pytest.raises(ValueError) as error:
            loop.train(tiny.change(experiment, **changes), run)
        assert str(error.value).startswith(f"{run} holds a run with {words}: ")
    assert read_experiment(run) == experiment

    allowed = tiny.change(
        experiment, train={"stop": "204u", "log_every": 1, "dev_limit": 2}, decode={"beam_size": 7}
    )
    with caplog.at_level(logging.INFO, "tfm"):
        outcome = loop.train(allowed, run)
    assert outcome[:2] == (204, "train.stop 204u reached")
    assert "resuming from update 200" in caplog.text
    assert rows(run)[: len(rows(tiny_run))] == rows(tiny_run)
    assert {update for update, *_ in rows(run)} >= {201, 202, 203, 204}
    assert read_experiment(run) == allowed


@pytest.fixture
def short(tmp_path):
    """``short(**changes)``: trains a run of few updates; gives (outcome, folder)."""

    def train(**changes):
        experiment = tiny.config(tmp_path, **changes)
        return loop.train(experiment, tmp_path / "run"), tmp_path / "run"

    return train


def test_stop_after_an_epoch_without_a_dev_set(short):
    outcome, run = short(train={"stop": "0.5e"}, data={"dev": ()})
    assert outcome.reason == "train.stop 0.5e reached"
    assert outcome.best is None
    epochs = {update: value for update, name, value in rows(run) if name == "train/epochs"}
    assert max(epochs.values()) <= 0.5 + 0.04  # one update is 3 % of an epoch
    assert outcome.step == pytest.approx(0.5 * 600 * 13.3 / (8 * 32), rel=0.15)
    assert not (run / "hypotheses").exists()
    assert len(tfm.load(run).translate(["ab cd"])) == 1


def test_stop_after_minutes(short):
    outcome, run = short(train={"stop": "0.0001m"}, data={"dev": ()})
    assert outcome[:2] == (1, "train.stop 0.0001m reached")
    assert (run / "checkpoints" / "1").is_dir()


def test_early_stopping_saves_the_best_weights(short, monkeypatch):
    values = iter([3.0, 7.0, 5.0, 6.0, 9.0])
    score = lambda *_: {"loss": 1.0, "bleu": 0.0, "chrf": next(values), "exact": 0.0}  # noqa: E731
    monkeypatch.setattr(loop.Validation, "scores", score)
    outcome, run = short(
        train={"stop": "90u", "validate_every": 2, "checkpoint_every": 3, "metric": "chrf",
               "patience": 2}
    )  # fmt: skip
    assert outcome == loop.Outcome(8, "no better chrf in 2 validations", 7.0)
    assert [p.name for p in (run / "checkpoints").glob("[0-9]*")].count("8") == 1
    best, newest = tfm.load(run), checkpoint.load(run / "checkpoints", only=("params",))
    table = lambda params: np.asarray(params["tables"]["target"])  # noqa: E731
    assert newest[0] == 8
    assert (table(best.params) != table(newest[1]["params"])).any()
    assert checkpoint.load(run / "best")[2] == {"update": 4, "chrf": 7.0}


def test_lower_loss_is_better(short, monkeypatch):
    values = iter([3.0, 2.0, 4.0, 1.0])
    score = lambda *_: {"loss": next(values), "bleu": 0.0, "chrf": 0.0, "exact": 0.0}  # noqa: E731
    monkeypatch.setattr(loop.Validation, "scores", score)
    outcome, _ = short(train={"stop": "8u", "validate_every": 2, "metric": "loss"})
    assert outcome.best == 1.0


def test_updates_that_are_not_finite_are_skipped_up_to_a_limit(short, monkeypatch, caplog):
    update = step.update

    def bad_at_2_and_from_5(state, batch, **settings):
        bad = (state.step == 1) | (state.step >= 4)
        poisoned = jax.tree.map(lambda x: jnp.where(bad, jnp.nan, x), state.params)
        after, metrics = update(state.replace(params=poisoned), batch, **settings)
        finite = jax.tree.map(lambda old, new: jnp.where(bad, old, new), state.params, after.params)
        return after.replace(params=finite), metrics

    monkeypatch.setattr(step, "update", bad_at_2_and_from_5)
    with (
        caplog.at_level(logging.WARNING, "tfm"),
        pytest.raises(FloatingPointError) as error,
    ):
        short(train={"stop": "30u", "bad_steps": 3, "checkpoint_every": 4, "log_every": 1})
    assert str(error.value) == (
        "3 updates in a row, up to 7, had no finite loss or gradient: lower "
        "optimizer.learning_rate, raise optimizer.warmup or set optimizer.clip; the newest "
        "checkpoint is of update 4"
    )
    warned = [record.getMessage() for record in caplog.records]
    assert [w.split(":")[0] for w in warned] == ["update 2", "update 5", "update 6", "update 7"]
    assert "(1 in a row)" in warned[0] and "(3 in a row)" in warned[-1]


def test_sigterm_saves_and_the_run_resumes(short, caplog):
    class SigtermAtUpdate3(logging.Handler):
        def emit(self, record):
            if record.getMessage().startswith("update 3 |"):
                os.kill(os.getpid(), signal.SIGTERM)

    logger, handler = logging.getLogger("tfm"), SigtermAtUpdate3()
    logger.addHandler(handler)
    before = signal.getsignal(signal.SIGTERM)
    settings = {"train": {"stop": "5u", "log_every": 1}, "data": {"dev": ()}}
    try:
        with caplog.at_level(logging.INFO, "tfm"):
            outcome, _ = short(**settings)
    finally:
        logger.removeHandler(handler)
    assert outcome == loop.Outcome(
        3, "received SIGTERM; the same command resumes the run", None, signal.SIGTERM
    )
    assert "SIGTERM: saving, then stopping" in caplog.text
    assert signal.getsignal(signal.SIGTERM) == before
    outcome, _ = short(**settings)
    assert outcome == loop.Outcome(5, "train.stop 5u reached", None)


def test_settings_that_are_refused_are_not_saved_in_the_folder(short):
    with pytest.raises(ValueError, match="adam has none"):
        short(optimizer={"weight_decay": 0.1})
    with pytest.raises(ValueError, match="d_model 30 is not a multiple of heads 4"):
        short(model={"d_model": 30, "heads": 4})
    outcome, _ = short(train={"stop": "1u"}, data={"dev": ()})
    assert outcome.step == 1


def test_wrong_stop_creates_no_folder(short, tmp_path):
    with pytest.raises(ValueError, match=r"train\.stop '5x': say 5000u"):
        short(train={"stop": "5x"})
    assert not (tmp_path / "run").exists()


def test_average_is_validated_and_saved_as_best(short):
    _, run = short(train={"stop": "4u", "ema": 0.5, "validate_every": 4})
    _, state, _ = checkpoint.load(run / "checkpoints", only=("params", "average"))
    best = checkpoint.load(run / "best")[1]
    jax.tree.map(np.testing.assert_array_equal, best, state["average"])
    table = tfm.load(run).params["tables"]["target"]
    np.testing.assert_array_equal(table, state["average"]["tables"]["target"])
    assert (np.asarray(best["tables"]["target"]) != state["params"]["tables"]["target"]).any()


@pytest.mark.parametrize("metric", ["bleu", "loss"])
def test_weights_that_are_not_numbers_at_a_validation(short, monkeypatch, caplog, metric):
    """One warning a validation, not one a sentence; the run goes on, they are never the best."""
    scores = Validation.scores
    broken = []

    def at_first(self, update, weights):
        broken.append(len(broken) < 2)
        if broken[-1]:
            weights = jax.tree.map(lambda x: x * jnp.nan, weights)
        return scores(self, update, weights)

    monkeypatch.setattr(Validation, "scores", at_first)
    with caplog.at_level(logging.INFO, "tfm"):
        outcome, run = short(train={"stop": "6u", "validate_every": 2, "metric": metric})
    assert outcome.reason == "train.stop 6u reached" and broken == [True, True, False]
    warned = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warned) == 2
    assert all(w.startswith("no translation found for 4 of 4 texts") for w in warned)
    assert "dev loss nan" in caplog.text
    found = {update: value for update, name, value in rows(run) if name == "dev/loss"}
    assert np.isnan(found[2]) and np.isnan(found[4]) and found[6] < 10
    assert outcome.best is not None and np.isfinite(outcome.best)
    assert checkpoint.load(run / "best")[2]["update"] == 6
    assert (run / "hypotheses/2.txt").read_text() == "\n" * 4
