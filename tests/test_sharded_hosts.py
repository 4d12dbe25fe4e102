"""Two processes with four devices each train as one process with eight."""

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
import json, sys
from pathlib import Path
import jax

experiment, folder, port, processes, me = sys.argv[1:]
processes = int(processes)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8 // processes)
if processes > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, int(me))

import functools
from tfm import config, sharding, transformer
from tfm.data import stream
from tfm.training import loop, optimizer, step

c = config.from_file(experiment)
data = loop.open_data(c, Path(folder))
c = loop.resolve(c, data)
layout = sharding.Layout(sharding.make(c.mesh))
rule = optimizer.make(c.optimizer, transformer.declare(c.model))
host, hosts = layout.share()
batches = stream.batches(
    data.pairs, data.scan, data.tokenizers, c.data, host=host, hosts=hosts, prefetch=0
)
wanted = step.abstract_state(c, rule, layout)
places = jax.tree.map(lambda x: x.sharding, wanted)
state = jax.jit(functools.partial(step.init_state, c, rule), out_shardings=places)()
update = step.jit_update(c, rule, layout).lower(wanted, step.abstract_batch(c, layout)).compile()
losses, rows = [], 0
for _ in range(20):
    batch = next(batches)
    rows = len(batch["source"])
    state, metrics = update(state, {n: layout.put(x, "batch", "length") for n, x in batch.items()})
    losses.append(float(metrics.loss))
table = layout.whole(state.params)["tables"]["target"]
found = {"losses": losses, "rows": rows, "share": [host, hosts], "sum": float(table.sum())}
print(json.dumps(found))
"""


def run(experiment, folder, processes):
    """What each of the processes prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(Path(tfm.__file__).parents[1]),
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    arguments = [str(experiment), str(folder), str(port), str(processes)]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments, str(i)],
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh",
    [
        {"data": 4, "fsdp": 2},
        {"data": 1, "fsdp": 4, "tensor": 2},
        {"data": 1, "tensor": 2, "sequence": 4},  # both hold every row
    ],
    ids=["data-fsdp", "fsdp-tensor", "tensor-sequence"],
)
def test_two_processes_are_one(tmp_path, mesh):
    pieces = {"kind": "unigram", "source_size": 40, "target_size": 40}
    c = tiny.config(tmp_path, tokenizer=pieces, model={"dropout": 0.1}, mesh=mesh)
    experiment = tiny.experiment(tmp_path, c)
    (alone,) = run(experiment, tmp_path / "run", 1)  # trains the tokenizers, too
    both = run(experiment, tmp_path / "run", 2)
    halves = 1 if "sequence" in mesh else 2
    assert [one["share"] for one in both] == [[i % halves, halves] for i in range(2)]
    assert {one["rows"] for one in both} == {alone["rows"] // halves}
    assert both[0]["losses"] == both[1]["losses"]
    np.testing.assert_allclose(both[0]["losses"], alone["losses"], rtol=1e-5)
    np.testing.assert_allclose(both[0]["sum"], alone["sum"], rtol=1e-4)
    assert alone["losses"][-1] < alone["losses"][0]
