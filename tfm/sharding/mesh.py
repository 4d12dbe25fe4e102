"""The devices of a run as a grid with named axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.sharding import AxisType

AXES = ("data", "fsdp", "tensor", "sequence")


@dataclass(frozen=True)
class Mesh:
    """How many devices share each kind of work; their product is the number of devices used.

    Attributes:
      data: parts of the batch, each with a whole copy of the weights.
      fsdp: parts of the batch that also share the weights and the optimizer's state among them:
        less memory for more traffic (ZeRO-3, Rajbhandari 2020).
      tensor: parts of the heads, of the feed-forward width and of the vocabulary (Shoeybi 2019).
      sequence: parts of every row, for long ones.
      One of them may be -1: all devices that the others leave. ``data``, which is -1 unless set,
      gives way to another -1.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1


def resolve(wanted: Mesh, devices: int) -> Mesh:
    """The mesh with its -1 filled in.

    Raises:
      ValueError: it does not fit on so many devices.
    """
    sizes = {name: getattr(wanted, name) for name in AXES}
    for name, size in sizes.items():
        if size < 1 and size != -1:
            raise ValueError(f"mesh.{name} {size}: must be 1 or more, or -1 for all that is left")
    rest = [name for name in AXES if sizes[name] == -1]
    if len(rest) > 1 and rest[0] == "data":
        sizes[rest.pop(0)] = 1
    if len(rest) > 1:
        raise ValueError(
            f"mesh.{rest[0]} and mesh.{rest[1]} are -1: only one can take what is left"
        )
    fixed = {name: size for name, size in sizes.items() if size > 1}
    taken = math.prod(fixed.values())
    product = " x ".join(f"{name} {size}" for name, size in fixed.items()) or "1"
    if taken > devices:
        raise ValueError(f"mesh: {product} wants {taken} devices, there are {devices}")
    if rest and devices % taken:
        raise ValueError(
            f"mesh.{rest[0]} -1: {product} leaves no whole share of {devices} devices; "
            "set it to a number"
        )
    return Mesh(**{n: devices // taken if s == -1 else s for n, s in sizes.items()})


def make(wanted: Mesh, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """The mesh of devices, the first ones where it does not take them all.

    Raises:
      ValueError: it does not fit, leaves devices of other processes out, or its sizes are no
        products of those of a TPU's torus.
    """
    devices = jax.devices() if devices is None else devices
    sizes = resolve(wanted, len(devices))
    shape = tuple(getattr(sizes, name) for name in AXES)
    used = math.prod(shape)
    if used < len(devices) and jax.process_count() > 1:
        raise ValueError(
            f"mesh: {used} of {len(devices)} devices; several processes use all of theirs, "
            "so set one axis to -1"
        )
    # Auto: with Explicit axes, the default, a plain gather from a sharded table is an error.
    types = (AxisType.Auto,) * len(AXES)
    try:
        return jax.make_mesh(shape, AXES, axis_types=types, devices=devices[:used])
    except NotImplementedError as error:  # each axis must take whole dimensions of a TPU's torus
        raise ValueError(f"mesh: no such grid of these devices: {error}") from error


def describe(mesh: jax.sharding.Mesh) -> str:
    """In words: "8 TPU v5e device(s), data 4 x tensor 2"."""
    cut = " x ".join(f"{axis} {n}" for axis, n in mesh.shape.items() if n > 1)
    there, kind = jax.device_count(), mesh.devices.flat[0].device_kind
    used = f"{mesh.size} of {there}" if mesh.size < there else f"{there}"
    return f"{used} {kind} device(s)" + (f", {cut}" if cut else "")
