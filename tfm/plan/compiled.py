"""One configuration's update, compiled for a topology, and what the compiler says of it."""

import dataclasses
import math
import re
import time
from dataclasses import dataclass
from typing import Any

import jax

from tfm import config, sharding, transformer
from tfm.plan import hlo, products, roofline, traffic
from tfm.plan.topology import Topology
from tfm.training import optimizer, step


class TooLarge(Exception):
    """A configuration does not fit a chip's memory; the message says what the compiler said."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one chip.

    Attributes:
      parameters, optimizer, average: the state of a run, at rest.
      temporary: what the compiler adds during a step: activations, gradients, weights made whole.
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
    """What is known of an update without running it; amounts are of one chip and one update.

    Attributes:
      c: the configuration, complete. mesh: how the chips are used.
      work: what the chip does.
      model_flops: of the products that the model's mathematics asks for: no recomputation.
      largest_parameter: bytes of the largest part of a parameter that a chip keeps.
      logits_gathered: exchanges in which scores of the vocabulary travel.
      seconds: that compiling took.
    """

    c: config.Config
    mesh: sharding.Mesh
    memory: Memory
    work: roofline.Work
    model_flops: float
    collectives: tuple[traffic.Collective, ...]
    largest_parameter: float
    logits_gathered: tuple[traffic.Collective, ...]
    seconds: float

    @property
    def chips(self) -> int:
        """How many the mesh uses."""
        return math.prod(dataclasses.astuple(self.mesh))


def complete(c: config.Config, topology: Topology) -> tuple[config.Config, list[str]]:
    """Fills in what a config leaves to its data and its device; says what was assumed."""
    said, model, data = [], c.model, c.data
    if model.dtype == "auto":
        model = dataclasses.replace(
            model, dtype="float32" if topology.platform == "cpu" else "bfloat16"
        )
    if 0 in (model.source_vocab, model.target_vocab):
        sizes = c.tokenizer.source_size, c.tokenizer.target_size
        sizes = (sizes[0], sizes[0]) if c.tokenizer.joint else sizes
        model = dataclasses.replace(model, source_vocab=sizes[0], target_vocab=sizes[1])
        said.append(f"vocabularies of {sizes[0]:,} and {sizes[1]:,} pieces (tokenizer)")
    for side, other in (("source_length", "target_length"), ("target_length", "source_length")):
        if not getattr(data, side):
            length = getattr(data, other) or 256
            data = dataclasses.replace(data, **{side: length})
            said.append(f"data.{side} {length}, which the data would set")
    return dataclasses.replace(c, model=model, data=data), said


def compile_update(c: config.Config, topology: Topology) -> Compiled:
    """Compiles the update of a complete config on its mesh.

    Raises:
      TooLarge: a chip's memory would overflow.
      ValueError: sizes that the mesh does not divide.
    """
    mesh = sharding.resolve(c.mesh, len(topology.devices))
    layout = sharding.Layout(sharding.make(c.mesh, topology.devices))
    chips = layout.mesh.size
    rule = optimizer.make(c.optimizer, transformer.declare(c.model))
    state = step.abstract_state(c, rule, layout)
    at_rest = [held(tree) for tree in (state.params, state.optimizer, state.average)]
    if topology.platform != "cpu" and sum(at_rest) > topology.chip.memory > 0:
        raise TooLarge(f"the state at rest alone takes {sum(at_rest) / 2**30:.1f} GiB of a chip")
    traced = trace(c, layout)
    began = time.monotonic()
    program = compile_traced(traced)
    seconds = time.monotonic() - began
    total = held_at_once(program, topology)
    read = hlo.parse(program.as_text())
    exchanged = tuple(traffic.collectives(read, chips))
    return Compiled(
        c=c,
        mesh=mesh,
        memory=Memory(*at_rest, program.memory_analysis().temp_size_in_bytes, total),
        work=roofline.Work(
            flops=products.flops(traced.jaxpr.jaxpr) / chips,
            moved=traffic.memory_bytes(read),
            cycles=traffic.cycles(read),
            sent=sum(e.sent for e in exchanged),
        ),
        model_flops=model_flops(c) / chips,
        collectives=exchanged,
        largest_parameter=max(_part(x) for x in jax.tree.leaves(state.params)),
        logits_gathered=tuple(e for e in exchanged if holds_logits(e, c, layout)),
        seconds=seconds,
    )


def trace(c: config.Config, layout: sharding.Layout = sharding.NO_MESH) -> jax.stages.Traced:
    """The update of a complete config, traced: to be compiled, and to count its products."""
    rule = optimizer.make(c.optimizer, transformer.declare(c.model))
    given = step.abstract_state(c, rule, layout), step.abstract_batch(c, layout)
    return step.jit_update(c, rule, layout).trace(*given)


def model_flops(c: config.Config) -> float:
    """FLOPs of an update's matrix products on one device that recomputes nothing."""
    model = dataclasses.replace(c.model, remat="none", implementation="xla")
    return products.flops(trace(dataclasses.replace(c, model=model)).jaxpr.jaxpr)


def compile_traced(traced: jax.stages.Traced) -> jax.stages.Compiled:
    """Compiles it; the TPU compiler itself says when a chip's memory would overflow.

    Raises:
      TooLarge: it would.
    """
    try:
        return traced.lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = re.sub(r"^RESOURCE_EXHAUSTED: *", "", str(error)).splitlines()[0]
        raise TooLarge(reason) from error


def held_at_once(program: jax.stages.Compiled, topology: Topology) -> float:
    """Bytes of a chip's memory that a program takes while it runs.

    Raises:
      TooLarge: more than there is. Compilers do not look at the whole, not even a TPU's: it lets
        temporaries through that with their gaps alone are more.
    """
    stats = program.memory_analysis()
    total = (
        stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes
    )  # fmt: skip
    there = topology.chip.memory
    if total > there > 0:
        raise TooLarge(f"{total / 2**30:.1f} GiB a device, there are {there / 2**30:.1f}")
    return total


def _part(x: jax.ShapeDtypeStruct) -> float:
    """Bytes of the part of an array that one chip keeps."""
    shape = x.shape if x.sharding is None else x.sharding.shard_shape(x.shape)
    return float(jax.ShapeDtypeStruct(shape, x.dtype).size * x.dtype.itemsize)


def held(tree: Any) -> float:
    """Bytes of the parts of a tree's arrays that one chip keeps."""
    return sum(_part(x) for x in jax.tree.leaves(tree))


def holds_logits(e: traffic.Collective, c: config.Config, layout: sharding.Layout) -> bool:
    """Whether an exchange carries an array of the vocabulary's size that is no table [V,D]."""
    vocab = {c.model.target_vocab, c.model.target_vocab // layout.axis_size("vocab")}
    width = {c.model.d_model, c.model.d_model // layout.axis_size("embed")}
    for part in e.parts:
        rest = [n for n in part.shape if n != 1 and n not in vocab]
        if len(rest) < len([n for n in part.shape if n != 1]) and rest and not set(rest) <= width:
            return True
    return False
