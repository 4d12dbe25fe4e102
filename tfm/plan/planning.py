"""A plan: a config compiled for hardware or, where it does not fit, the cheapest that does."""

import dataclasses
import logging
from dataclasses import dataclass

from tfm import config, sharding, transformer
from tfm.plan import candidates
from tfm.plan.compiled import Compiled, TooLarge, compile_update, complete, model_flops
from tfm.plan.decoding import Decoding, compile_search
from tfm.plan.topology import Topology, find, larger

_log = logging.getLogger(__name__)

_LIKELY = 0.6
"""What fills no more of a chip's memory by ``candidates.least_bytes`` usually fits, as a whole."""


@dataclass(frozen=True)
class Plan:
    """What came out.

    Attributes:
      topology: the hardware asked for. asked: the configuration, complete.
      assumed: what was filled in.
      refused: why it does not fit; empty if it does.
      hardware: what ``found`` was compiled for: the topology or, where nothing fits, a larger one.
      found: the configuration, or the cheapest of the others that fits; None if none tried does.
      tried: the others that do not fit, as hardware and flags, with the compiler's words.
      obstacle: where nothing fits the topology, what stands most in the way.
      decoding: the search for translations; None if it was not asked for or does not fit, and
        ``decoding_refused`` says why.
    """

    topology: Topology
    asked: config.Config
    assumed: tuple[str, ...]
    refused: str
    hardware: Topology
    found: Compiled | None
    tried: tuple[tuple[str, str], ...] = ()
    obstacle: str = ""
    decoding: Decoding | None = None
    decoding_refused: str = ""


def plan(c: config.Config, hardware: str, *, tries: int = 16, decode_length: int = 64) -> Plan:
    """Compiles an experiment for hardware by name, as ``topology.find`` takes it.

    Args:
      tries: other settings to compile at most, where the given ones do not fit; 0 is none.
      decode_length: pieces of the sentences that are translated; 0 plans no translation.

    Raises:
      ValueError: no such hardware, or sizes that do not go together.
    """
    topology = find(hardware)
    asked, assumed = complete(c, topology)
    transformer.check(asked.model)
    _log.info(f"compiling the update for {hardware}; this takes seconds to minutes")
    found, tried, obstacle, fits = None, [], "", topology
    searched, refused = _resolved(asked, topology)
    if not refused:
        try:
            found = compile_update(asked, topology)
        except TooLarge as error:
            refused = str(error)
    if found is None:
        _log.info(f"does not fit: {refused}")
        flops = model_flops(asked)
        found = _cheapest(searched, topology, flops, tries, tried)
        if found is None:
            obstacle = _obstacle(searched, topology)
            found, fits = _elsewhere(searched, topology, flops, tries, tried)
    decoding, decoding_refused = None, ""
    if decode_length:
        _log.info(f"compiling the search for {hardware}")
        try:
            decoding = compile_search(asked, topology, decode_length)
        except TooLarge as error:
            decoding_refused = str(error)
    return Plan(
        topology, asked, tuple(assumed), refused, fits, found, tuple(tried), obstacle, decoding,
        decoding_refused,
    )  # fmt: skip


def _resolved(asked: config.Config, topology: Topology) -> tuple[config.Config, str]:
    """The config to start searching from, and why its own mesh has no place on the topology."""
    try:
        sharding.resolve(asked.mesh, len(topology.devices))
        return asked, ""
    except ValueError as error:
        return dataclasses.replace(asked, mesh=sharding.Mesh()), str(error)


def _cheapest(
    asked: config.Config,
    topology: Topology,
    flops: float,
    tries: int,
    tried: list[tuple[str, str]],
    share: float = 1.0,
) -> Compiled | None:
    """The first that fits of other settings, by their expected time; adds to what was tried.

    Args:
      flops: of the model. tries: to compile at most.
      share: of a chip's memory that the least a setting takes may fill.
    """
    failed, before = [], len(tried)
    for other in candidates.candidates(asked, topology, flops):
        if len(tried) - before == tries:
            break
        least = sum(candidates.least_bytes(other, len(topology.devices)))
        if least > share * topology.chip.memory or any(
            candidates.needs_more(other, one) for one in failed
        ):
            continue
        flags = f"{topology.name} {candidates.changes(asked, other)}"
        _log.info(f"trying {flags}")
        try:
            return compile_update(other, topology)
        except TooLarge as error:
            failed.append(other)
            tried.append((flags, str(error)))
        except ValueError:  # a size that this mesh does not divide, or no mesh of this topology
            _log.info(f"no such mesh: {flags}")
    return None


def _elsewhere(
    asked: config.Config,
    topology: Topology,
    flops: float,
    tries: int,
    tried: list[tuple[str, str]],
) -> tuple[Compiled | None, Topology]:
    """What fits the smallest of the larger slices where it is likely to, or the one after."""
    left = 2 if tries else 0
    for name in larger(topology):
        slice_ = find(name)
        if not left or sum(_least(asked, slice_)) > _LIKELY * slice_.chip.memory:
            continue
        left -= 1
        found = _cheapest(asked, slice_, flops, min(tries, 4), tried, _LIKELY)
        if found is not None:
            return found, slice_
    return None, topology


def _least(asked: config.Config, topology: Topology) -> tuple[float, float]:
    """The least that any of the settings takes of a chip, state and activations."""
    chips = len(topology.devices)
    others = candidates.candidates(asked, topology, 1.0)
    return min((candidates.least_bytes(other, chips) for other in (asked, *others)), key=sum)


def _obstacle(asked: config.Config, topology: Topology) -> str:
    state, activations = _least(asked, topology)
    what, size = (
        ("weights, their gradients and optimizer state", state)
        if state >= activations
        else ("activations of a micro-batch", activations)
    )
    return (
        f"{what} take at least {size / 2**30:.1f} of a chip's {topology.chip.memory / 2**30:.1f} "
        f"GiB, shared among all {len(topology.devices)} chips"
    )
