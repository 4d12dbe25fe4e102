"""tfm against itself: the same update on 1, 2, 4, ... devices along each axis of the mesh."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import jax

from peers import ours, shapes
from peers.measure import Row, Side, compare, cores, warm_up
from peers.shapes import Shape
from tfm.plan import hlo, traffic
from tfm.sharding import Mesh

Axis = Literal["data", "fsdp", "tensor", "sequence"]
Growth = Literal["strong", "weak"]


def measure(
    shape: Shape, axis: Axis, growth: Growth, counts: Sequence[int], rounds: int, repeats: int
) -> list[Row]:
    """Measures the update with ``axis`` of the mesh at each size of ``counts``.

    With strong scaling the batch is ``shape`` on every mesh. With weak scaling each device has the
    work of ``shape``: the rows are multiplied by the devices, or for ``sequence`` the length.

    Raises:
      ValueError: too few devices, or a size that they do not divide.
    """
    grow = "length" if axis == "sequence" else "batch"
    sides = []
    for n in counts:
        wider = replace(shape, **{grow: getattr(shape, grow) * n}) if growth == "weak" else shape
        sides.append(partial(updates, wider, axis, n))
    work = f"update, {shape}, {axis} {', '.join(map(str, counts))}, {growth} scaling"
    if growth == "weak":
        work += f" ({grow} times devices)"
    if jax.default_backend() == "cpu":
        work += f"; the devices share {cores()} cores: the cost of sharding, no speed-up"
    return compare(work, sides, rounds, repeats)


def updates(shape: Shape, axis: Axis, devices: int) -> Side:
    """Updates on a mesh of so many devices, in a process of their own.

    On a machine with only a CPU, that CPU is split into as many fake devices.
    """
    # By default XLA aborts when one device waits 40 s for another, which happens on few cores.
    timeout = " --xla_cpu_collective_call_terminate_timeout_seconds=600"
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + timeout
    jax.config.update("jax_num_cpu_devices", devices)
    experiment = replace(ours.experiment(shape), mesh=Mesh(**{"data": 1, axis: devices}))
    batch = shapes.random_batch(shape)
    run = ours.Updates(experiment, batch)
    warm_up(lambda: run(batch))
    collectives = traffic.collectives(hlo.parse(run.compiled.as_text()), devices)
    return Side(
        f"{axis} {devices}",
        lambda: run(batch),
        run.compile_seconds,
        shape.batch * shape.length,
        shapes.training_flops(shape),
        details={
            "MB sent by a device": sum(collective.sent_bytes for collective in collectives) / 1e6
        },
    )
