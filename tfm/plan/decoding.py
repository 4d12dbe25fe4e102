"""Beam search, compiled for a chip of a topology, and what one token further takes it.

As ``Translator`` runs it: every chip has a copy of the weights and its own sentences, and chips
exchange nothing.
"""

import dataclasses
import functools
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.extend import core

from tfm import config, params, transformer, translator
from tfm.plan import compiled, hlo, products, roofline, traffic
from tfm.plan.topology import Topology


@dataclass(frozen=True)
class Decoding:
    """What is known of a search without running it; amounts are of one chip.

    Attributes:
      sentences: searched together on a chip; ``length`` their pieces, ``steps`` the most tokens
        that are written of one, ``beam`` its hypotheses.
      total: bytes held at once. weights: those of them that were there before.
      start: what reading the sentences takes, and filling the caches.
      step: what one token further for every hypothesis takes.
      seconds: that compiling took.
    """

    sentences: int
    length: int
    steps: int
    beam: int
    total: float
    weights: float
    start: roofline.Work
    step: roofline.Work
    seconds: float


def compile_search(c: config.Config, topology: Topology, length: int) -> Decoding:
    """Compiles the search of a complete config, over ``decode.batch_size`` sentences of a length.

    Raises:
      TooLarge: a chip's memory would overflow.
    """
    # The kernels are asked for by JAX's own device, which is not the topology's.
    model = dataclasses.replace(c.model, implementation="xla")
    place = jax.sharding.SingleDeviceSharding(topology.devices[0])
    weights = params.abstract(transformer.declare(model))
    source = jax.ShapeDtypeStruct((c.decode.batch_size, length), jnp.int32)
    search = functools.partial(translator.search, c=model, settings=c.decode)
    traced = jax.jit(search, in_shardings=place, out_shardings=place).trace(weights, source)
    began = time.monotonic()
    program = compiled.compile_traced(traced)
    seconds = time.monotonic() - began
    total = compiled.held_at_once(program, topology)
    read = hlo.parse(program.as_text())
    step, start = _apart(read, traced.jaxpr.jaxpr)
    return Decoding(
        sentences=c.decode.batch_size,
        length=length,
        steps=translator.most_tokens(c.decode, length),
        beam=c.decode.beam_size,
        total=total,
        weights=compiled.held(weights),
        start=start,
        step=step,
        seconds=seconds,
    )


def _apart(program: hlo.Program, jaxpr: core.Jaxpr) -> tuple[roofline.Work, roofline.Work]:
    """(a round of the search's loop, all else): the search is the last loop there is."""
    (*_, loop) = (e for e in jaxpr.eqns if e.primitive.name == "while")
    flops = products.flops(loop.params["body_jaxpr"].jaxpr)
    entry = program.computations[program.entry].instructions.values()
    (*_, rounds) = (one for one in entry if one.op == "while")
    inside = hlo.Program(program.computations, rounds.called)
    step = roofline.Work(flops, traffic.memory_bytes(inside), traffic.cycles(inside))
    times = program.trips(rounds)  # taken for some number; nobody knows how long a sentence gets
    return step, roofline.Work(
        products.flops(jaxpr) - flops,
        traffic.memory_bytes(program) - times * step.moved,
        traffic.cycles(program) - times * step.cycles,
    )
