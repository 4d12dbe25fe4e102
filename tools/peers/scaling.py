"""tfm against itself: the same update on more devices, along each axis of the mesh."""

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
    """The update with ``axis`` of the mesh as long as each of ``counts``, each side a process.

    Strong: one batch, whatever the mesh. Weak: as much work a device as ``shape`` is on one; rows
    are multiplied, or for ``sequence`` their length.

    Raises:
      ValueError: more devices than there are, or a size that they do not divide.
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
        work += f"; the devices share {cores()} cores: what cutting costs, no speed-up"
    return compare(work, sides, rounds, repeats)


def updates(shape: Shape, axis: Axis, devices: int) -> Side:
    """Updates on a mesh of so many devices; to be made in a process of its own.

    Where there is nothing but a CPU, it plays that many devices.
    """
    # XLA aborts when one fake device waits 40 s for another, as they may on few cores.
    patience = " --xla_cpu_collective_call_terminate_timeout_seconds=600"
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + patience
    jax.config.update("jax_num_cpu_devices", devices)
    c = replace(ours.settings(shape), mesh=Mesh(**{"data": 1, axis: devices}))
    batch = shapes.random_batch(shape)
    found = ours.Updates(c, batch)
    warm_up(lambda: found(batch))
    exchanged = traffic.collectives(hlo.parse(found.compiled.as_text()), devices)
    return Side(
        f"{axis} {devices}",
        lambda: found(batch),
        found.compile_seconds,
        shape.batch * shape.length,
        shapes.training_flops(shape),
        details={"MB sent by a device": sum(e.sent for e in exchanged) / 1e6},
    )
