"""The output of tools/bench.py; the figures themselves are not tested."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfm

TOOLS = Path(__file__).parents[2] / "tools"


def scaling(*options):
    """Runs the command on a tiny shape."""
    shape = {"width": 128, "layers": 1, "d-ff": 64, "vocab": 64, "batch": 4, "length": 8}
    sizes = [word for name, size in shape.items() for word in (f"--shape.{name}", str(size))]
    return subprocess.run(
        [sys.executable, TOOLS / "bench.py", "scaling", *sizes, *options],
        env=os.environ
        | {
            "PYTHONPATH": str(Path(tfm.__file__).parents[1]),
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.slow
def test_scaling_compares_numbers_of_devices(tmp_path):
    results = tmp_path / "rows.json"
    turns = ["--rounds", "1", "--repeats", "2", "--json", str(results)]
    done = scaling("--axes", "tensor", "--growths", "weak", "--devices", "1", "2", *turns)
    assert done.returncode == 0, done.stderr
    assert "weak scaling (batch times devices)" in done.stderr
    found = json.loads(results.read_text())
    assert "scaling" in found["command"] and found["versions"]["jax"] and found["cores"]
    one, two = found["rows"]
    assert (one["side"], two["side"]) == ("tensor 1", "tensor 2")
    assert one["runs"] == two["runs"] == 2
    assert one["details"] == {"MB sent by a device": 0.0}
    assert two["details"]["MB sent by a device"] > 0
    assert two["gflops"] * two["median_seconds"] == pytest.approx(
        2 * one["gflops"] * one["median_seconds"]
    )
    assert two["ratio"] == pytest.approx(one["tokens_per_second"] / two["tokens_per_second"])


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    from peers import measure

    return measure


def test_the_sides_of_tfm_run(measure):
    from peers import ours, shapes

    shape = shapes.Shape(width=128, layers=1, d_ff=64, vocab=64, batch=4, length=9)
    rng = np.random.default_rng(0)
    for side in (
        ours.training(shape, shapes.random_batch(shape), 0.0),
        ours.decoding(shape, rng.integers(4, 64, (4, 9), dtype=np.int32), beam=2),
    ):
        side.run()
        assert (side.name, side.tokens) == ("tfm", 36) and side.flops > 0


@pytest.mark.parametrize("alone", [False, True])
def test_a_trained_model_on_sentences(measure, tiny_run, alone):
    from peers import trained

    work = trained.Work(2, ["ab", "abc"], ["AB", "ABC"], alone)
    side = trained.tfm(tiny_run, "bfloat16", work)
    side.run()
    assert (side.name, side.tokens) == ("tfm bfloat16", 2)
    assert alone or 0 <= side.details["BLEU"] <= 100


def test_the_table_prints_names_unchanged_and_the_unit(measure, capsys):
    rows = measure.from_speeds("v5e:2x4: a :cat: of [B,T]", {"tfm": [10.0, 30.0, 20.0], "[x]": [5]})
    measure.report([dataclasses.replace(row, unit="words/s") for row in rows], None)
    printed = capsys.readouterr().err
    assert "v5e:2x4: a :cat: of [B,T]" in printed and "[x]" in printed
    assert "words/s" in printed and "target tok/s" not in printed
    assert "tfm / side" in printed and "4.00" in printed


def test_an_error_in_the_process_of_a_side_is_raised(measure):
    with pytest.raises(ValueError, match=r"invalid literal for int.*'many'"):
        measure.compare("work", [functools.partial(int, "many")], rounds=1, repeats=1)
