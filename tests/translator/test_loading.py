"""Folders that are no whole model: each is one sentence that says which file, and what to do."""

import dataclasses
import json
import os
import shutil

import pytest

import tfm
from tfm import config

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "run")


def change_model(run, **fields):
    path = run / "config.json"
    settings = json.loads(path.read_text())
    settings["model"] |= fields
    path.write_text(json.dumps(settings))


def damage(checkpoints):
    for path in checkpoints.rglob("*"):
        if path.is_file():
            os.truncate(path, path.stat().st_size // 2)


def message(folder):
    with pytest.raises((ValueError, OSError)) as error:
        tfm.load(folder)
    text = str(error.value)
    assert "scratch" not in text and "anew" not in text and "resum" not in text
    return text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"d_model": 48},
            "cross/k/b: the checkpoint has float32[1, 2, 16], the config float32[1, 2, 24]",
        ),
        (
            {"d_ff": 128},
            "ff/down: the checkpoint has float32[1, 64, 32], the config float32[1, 128, 32]",
        ),
        (
            {"encoder_layers": 2},
            "ff/down: the checkpoint has float32[1, 64, 32], the config float32[2, 64, 32]",
        ),
        ({"tie": "none"}, "tables/output: the checkpoint has nothing, the config float32["),
        (
            {"kv_heads": 1},
            "cross/k/b: the checkpoint has float32[1, 2, 16], the config float32[1, 1, 16]",
        ),
    ],
)
def test_config_of_another_model_than_the_weights(run, fields, words):
    settings = config.read(run / "config.json")
    assert all(getattr(settings.model, name) != value for name, value in fields.items())
    change_model(run, **fields)
    for checkpoint in ("best", "checkpoints"):
        text = message(run)
        assert text.startswith(f"model {run}: checkpoint {run}/{checkpoint}/")
        assert " and the config disagree at " in text and words in text
        assert text.endswith(
            f"; put back the config.json that belongs to these weights, or the weights of {run}"
        )
        shutil.rmtree(run / "best", ignore_errors=True)  # then those of the newest checkpoint


def test_nothing_is_compiled_before_the_weights_are_compared(run, monkeypatch):
    import jax

    def compile(*_, **__):
        raise AssertionError("compiled")

    change_model(run, d_model=48)
    monkeypatch.setattr(jax.stages.Lowered, "compile", compile)
    monkeypatch.setattr("tfm.checkpoint.manifest._digest_all", compile)
    assert "disagree" in message(run)


def test_config_of_an_impossible_model(run):
    change_model(run, heads=3)
    text = message(run)
    assert text.startswith(f"model {run}: ") and "heads 3" in text


def test_damaged_best_weights(run):
    damage(run / "best")
    text = message(run)
    assert text.startswith(f"checkpoints {run}/best: none can be read (")
    assert text.endswith(
        "; copy the model again from where it was trained, or move this folder away to use the "
        "weights of its newest checkpoint"
    )
    shutil.move(run / "best", run / "worst")
    assert tfm.load(run).translate(["ab"])


def test_damaged_weights(run):
    damage(run / "best")
    shutil.rmtree(run / "checkpoints")
    assert message(run).endswith("; copy the model again from where it was trained")
    shutil.rmtree(run / "best")
    assert message(run).startswith(f"model {run}: nothing is saved there yet")


def test_the_command_says_the_same(run, command):
    change_model(run, d_model=48)
    code, out, err = command("translate", "--model", run, stdin=b"ab\n")
    assert (code, out) == (1, b"")
    assert err.splitlines()[-1] == f"tfm translate: error: {message(run)}"
    assert "Traceback" not in err


def test_a_translator_of_a_whole_model(tiny_run):
    experiment = config.read(tiny_run / "config.json")
    assert dataclasses.asdict(tfm.load(tiny_run).experiment) == dataclasses.asdict(experiment)
