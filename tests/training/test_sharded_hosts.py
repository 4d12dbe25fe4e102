"""Two processes with four devices each give the numbers of one process with eight."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

import tfm

CHILD = """
import functools, json, sys
from pathlib import Path
import jax

folder, port, processes, me, *experiments = sys.argv[1:]
processes = int(processes)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8 // processes)
if processes > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, int(me))

from tfm import config, sharding, transformer
from tfm.data import stream
from tfm.training import optimizer, step
from tfm.training import setup

def train(path):
    experiment = config.from_file(path)
    data = setup.open_data(experiment, Path(folder))
    experiment = setup.resolve(experiment, data)
    layout = sharding.Layout(sharding.make(experiment.mesh))
    rule = optimizer.make(experiment.optimizer, transformer.declare(experiment.model))
    shard, shards = layout.data_shard()
    batches = stream.batches(
        data.pairs, data.scan, data.tokenizers, experiment.data, host=shard, hosts=shards,
        prefetch=0,
    )
    abstract = step.abstract_state(experiment, rule, layout)
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    state = jax.jit(functools.partial(step.init_state, experiment, rule), out_shardings=shardings)()
    update = step.jit_update(experiment, rule, layout)
    losses, rows = [], 0
    for _ in range(20):
        batch = next(batches)
        rows = len(batch.source)
        arrays = jax.tree.map(lambda x: layout.put(x, "batch", "length"), batch)
        state, metrics = update(state, arrays)
        losses.append(float(metrics.loss))
    table = layout.replicate(state.params)["tables"]["target"]
    return {"losses": losses, "rows": rows, "shard": [shard, shards], "sum": float(table.sum())}

print(json.dumps([train(path) for path in experiments]))
"""


def run(experiments, folder, processes):
    """The results of each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(Path(tfm.__file__).parents[1]),
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    arguments = [str(folder), str(port), str(processes)]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments, str(i), *map(str, experiments)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(processes)
    ]
    found = []
    for child in children:
        out, errors = child.communicate(timeout=300)
        assert child.returncode == 0, errors[-3000:]
        found.append(json.loads(out.splitlines()[-1]))
    return found


MESHES = {
    "data-fsdp": {"data": 4, "fsdp": 2},
    "fsdp-tensor": {"data": 1, "fsdp": 4, "tensor": 2},
    "tensor-sequence": {"data": 1, "tensor": 2, "sequence": 4},  # both feed every row
}


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """On three meshes, in the same processes, because starting them takes long."""
    pieces = {"kind": "unigram", "source_size": 40, "target_size": 40}
    experiment = tiny.config(tmp_path, tokenizer=pieces, model={"dropout": 0.1})
    experiments = []
    for name, mesh in MESHES.items():
        (tmp_path / name).mkdir()
        experiments.append(tiny.experiment(tmp_path / name, tiny.change(experiment, mesh=mesh)))
    (alone,) = run(experiments, tmp_path / "run", 1)  # also trains the tokenizers
    both = run(experiments, tmp_path / "run", 2)
    for name, one, *two in zip(MESHES, alone, *both, strict=True):
        halves = 1 if "sequence" in name else 2
        assert [half["shard"] for half in two] == [[i % halves, halves] for i in range(2)], name
        assert {half["rows"] for half in two} == {one["rows"] // halves}, name
        assert two[0]["losses"] == two[1]["losses"], name
        np.testing.assert_allclose(two[0]["losses"], one["losses"], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(two[0]["sum"], one["sum"], rtol=1e-4, err_msg=name)
        assert one["losses"][-1] < one["losses"][0], name
