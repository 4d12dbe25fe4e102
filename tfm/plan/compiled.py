"""One experiment's update, compiled for a topology, and what the compiler reports of it."""

import dataclasses
import math
import re
import time
from dataclasses import dataclass
from typing import Any

import jax

from tfm import config, sharding, signals, transformer
from tfm.plan import flops, hlo, roofline, traffic
from tfm.plan.topology import GIB, Topology
from tfm.training import optimizer, step

_DEFAULT_LENGTH = 256  # tokens per row where neither the config nor the data says


class TooLarge(Exception):
    """A configuration does not fit a chip's memory; the message is the compiler's reason."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one chip.

    Attributes:
      parameters, optimizer, average: the training state between updates.
      temporary: what the compiler adds during an update: activations, gradients, gathered weights.
      total: what the chip has to set aside: the state, the batch, results that are not written in
        place of them, temporaries with the padding of tiles and the gaps between them, the program.
        The compiler's ``peak_memory_in_bytes`` is what of it is in use at the fullest moment, about
        a quarter less; a chip must have room for the whole.
    """

    parameters: float
    optimizer: float
    average: float
    temporary: float
    total: float


@dataclass(frozen=True)
class Compiled:
    """What is known of an update without running it; amounts are per chip and update.

    Attributes:
      experiment: the config, complete.
      mesh: its mesh, with every axis as a number.
      model_flops: of the matrix products that the model itself needs: without recomputation.
      largest_parameter: bytes of the largest shard of a parameter.
      logits_exchanged: collectives that carry logits.
      seconds: the time that compiling took.
    """

    experiment: config.Config
    mesh: sharding.Mesh
    memory: Memory
    work: roofline.Work
    model_flops: float
    collectives: tuple[traffic.Collective, ...]
    largest_parameter: float
    logits_exchanged: tuple[traffic.Collective, ...]
    seconds: float

    @property
    def chips(self) -> int:
        """How many chips the mesh uses."""
        return math.prod(dataclasses.astuple(self.mesh))


@dataclass(frozen=True)
class Executable:
    """A compiled function.

    Attributes:
      program: its instructions.
      temporary, total: bytes on one chip, as in ``Memory``.
      seconds: the time that compiling took.
    """

    program: hlo.Program
    temporary: float
    total: float
    seconds: float


def complete(experiment: config.Config, topology: Topology) -> tuple[config.Config, list[str]]:
    """Fills in what a config leaves to its data and its device; also says what was assumed."""
    assumed, arch, data = [], experiment.model, experiment.data
    execution = experiment.execution
    if execution.dtype == "auto":
        on_cpu = topology.platform == "cpu"
        execution = dataclasses.replace(execution, dtype="float32" if on_cpu else "bfloat16")
    if 0 in (arch.source_vocab, arch.target_vocab):
        tokenizer = experiment.tokenizer
        source = tokenizer.source_size
        target = source if tokenizer.joint else tokenizer.target_size
        arch = dataclasses.replace(arch, source_vocab=source, target_vocab=target)
        assumed.append(f"vocabularies of {source:,} and {target:,} pieces (tokenizer)")
    source = data.source_length or data.target_length or _DEFAULT_LENGTH
    target = data.target_length or source
    for side, length in (("source", source), ("target", target)):
        if not getattr(data, f"{side}_length"):
            assumed.append(f"data.{side}_length {length}, which the data would set")
    data = dataclasses.replace(data, source_length=source, target_length=target)
    resolved = dataclasses.replace(experiment, model=arch, execution=execution, data=data)
    return resolved, assumed


