"""A plan: a config compiled for hardware or, where it does not fit, the cheapest that does."""

import logging
from dataclasses import dataclass

from tfm import config, transformer
from tfm.plan import search
from tfm.plan.compiled import Compiled, TooLarge, compile_update, complete, model_flops
from tfm.plan.topology import Topology, find

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What came out.

    Attributes:
      asked: the configuration, complete; ``assumed``: what was filled in.
      refused: why it does not fit; empty if it does.
      found: it, or the cheapest of the others that fits; None if none of those tried does.
      tried: the others that do not fit, as flags, with the compiler's words.
    """

    topology: Topology
    asked: config.Config
    assumed: tuple[str, ...]
    refused: str
    found: Compiled | None
    tried: tuple[tuple[str, str], ...] = ()


def plan(c: config.Config, hardware: str, *, tries: int = 16) -> Plan:
    """Compiles an experiment for hardware by name, as ``topology.find`` takes it.

    Args:
      tries: other settings to compile at most, where the given ones do not fit; 0 is none.

    Raises:
      ValueError: no such hardware, or sizes that do not go together.
    """
    topology = find(hardware)
    asked, assumed = complete(c, topology)
    transformer.check(asked.model)
    _log.info(f"compiling the update for {hardware}; this takes seconds to minutes")
    try:
        found = compile_update(asked, topology)
        return Plan(topology, asked, tuple(assumed), "", found)
    except TooLarge as error:
        refused = str(error)
    _log.info(f"does not fit: {refused}")
    found, tried = _cheapest(asked, topology, tries)
    return Plan(topology, asked, tuple(assumed), refused, found, tuple(tried))


def _cheapest(
    asked: config.Config, topology: Topology, tries: int
) -> tuple[Compiled | None, list[tuple[str, str]]]:
    """The first that fits of other settings, by their expected time, and what was tried before."""
    failed, tried = [], []
    for other in search.candidates(asked, topology, model_flops(asked)):
        if len(tried) == tries:
            break
        if any(search.needs_more(other, one) for one in failed):
            continue
        flags = search.changes(asked, other)
        _log.info(f"trying {flags}")
        try:
            return compile_update(other, topology), tried
        except TooLarge as error:
            failed.append(other)
            tried.append((flags, str(error)))
        except ValueError as error:  # a size that this mesh does not divide
            tried.append((flags, str(error)))
    return None, tried
