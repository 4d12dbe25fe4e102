"""The devices of a run, arranged as a mesh with named axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import jax
from jax.sharding import AxisType

from tfm import ranges
from tfm.ranges import Range

AXES = ("data", "fsdp", "tensor", "sequence")

AxisSize = Annotated[int, Range(least=1, special=-1, note="-1 takes the devices left")]


@dataclass(frozen=True)
class Mesh:
    """The sizes of the mesh axes; their product is the number of devices used.

    Attributes:
      data: shards of the batch, each with its own copy of the weights.
      fsdp: shards of the batch that also shard the weights and the optimizer state between them:
        less memory for more communication (ZeRO-3, Rajbhandari 2020).
      tensor: shards of the heads, of the feed-forward width and of the vocabulary (Shoeybi 2019).
      sequence: shards of the length of every row, for long rows.
      One of them may be -1, which takes all devices that the others leave. ``data``, -1 by
      default, becomes 1 where another axis is -1.
    """

    data: AxisSize = -1
    fsdp: AxisSize = 1
    tensor: AxisSize = 1
    sequence: AxisSize = 1


def resolve(wanted: Mesh, devices: int) -> Mesh:
    """The mesh sizes with -1 replaced by a number.

    Raises:
      ValueError: a size is out of range, or they do not fit this number of devices.
    """
    ranges.check(wanted, "mesh")
    sizes = {name: getattr(wanted, name) for name in AXES}
    rest = [name for name in AXES if sizes[name] == -1]
    if len(rest) > 1 and rest[0] == "data":
        sizes[rest.pop(0)] = 1
    if len(rest) > 1:
        raise ValueError(
            f"mesh.{rest[0]} and mesh.{rest[1]} are -1: only one axis can take the devices left"
        )
    fixed = {name: size for name, size in sizes.items() if size > 1}
    taken = math.prod(fixed.values())
    product = " x ".join(f"{name} {size}" for name, size in fixed.items()) or "1"
    if taken > devices:
        raise ValueError(f"mesh: {product} wants {taken} devices, there are {devices}")
    if rest and devices % taken:
        raise ValueError(
            f"mesh.{rest[0]} -1: {devices} devices are not a multiple of {product}; "
            "choose sizes that divide the number of devices"
        )
    return Mesh(**{n: devices // taken if s == -1 else s for n, s in sizes.items()})


def make(wanted: Mesh, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A mesh of the first devices, as many as the sizes ask for.

    Raises:
      ValueError: the sizes do not fit the devices, leave devices unused in a run of several
        processes, or are not products of the dimensions of a TPU's torus.
    """
    devices = jax.devices() if devices is None else devices
    sizes = resolve(wanted, len(devices))
    shape = tuple(getattr(sizes, name) for name in AXES)
    used = math.prod(shape)
    if used < len(devices) and jax.process_count() > 1:
        raise ValueError(
            f"mesh: uses {used} of {len(devices)} devices, but a run of several processes must "
            "use all; set one axis to -1"
        )
    # With Explicit axes, the default, a plain gather from a sharded table is an error.
    types = (AxisType.Auto,) * len(AXES)
    try:
        return jax.make_mesh(shape, AXES, axis_types=types, devices=devices[:used])
    except NotImplementedError as error:  # an axis must be whole dimensions of a TPU torus
        raise ValueError(f"mesh: these devices cannot be arranged so: {error}") from error


def describe(mesh: jax.sharding.Mesh) -> str:
    """A description for the log: "8 TPU v5e device(s), data 4 x tensor 2"."""
    axes = " x ".join(f"{axis} {n}" for axis, n in mesh.shape.items() if n > 1)
    available, kind = jax.device_count(), mesh.devices.flat[0].device_kind
    used = f"{mesh.size} of {available}" if mesh.size < available else f"{available}"
    return f"{used} {kind} device(s)" + (f", {axes}" if axes else "")