def compile_update(experiment: config.Config, topology: Topology) -> Compiled:
    """Compiles the update of a complete config on its mesh.

    Raises:
      TooLarge: it needs more memory than a chip has.
      ValueError: sizes that the mesh does not divide.
    """
    device_mesh = sharding.make(experiment.mesh, topology.devices)
    layout = sharding.Layout(device_mesh)
    rule = optimizer.make(experiment.optimizer, transformer.declare(experiment.model))
    state = step.abstract_state(experiment, rule, layout)
    parameters, moments, average = map(
        bytes_per_chip, (state.params, state.optimizer, state.average)
    )
    resting = parameters + moments + average
    if topology.platform != "cpu" and resting > topology.chip.memory > 0:
        raise TooLarge(f"the state between updates alone takes {resting / GIB:.1f} GiB of a chip")
    traced = trace(experiment, layout)
    built = compile_traced(traced, topology)
    collectives = tuple(traffic.collectives(built.program, device_mesh.size))
    return Compiled(
        experiment=experiment,
        mesh=sharding.resolve(experiment.mesh, len(topology.devices)),
        memory=Memory(parameters, moments, average, built.temporary, built.total),
        work=roofline.Work(
            flops=flops.count(traced.jaxpr.jaxpr) / device_mesh.size,
            memory_bytes=traffic.memory_bytes(built.program),
            cycles=traffic.cycles(built.program),
            sent_bytes=sum(collective.sent_bytes for collective in collectives),
        ),
        model_flops=model_flops(experiment) / device_mesh.size,
        collectives=collectives,
        largest_parameter=max(map(_shard_bytes, jax.tree.leaves(state.params))),
        logits_exchanged=tuple(
            collective
            for collective in collectives
            if carries_logits(collective, experiment, layout)
        ),
        seconds=built.seconds,
    )


def trace(
    experiment: config.Config, layout: sharding.Layout = sharding.NO_MESH
) -> jax.stages.Traced:
    """The traced update of a complete config, for compiling it and for counting its FLOPs."""
    rule = optimizer.make(experiment.optimizer, transformer.declare(experiment.model))
    state = step.abstract_state(experiment, rule, layout)
    batch = step.abstract_batch(experiment, layout)
    return step.jit_update(experiment, rule, layout).trace(state, batch)


def model_flops(experiment: config.Config) -> float:
    """FLOPs of an update's matrix products on one device, with nothing recomputed."""
    plain = dataclasses.replace(experiment.execution, remat="none", implementation="xla")
    return flops.count(trace(dataclasses.replace(experiment, execution=plain)).jaxpr.jaxpr)


def compile_traced(traced: jax.stages.Traced, topology: Topology) -> Executable:
    """Compiles a traced function and reads what the compiler made of it.

    Raises:
      TooLarge: it needs more memory than a chip has, by the TPU compiler's own check or by the sum
        of all that the program takes.
    """
    start = time.monotonic()
    try:
        compiled = signals.interruptible(traced.lower().compile)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = re.sub(r"^RESOURCE_EXHAUSTED: *", "", str(error)).splitlines()[0]
        raise TooLarge(reason) from error
    seconds = time.monotonic() - start
    stats: Any = compiled.memory_analysis()
    total = total_bytes(stats, topology)
    program = hlo.parse(compiled.as_text() or "")
    return Executable(program, stats.temp_size_in_bytes, total, seconds)


def total_bytes(stats: Any, topology: Topology) -> float:
    """Bytes of a chip's memory that a program takes while it runs.

    Args:
      stats: from ``compiled.memory_analysis()``.

    Raises:
      TooLarge: more than the chip has. No compiler checks this sum; the TPU's accepts programs
        whose temporaries exceed the memory by the gaps between them alone.
    """
    total = (
        stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes
    )  # fmt: skip
    available = topology.chip.memory
    if total > available > 0:
        raise TooLarge(
            f"needs {total / GIB:.1f} GiB of a chip, which has {available / GIB:.1f} GiB"
        )
    return total


def bytes_per_chip(tree: Any) -> float:
    """Bytes of the shards that one chip keeps of a tree of abstract arrays."""
    return sum(map(_shard_bytes, jax.tree.leaves(tree)))


def _shard_bytes(x: jax.ShapeDtypeStruct) -> float:
    shape = x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)
    return float(math.prod(shape) * x.dtype.itemsize)


def carries_logits(
    collective: traffic.Collective, experiment: config.Config, layout: sharding.Layout
) -> bool:
    """Whether a collective moves an array with a vocabulary dimension that is not a table [V,D]."""
    arch = experiment.model
    vocabulary = {arch.target_vocab, arch.target_vocab // layout.axis_size("vocab")}
    width = {arch.d_model, arch.d_model // layout.axis_size("embed")}
    for shard in collective.shards:
        sizes = [n for n in shard.shape if n != 1]
        others = [n for n in sizes if n not in vocabulary]
        if len(others) < len(sizes) and others and not set(others) <= width:
            return True
    return False
