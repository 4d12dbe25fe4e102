"""How a process finds the others of its run: by flags, by the environment, or by the cluster."""

import glob
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from tfm import ranges
from tfm.ranges import Range

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@dataclass(frozen=True)
class Hosts:
    """The processes that share a run. Nothing need be set on one machine, a TPU pod or Slurm.

    Attributes:
      coordinator: ADDRESS:PORT of process 0, with a port that is free there.
      processes: number of processes, one a host or one a GPU.
      process: index of this one, from 0. The environment variables JAX_COORDINATOR_ADDRESS,
        JAX_NUM_PROCESSES and JAX_PROCESS_ID mean the same as these three.
      timeout: seconds after which a process that died or hangs ends the others; ten times as long
        while compiling, saving or validating. Preparing the data has no limit; a process that dies
        then is noticed half a minute later, by JAX.
    """

    coordinator: str = ""
    processes: Annotated[int, Range(least=1)] | None = None
    process: Annotated[int, Range(least=0)] | None = None
    timeout: Annotated[float, Range(least=0.1, most=604_800)] = 300.0


class Membership(NamedTuple):
    """How this process joins the others.

    Attributes:
      arguments: keywords of ``jax.distributed.initialize``, which finds missing ones in the
        cluster's environment.
      process, processes: index of this process and their number, if known before they connect.
      coordinator: address of process 0, likewise.
    """

    arguments: dict[str, Any]
    process: int | None = None
    processes: int | None = None
    coordinator: str = "process 0"


def find(hosts: Hosts, environment: Mapping[str, str] = os.environ) -> Membership | None:
    """How this process joins the others; None if it is a single process.

    Sources, in this order: the flags; JAX's three variables; a Slurm step of several tasks; a TPU
    machine. JAX assigns each task of a Slurm step the GPU with its number on the node.

    Raises:
      ValueError: a flag is out of its range, only some of the flags or variables are given, or they
        contradict each other.
    """
    ranges.check(hosts, "hosts")
    flags = hosts.coordinator or None, hosts.processes, hosts.process
    if any(value is not None for value in flags):
        names = ("--hosts.coordinator", "--hosts.processes", "--hosts.process")
        return _given(dict(zip(names, flags, strict=True)))
    # An address alone may be meant for a cluster that knows the other two.
    if any(environment.get(name) for name in _VARIABLES[1:]):
        return _given({name: environment.get(name) or None for name in _VARIABLES})
    if "SLURM_STEP_NODELIST" in environment:  # in a task of srun, not in the batch script
        tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
        return _slurm(environment, tasks) if tasks > 1 else None
    return Membership({}) if _on_tpu_pod(environment) else None


def _given(values: dict[str, Any]) -> Membership | None:
    """The membership from coordinator, processes and process, by the names to use in errors."""
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise ValueError(f"{' and '.join(values)} go together: {', '.join(missing)} is missing")
    (a, address), (b, count), (c, index) = values.items()
    if not str(address).rpartition(":")[0] or not str(address).rpartition(":")[2].isdecimal():
        raise ValueError(f"{a} {address}: not ADDRESS:PORT")
    if not str(count).isdecimal() or not str(index).isdecimal() or int(index) >= int(count):
        raise ValueError(f"{c} {index}, {b} {count}: processes are numbered from 0 to {b} - 1")
    if int(count) == 1:
        return None
    arguments = {
        "coordinator_address": address,
        "num_processes": int(count),
        "process_id": int(index),
        "cluster_detection_method": "deactivate",
    }
    return Membership(arguments, int(index), int(count), address)


def _slurm(environment: Mapping[str, str], tasks: int) -> Membership:
    nodes = environment["SLURM_STEP_NODELIST"]
    index = int(environment["SLURM_PROCID"])
    arguments = {
        "num_processes": tasks,
        "process_id": index,
        "cluster_detection_method": "slurm",
    }
    return Membership(arguments, index, tasks, f"process 0, first of the nodes {nodes}")


def _on_tpu_pod(environment: Mapping[str, str]) -> bool:
    """Whether this may be one of several TPU machines, which must then ask for its index."""
    names = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    if names is not None:  # set by Kubernetes; one name is one machine
        return "," in names or int(environment.get("MEGASCALE_NUM_SLICES", 1)) > 1
    if environment.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu":
        return False
    if "TPU_SKIP_MDS_QUERY" in environment or importlib.util.find_spec("libtpu") is None:
        return False
    return bool(glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"))
