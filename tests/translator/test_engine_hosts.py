"""Two processes with two devices each translate as one device does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

import tfm

pytestmark = pytest.mark.slow

CHILD = """
import json, sys
import jax

run, port, me = sys.argv[1:]
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(me))

import tfm
from tfm.sharding import Mesh

texts = json.load(sys.stdin)
model = tfm.load(run, mesh=Mesh(data=2, fsdp=2))
few, many = (model.translate(texts[:n], batch_size=4) for n in (3, len(texts)))
print(json.dumps([few, many]))
"""


def test_two_processes_translate_as_one(tiny_run):
    texts = tiny.sentences(12, seed=4, words=(1, 1), letters=(1, 5))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {
        "PYTHONPATH": str(Path(tfm.__file__).parents[1]),
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "XLA_FLAGS": "",
    }
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tiny_run), port, str(me)],
            env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for me in range(2)
    ]  # fmt: skip
    for child in children:
        child.stdin.write(json.dumps(texts))
        child.stdin.close()
        child.stdin = None
    expected = tfm.load(tiny_run).translate(texts)
    for child in children:
        out, errors = child.communicate(timeout=300)
        assert child.returncode == 0, errors[-3000:]
        assert json.loads(out.splitlines()[-1]) == [expected[:3], expected]
