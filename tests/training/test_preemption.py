"""A run that receives SIGTERM saves first, whatever it is doing."""

import os
import signal

import jax
import numpy as np
import pytest
import tiny

from tfm import checkpoint
from tfm.training import loop
from tfm.training.preemption import PreemptionHandler, ValidationInterrupted
from tfm.training.validation import Validation


def test_only_an_interruptible_block_is_interrupted(caplog):
    with PreemptionHandler() as handler:
        with handler.interruptible():
            assert not handler.stop_requested
        os.kill(os.getpid(), signal.SIGTERM)  # in the middle of an update
        assert handler.stop_requested == "SIGTERM"
        with pytest.raises(ValidationInterrupted), handler.interruptible():
            raise AssertionError("the block was entered")
    with PreemptionHandler() as handler:
        with pytest.raises(ValidationInterrupted), handler.interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the block was not interrupted")
        os.kill(os.getpid(), signal.SIGTERM)  # launchers send it repeatedly
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert caplog.messages == ["SIGTERM: saving, then stopping"] * 2


def test_interrupted_validation_is_done_by_the_resumed_run(tmp_path, monkeypatch, quick_compile):
    experiment = tiny.config(tmp_path, train={"stop": "20u", "checkpoint_every": 7, "dev_limit": 2})
    loop.train(experiment, tmp_path / "uninterrupted")
    scores, interrupted = Validation.scores, []

    def interrupted_once(self, update, *args):
        if update not in interrupted:
            interrupted.append(update)
            os.kill(os.getpid(), signal.SIGTERM)
        return scores(self, update, *args)

    monkeypatch.setattr(Validation, "scores", interrupted_once)
    for update in (10, 20):
        outcome = loop.train(experiment, tmp_path / "interrupted")
        assert outcome.interrupted and outcome.step == update
        assert (
            checkpoint.load(tmp_path / "interrupted" / "checkpoints", only=("params",))[0] == update
        )
    assert not loop.train(experiment, tmp_path / "interrupted").interrupted
    runs = [tmp_path / "uninterrupted", tmp_path / "interrupted"]
    metrics = [
        [row for row in (run / "metrics.tsv").read_text().splitlines() if "\tdev/" in row]
        for run in runs
    ]
    assert metrics[0] == metrics[1] and len(metrics[0]) == 8
    weights = [checkpoint.load(run / "best")[1] for run in runs]
    jax.tree.map(np.testing.assert_array_equal, *weights)


def test_pending_validation_may_be_the_last(tmp_path, monkeypatch, quick_compile):
    experiment = tiny.config(tmp_path, train={"stop": "40u", "patience": 1})
    interrupted = []

    def no_better(self, update, *_):
        if update == 20 and not interrupted:
            interrupted.append(update)
            os.kill(os.getpid(), signal.SIGTERM)
        return dict.fromkeys(("loss", "bleu", "chrf", "exact"), 1.0)

    monkeypatch.setattr(Validation, "scores", no_better)
    assert loop.train(experiment, tmp_path / "run").interrupted
    outcome = loop.train(experiment, tmp_path / "run")
    assert outcome.step == 20 and "no better bleu in 1 validations" in outcome.reason
