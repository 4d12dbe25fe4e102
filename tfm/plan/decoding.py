"""The beam search that translates, compiled for one chip of a topology or for all together.

It runs as in ``Translator``: every chip has its own copy of the weights and its own sentences, and
the chips exchange nothing; or the weights are sharded over the chips as in training.
"""

import dataclasses
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.extend import core

from tfm import config, params, sharding, transformer, translator
from tfm.plan import compiled, flops, hlo, roofline, traffic
from tfm.plan.topology import Topology


@dataclass(frozen=True)
class Decoding:
    """What is known of a search without running it; amounts are per chip.

    Attributes:
      mesh: over which the weights are sharded; None where every chip has all of them.
      sentences: in one batch: of one chip, or of the whole mesh.
      length: pieces of each source sentence.
      max_tokens: limit of a translation.
      beam: hypotheses per sentence.
      total: bytes in use during the search.
      weights: those of them that are the model's weights.
      prefill: the work of encoding the sentences and filling the caches.
      step: the work of extending every hypothesis by one token.
      seconds: the time that compiling took.
    """

    mesh: sharding.Mesh | None
    sentences: int
    length: int
    max_tokens: int
    beam: int
    total: float
    weights: float
    prefill: roofline.Work
    step: roofline.Work
    seconds: float


def compile_search(
    experiment: config.Config, topology: Topology, length: int, sharded: bool = False
) -> Decoding:
    """Compiles the search of a complete config over ``decode.batch_size`` sentences of a length.

    Args:
      sharded: the weights are sharded over the experiment's mesh as in training; or else every chip
        has all of them.

    Raises:
      TooLarge: it needs more memory than a chip has.
      ValueError: sizes that the mesh does not divide.
    """
    # Kernels are chosen for JAX's own devices, which are not the topology's.
    execution = dataclasses.replace(experiment.execution, implementation="xla")
    arch, decode = experiment.model, experiment.decode
    trained = sharding.NO_MESH
    if sharded:
        trained = sharding.Layout(sharding.make(experiment.mesh, topology.devices))
    layout = transformer.inference_layout(trained)
    alone = jax.sharding.SingleDeviceSharding(topology.devices[0])
    weights = _weights(arch, execution, trained, alone)
    shards = layout.axis_size("batch")
    sentences = -(-decode.batch_size // shards) * shards
    source = jax.ShapeDtypeStruct(
        (sentences, length),
        jnp.int32,
        sharding=layout.sharding(("batch", None), (sentences, length)) or alone,
    )
    search = functools.partial(
        translator.search, arch=arch, decode=decode, execution=execution, layout=layout
    )
    traced = jax.jit(search, out_shardings=layout.sharding((), ()) or alone).trace(weights, source)
    built = compiled.compile_traced(traced, topology)
    chips = len(topology.devices) if sharded else 1
    prefill, step = _split_work(built.program, traced.jaxpr.jaxpr, chips)
    return Decoding(
        mesh=sharding.resolve(experiment.mesh, chips) if sharded else None,
        sentences=sentences,
        length=length,
        max_tokens=translator.most_tokens(decode, length),
        beam=decode.beam_size,
        total=built.total,
        weights=compiled.bytes_per_chip(weights),
        prefill=prefill,
        step=step,
        seconds=built.seconds,
    )


def _weights(
    arch: transformer.Architecture,
    execution: transformer.Execution,
    trained: sharding.Layout,
    alone: jax.sharding.Sharding,
) -> params.Tree:
    """The abstract weights as inference reads them, on the mesh of training or on one chip."""
    prepare = functools.partial(transformer.inference_params, arch=arch, execution=execution)
    declaration = transformer.declare(arch)
    weights = params.abstract(declaration)
    shapes = jax.eval_shape(prepare, weights)
    if trained.mesh is None:
        placed = jax.tree.map(lambda _: alone, shapes)
    else:
        weights = trained.abstract_like(weights, declaration)
        placed = jax.jit(prepare).lower(weights).compile().output_shardings
    return jax.tree.map(
        lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes, placed
    )


def _split_work(
    program: hlo.Program, jaxpr: core.Jaxpr, chips: int
) -> tuple[roofline.Work, roofline.Work]:
    """A chip's work before the search's loop, and in one iteration; it is the last loop."""
    (*_, traced_loop) = (e for e in jaxpr.eqns if e.primitive.name == "while")
    step_flops = flops.count(traced_loop.params["body_jaxpr"].jaxpr)
    entry = program.computations[program.entry].instructions.values()
    (*_, loop) = (instruction for instruction in entry if instruction.op == "while")
    body = hlo.Program(program.computations, loop.called)
    step = roofline.Work(
        step_flops / chips,
        traffic.memory_bytes(body),
        traffic.cycles(body),
        _sent_bytes(body, chips),
    )
    # The sums over the program count the loop this often; how long sentences get is not known.
    times = program.trip_count(loop)
    prefill = roofline.Work(
        (flops.count(jaxpr) - step_flops) / chips,
        traffic.memory_bytes(program) - times * step.memory_bytes,
        traffic.cycles(program) - times * step.cycles,
        _sent_bytes(program, chips) - times * step.sent_bytes,
    )
    return prefill, step


def _sent_bytes(program: hlo.Program, chips: int) -> float:
    """Bytes that a chip sends to others while a program runs."""
    return sum(collective.sent_bytes for collective in traffic.collectives(program, chips))
