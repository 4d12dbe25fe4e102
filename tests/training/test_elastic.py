"""A run resumed on other devices equals an uninterrupted one."""

import csv
import dataclasses
import hashlib

import jax
import numpy as np
import pytest
import tiny

from tfm import checkpoint
from tfm.data import stream
from tfm.sharding import Mesh
from tfm.training import loop

UPDATES = 100


class Hashed:
    """A stream of batches that records a hash of each."""

    def __init__(self, batches, hashes):
        self._batches, self._hashes = batches, hashes

    def __getattr__(self, name):
        return getattr(self._batches, name)

    def __next__(self):
        batch = next(self._batches)
        content = b"".join(
            name.encode() + np.asarray(x).tobytes() for name, x in batch._asdict().items()
        )
        self._hashes.append(hashlib.sha256(content).hexdigest())
        return batch


@pytest.fixture
def train(tmp_path, monkeypatch):
    """``train(name, (mesh, stop), ...)`` → (hashes of batches, loss curve, final state)."""
    make, hashes = stream.batches, []
    monkeypatch.setattr(stream, "batches", lambda *a, **k: Hashed(make(*a, **k), hashes))

    def run(name, *parts):
        hashes.clear()
        for mesh, stop in parts:
            # Log lines do not coincide with stops: unlogged metrics are kept in the checkpoint.
            experiment = tiny.config(
                tmp_path,
                model={"heads": 4, "dropout": 0.1},
                tokenizer={"source_size": 12, "target_size": 12},
                data={"dev": ()},
                train={"stop": f"{stop}u", "log_every": 7, "checkpoint_every": 1000, "ema": 0.9},
            )
            outcome = loop.train(dataclasses.replace(experiment, mesh=mesh), tmp_path / name)
            assert outcome.step == stop and not outcome.interrupted
        with (tmp_path / name / "metrics.tsv").open(newline="") as file:
            rows = [row for row in csv.reader(file, delimiter="\t") if row[1] == "train/loss"]
        _, state, _ = checkpoint.load(tmp_path / name / "checkpoints", only=("params", "average"))
        return list(hashes), {int(row[0]): float(row[2]) for row in rows}, state

    return run


@pytest.mark.slow
def test_eight_devices_then_one_then_eight_in_another_mesh(train, quick_compile):
    one = Mesh(data=1)
    wanted_hashes, wanted_curve, wanted = train("steady", (one, UPDATES))
    hashes, curve, got = train(
        "elastic", (Mesh(data=1, fsdp=8), 30), (one, 60), (Mesh(data=2, tensor=4), UPDATES)
    )
    assert len(set(wanted_hashes)) == UPDATES
    assert hashes == wanted_hashes
    assert sorted(curve) == list(range(7, UPDATES, 7)) == sorted(wanted_curve)
    # Only the order of float32 sums differs.
    np.testing.assert_allclose(list(curve.values()), list(wanted_curve.values()), rtol=1e-5)

    def compare(path, a, b):
        # A key bias shifts all scores of a row alike: its gradient is noise that Adam scales up.
        if [key.key for key in path[-2:]] != ["k", "b"]:
            np.testing.assert_allclose(a, b, atol=1e-5)

    jax.tree_util.tree_map_with_path(compare, got, wanted)
