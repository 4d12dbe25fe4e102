"""The beam search that translates, compiled for one chip of a topology.

It runs as in ``Translator``: every chip has its own copy of the weights and its own sentences, and
the chips exchange nothing.
"""

import dataclasses
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.extend import core

from tfm import config, params, transformer, translator
from tfm.plan import compiled, flops, hlo, roofline, traffic
from tfm.plan.topology import Topology


@dataclass(frozen=True)
class Decoding:
    """What is known of a search without running it; amounts are per chip.

    Attributes:
      sentences: in one batch.
      length: pieces of each source sentence.
      max_tokens: limit of a translation.
      beam: hypotheses per sentence.
      total: bytes in use during the search.
      weights: those of them that are the model's weights.
      prefill: the work of encoding the sentences and filling the caches.
      step: the work of extending every hypothesis by one token.
      seconds: the time that compiling took.
    """

    sentences: int
    length: int
    max_tokens: int
    beam: int
    total: float
    weights: float
    prefill: roofline.Work
    step: roofline.Work
    seconds: float


def compile_search(experiment: config.Config, topology: Topology, length: int) -> Decoding:
    """Compiles the search of a complete config over ``decode.batch_size`` sentences of a length.

    Raises:
      TooLarge: it needs more memory than a chip has.
    """
    # Kernels are chosen for JAX's own devices, which are not the topology's.
    execution = dataclasses.replace(experiment.execution, implementation="xla")
    arch, decode = experiment.model, experiment.decode
    device = jax.sharding.SingleDeviceSharding(topology.devices[0])
    trained = params.abstract(transformer.declare(arch))
    weights = jax.eval_shape(
        lambda trained: transformer.inference_params(trained, arch, execution), trained
    )
    source = jax.ShapeDtypeStruct((decode.batch_size, length), jnp.int32)
    search = functools.partial(translator.search, arch=arch, decode=decode, execution=execution)
    traced = jax.jit(search, in_shardings=device, out_shardings=device).trace(weights, source)
    built = compiled.compile_traced(traced, topology)
    prefill, step = _split_work(built.program, traced.jaxpr.jaxpr)
    return Decoding(
        sentences=decode.batch_size,
        length=length,
        max_tokens=translator.most_tokens(decode, length),
        beam=decode.beam_size,
        total=built.total,
        weights=compiled.bytes_per_chip(weights),
        prefill=prefill,
        step=step,
        seconds=built.seconds,
    )


def _split_work(program: hlo.Program, jaxpr: core.Jaxpr) -> tuple[roofline.Work, roofline.Work]:
    """The work before the search's loop, and that of one iteration; it is the last loop."""
    (*_, traced_loop) = (e for e in jaxpr.eqns if e.primitive.name == "while")
    step_flops = flops.count(traced_loop.params["body_jaxpr"].jaxpr)
    entry = program.computations[program.entry].instructions.values()
    (*_, loop) = (instruction for instruction in entry if instruction.op == "while")
    body = hlo.Program(program.computations, loop.called)
    step = roofline.Work(step_flops, traffic.memory_bytes(body), traffic.cycles(body))
    # The sums over the program count the loop this often; how long sentences get is not known.
    times = program.trip_count(loop)
    prefill = roofline.Work(
        flops.count(jaxpr) - step_flops,
        traffic.memory_bytes(program) - times * step.memory_bytes,
        traffic.cycles(program) - times * step.cycles,
    )
    return prefill, step
