"""A run in a bucket of an emulated Google Cloud Storage equals the same run on a local disk."""

import csv
import os
import subprocess
import sys
import time
import urllib.request

import jax
import numpy as np
import pytest
import tiny

from tfm import checkpoint, translator
from tfm.training import loop

pytest.importorskip("gcsfs")
pytest.importorskip("gcp_storage_emulator")

SERVE = """
import sys
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.server import create_server

download = objects.download

def with_generation(request, response, storage, *args, **kwargs):
    # The real server sends it, and tensorstore needs it for conditional writes.
    download(request, response, storage, *args, **kwargs)
    if response.status.value < 400:
        file = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
        response["x-goog-generation"] = file["generation"]

objects.download = with_generation
create_server("localhost", int(sys.argv[1]), in_memory=True, default_bucket="runs").run()
"""


@pytest.fixture
def cloud(monkeypatch):
    """A local server, used by everything that accesses Google Cloud Storage."""
    port = str(20000 + os.getpid() % 10000)
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, port], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://localhost:{port}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "none")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{address}/storage/v1/b/runs").close()
            break
        except OSError:
            time.sleep(0.1)
    yield "gs://runs"
    server.terminate()
    server.wait()


def curves(text):
    rows = csv.reader(text.splitlines(), delimiter="\t")
    return [row for row in rows if row[1] not in ("train/tokens_per_second", "train/memory_mib")]


@pytest.mark.slow
def test_run_in_a_bucket_resumes_and_translates(cloud, tmp_path, quick_compile):
    from etils import epath

    experiment = tiny.config(tmp_path, train={"validate_every": 10, "checkpoint_every": 5})
    remote, local = f"{cloud}/a/run", tmp_path / "run"
    for stop in ("13u", "20u"):  # a log line averages updates before and after the stop
        for folder in (local, remote):
            loop.train(tiny.change(experiment, train={"stop": stop}), folder)

    folder = epath.Path(remote)
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in local.iterdir()}
    log = (folder / "log.txt").read_text()
    assert "update 5 |" in log and "update 20 |" in log
    (metrics, wanted) = (curves((f / "metrics.tsv").read_text()) for f in (folder, local))
    assert metrics == wanted and len(metrics) > 30
    assert any(path.stat().length > 100 for path in (folder / "tensorboard").iterdir())
    for name in ("checkpoints", "best"):
        (step, state, _), (same_step, same_state, _) = (
            checkpoint.load(f"{f}/{name}", only=("params",) if name == "checkpoints" else ())
            for f in (remote, local)
        )
        assert step == same_step
        jax.tree.map(np.testing.assert_array_equal, state, same_state)

    texts = ["abc de", "fgh"]
    outputs = [translator.load(f).translate(texts, beam_size=2) for f in (remote, local)]
    assert outputs[0] == outputs[1]


@pytest.mark.slow
def test_unfinished_checkpoint_in_a_bucket_is_not_restored(cloud):
    from etils import epath

    folder = f"{cloud}/b/checkpoints"
    state = {"w": jax.numpy.arange(1000.0)}
    with checkpoint.CheckpointManager(folder) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state, {"at": step})
    for path in (epath.Path(folder) / "2").iterdir():
        if path.name.startswith("commit_success"):
            path.unlink()
    with checkpoint.CheckpointManager(folder) as checkpoints:
        step, got, position = checkpoints.restore(state)
        assert (step, position) == (1, {"at": 1})
        np.testing.assert_array_equal(got["w"], state["w"])
        assert checkpoints.save(2, state, {"at": 2}, wait=True)
    assert checkpoint.load(folder)[0] == 2
