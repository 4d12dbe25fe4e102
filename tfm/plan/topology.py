"""Hardware by name: the devices to compile for, and the vendor's figures for a chip."""

import contextlib
import importlib.util
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.experimental import topologies

from tfm import hint

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """A vendor's public figures for one chip; 0 stands for an unknown one.

    Attributes:
      name: as the vendor writes it.
      memory: bytes of high-bandwidth memory.
      bandwidth: of that memory, bytes/s.
      peak_flops: dense bfloat16 matrix products, FLOP/s.
      ring_bandwidth: bytes/s that a chip sends in a ring of its neighbours, both directions
        together.
      clock: of a TPU's matrix units, Hz.
    """

    name: str
    memory: int
    bandwidth: float = 0.0
    peak_flops: float = 0.0
    ring_bandwidth: float = 0.0
    clock: float = 0.0


# "System architecture" of docs.cloud.google.com/tpu/docs/v4 (32 GiB, 1200 GB/s, 275 TFLOP/s), /v5e
# (16 GB, 819 GB/s, 197), /v5p (95 GiB, 2765 GB/s, 459) and /v6e (32 GB, 1638 GB/s, 918). For v5e,
# v5p and v6e they give the bandwidth of all links of a chip in both directions, 400, 1200 and
# 800 GB/s; v4 has six links of 50 GB/s in one direction (Jouppi 2023). A ring along one axis of a
# torus uses a half of the links in two dimensions, a third in three. The clock is the peak over the
# number of matrix units, eight in v4 and v5p and four in v5e, of 128 x 128 multiply-adds a cycle.
_TPUS = {
    "v4": Chip("TPU v4", 32 * GIB, 1.2e12, 275e12, 300e9 / 3, 1.05e9),
    "v5e": Chip("TPU v5e", 16 * GIB, 0.819e12, 197e12, 400e9 / 2 / 2, 1.5e9),
    "v5p": Chip("TPU v5p", 95 * GIB, 2.765e12, 459e12, 1200e9 / 2 / 3, 1.75e9),
    "v6e": Chip("TPU v6e", 32 * GIB, 1.638e12, 918e12, 800e9 / 2 / 2),
}

# "Configurations" on those pages: the slices that can be rented, up to 512 chips.
_TWO_AXES = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_THREE_AXES = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")
_SLICES = {"v4": _THREE_AXES, "v5e": _TWO_AXES, "v5p": _THREE_AXES, "v6e": _TWO_AXES}

# https://www.nvidia.com/en-us/data-center/a100, /h100 and /h200: SXM, without sparsity. They give
# NVLink's bandwidth for both directions together.
_GPUS = {
    "A100": Chip("NVIDIA A100 80 GB", 80 * 10**9, 2.039e12, 312e12, 600e9 / 2),
    "H100": Chip("NVIDIA H100", 80 * 10**9, 3.35e12, 989e12, 900e9 / 2),
    "H200": Chip("NVIDIA H200", 141 * 10**9, 4.8e12, 989e12, 900e9 / 2),
}


@dataclass(frozen=True)
class Topology:
    """Devices of one kind.

    Attributes:
      name: as asked for.
      platform: tpu, gpu or cpu.
      devices: for the mesh. They only describe the hardware, unless this machine has it.
    """

    name: str
    platform: str
    chip: Chip
    devices: Sequence[jax.Device]


def find(name: str) -> Topology:
    """The hardware that a name such as ``v5e:16x16``, ``v5p:4x4x4``, ``cpu:8`` or ``gpu:8`` means.

    For a TPU or CPU it makes JAX use the CPU only, so call it before JAX initialises its devices.

    Raises:
      ValueError: unknown hardware, or no compiler for it on this machine.
    """
    kind, _, size = name.partition(":")
    known = (*_TPUS, "cpu", "gpu")
    if kind not in known:
        raise ValueError(f"--topology {name}: unknown hardware {kind!r}{hint.nearest(kind, known)}")
    shape = r"[1-9]\d*" if kind in ("cpu", "gpu") else r"[1-9]\d*(x[1-9]\d*)+"
    if not re.fullmatch(shape, size):
        example = f"{kind}:8" if kind in ("cpu", "gpu") else f"{kind}:2x4"
        raise ValueError(f"--topology {name}: {size!r} is not a number of chips; try {example}")
    if kind == "cpu":
        return _cpu(name, int(size))
    if kind == "gpu":
        return _gpu(name, int(size))
    return _tpu(name, kind, size)


def larger_slices(topology: Topology) -> list[str]:
    """Names of the slices of the same TPU that have more chips, the smallest first."""
    kind = topology.name.partition(":")[0]
    chips = {size: math.prod(map(int, size.split("x"))) for size in _SLICES.get(kind, ())}
    return [f"{kind}:{size}" for size, count in chips.items() if count > len(topology.devices)]


def _tpu(name: str, kind: str, size: str) -> Topology:
    if not importlib.util.find_spec("libtpu"):
        raise ValueError(
            f"--topology {name}: the TPU compiler is missing: pip install 'tfm[tpu]' (Linux, x86)"
        )
    # Without these libtpu waits minutes for Google's metadata server, and locks this machine's
    # TPUs, although nothing runs on them.
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    jax.config.update("jax_platforms", "cpu")
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=f"{kind}:{size}")
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(f"--topology {name}: {str(error).splitlines()[0]}") from error
    return Topology(name, "tpu", _TPUS[kind], found.devices)


def _cpu(name: str, count: int) -> Topology:
    jax.config.update("jax_platforms", "cpu")
    with contextlib.suppress(RuntimeError):  # JAX has started already, perhaps with enough devices
        jax.config.update("jax_num_cpu_devices", count)
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise ValueError(f"--topology {name}: JAX has started with {len(devices)} CPU devices")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // count
    chip = Chip("CPU device, an equal share of this machine", memory)
    return Topology(name, "cpu", chip, devices[:count])


def _gpu(name: str, count: int) -> Topology:
    try:
        devices = jax.devices("gpu")
    except RuntimeError as error:
        raise ValueError(
            f"--topology {name}: XLA compiles for a GPU only on a machine that has one; run this "
            "there, with JAX's CUDA plugin (pip install 'tfm[cuda]')"
        ) from error
    if len(devices) < count:
        raise ValueError(f"--topology {name}: this machine has {len(devices)} GPUs")
    kind = devices[0].device_kind
    chip = next((chip for model, chip in _GPUS.items() if model in kind), None)
    if chip is None:
        limit = (devices[0].memory_stats() or {}).get("bytes_limit", 0)
        chip = Chip(kind, limit)
    return Topology(name, "gpu", chip, devices[:count])
