"""A run that is told to stop saves first, whatever it is at."""

import os
import signal

import jax
import numpy as np
import pytest
import tiny

from tfm import checkpoint
from tfm.training import loop
from tfm.training.preemption import BrokenOff, Signals
from tfm.training.validation import Validation


def test_what_can_be_done_again_is_broken_off_and_nothing_else(caplog):
    with Signals() as signals:
        with signals.may_break_off():
            assert not signals.told
        os.kill(os.getpid(), signal.SIGTERM)  # in the middle of an update
        assert signals.told == "SIGTERM"
        with pytest.raises(BrokenOff), signals.may_break_off():
            raise AssertionError("not even begun")
    with Signals() as signals:
        with pytest.raises(BrokenOff), signals.may_break_off():
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("gone on with")
        os.kill(os.getpid(), signal.SIGTERM)  # launchers repeat themselves
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert caplog.messages == ["SIGTERM: saving, then stopping"] * 2


def test_a_validation_is_broken_off_and_owed(tmp_path, monkeypatch, quick_compile):
    c = tiny.config(tmp_path, train={"stop": "20u", "checkpoint_every": 7, "dev_limit": 2})
    loop.train(c, tmp_path / "steady")
    scores, told = Validation.scores, []

    def tell_first(self, update, *args):
        if update not in told:
            told.append(update)
            os.kill(os.getpid(), signal.SIGTERM)
        return scores(self, update, *args)

    monkeypatch.setattr(Validation, "scores", tell_first)
    for update in (10, 20):
        outcome = loop.train(c, tmp_path / "told")
        assert outcome.interrupted and outcome.step == update
        assert checkpoint.load(tmp_path / "told" / "checkpoints", only=("params",))[0] == update
    assert not loop.train(c, tmp_path / "told").interrupted
    runs = [tmp_path / "steady", tmp_path / "told"]
    metrics = [
        [row for row in (run / "metrics.tsv").read_text().splitlines() if "\tdev/" in row]
        for run in runs
    ]
    assert metrics[0] == metrics[1] and len(metrics[0]) == 8
    weights = [checkpoint.load(run / "best")[1] for run in runs]
    jax.tree.map(np.testing.assert_array_equal, *weights)


def test_an_owed_validation_may_be_the_last(tmp_path, monkeypatch, quick_compile):
    c = tiny.config(tmp_path, train={"stop": "40u", "patience": 1})
    told = []

    def no_better(self, update, *_):
        if update == 20 and not told:
            told.append(update)
            os.kill(os.getpid(), signal.SIGTERM)
        return dict.fromkeys(("loss", "bleu", "chrf", "exact"), 1.0)

    monkeypatch.setattr(Validation, "scores", no_better)
    assert loop.train(c, tmp_path / "run").interrupted
    outcome = loop.train(c, tmp_path / "run")
    assert outcome.step == 20 and "no better bleu in 1 validations" in outcome.reason
