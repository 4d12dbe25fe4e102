"""A plan: a config compiled for hardware and, where it does not fit, the fastest one that does."""

import dataclasses
import logging
from dataclasses import dataclass, field

from tfm import config, sharding, transformer
from tfm.plan import candidates
from tfm.plan.compiled import Compiled, TooLarge, compile_update, complete, model_flops
from tfm.plan.decoding import Decoding, compile_search
from tfm.plan.topology import GIB, Topology, find, larger_slices

_log = logging.getLogger(__name__)

_LIKELY = 0.6
"""A config whose ``candidates.least_bytes`` fill no more of a chip than this usually fits it."""


@dataclass(frozen=True)
class Plan:
    """What ``plan`` found.

    Attributes:
      topology: the hardware asked for.
      asked: the experiment, complete.
      assumed: what was filled in to complete it.
      refused: why it does not fit; empty if it does.
      hardware: what ``found`` was compiled for: the topology or, where nothing fits, a larger one.
      found: the experiment, or the fastest other setting that fits; None if none tried does.
      tried: the other settings that do not fit, as hardware and flags, with the compiler's reason.
      obstacle: where nothing fits the topology, what takes most of the memory.
      decoding: the search for translations; None if it was not asked for, or if it does not fit and
        ``decoding_refused`` says why. Compiled for what ``found`` was compiled for.
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


def plan(
    experiment: config.Config, hardware: str, *, tries: int = 16, decode_length: int = 64
) -> Plan:
    """Compiles an experiment for hardware given by name, as ``topology.find`` takes it.

    Args:
      tries: how many other settings to compile at most if the given ones do not fit.
      decode_length: pieces of the sentences to translate; 0 plans no translation.

    Raises:
      ValueError: a field out of its range, no such hardware, or sizes that do not go together.
    """
    config.check(experiment)
    topology = find(hardware)
    asked, assumed = complete(experiment, topology)
    transformer.validate(asked.model, asked.execution)
    _log.info(f"compiling the update for {hardware}; this takes seconds to minutes")
    found, obstacle, fitting = None, "", topology
    start, refused = _with_possible_mesh(asked, topology)
    if not refused:
        try:
            found = compile_update(asked, topology)
        except TooLarge as error:
            refused = str(error)
    search = _Search(start)
    if found is None:
        _log.info(f"does not fit: {refused}")
        search.model_flops = model_flops(asked)
        found = search.fastest(topology, tries)
        if found is None:
            obstacle = _obstacle(start, topology)
            found, fitting = search.on_larger_slice(topology, tries)
    decoding, decoding_refused = None, ""
    if decode_length:
        _log.info(f"compiling the search for {hardware}")
        decoding, decoding_refused = _search_that_fits(
            asked if found is None else found.experiment, fitting, decode_length
        )
    return Plan(
        topology, asked, tuple(assumed), refused, fitting, found, tuple(search.tried), obstacle,
        decoding, decoding_refused,
    )  # fmt: skip


def _search_that_fits(
    experiment: config.Config, topology: Topology, length: int
) -> tuple[Decoding | None, str]:
    """The search with all weights on every chip or, where they do not fit, sharded; why neither."""
    try:
        return compile_search(experiment, topology, length), ""
    except TooLarge as error:
        refused = f"with all weights on every chip: {error}"
    try:
        _log.info("sharded as in training, since all weights do not fit one chip")
        return compile_search(experiment, topology, length, sharded=True), ""
    except (TooLarge, ValueError) as error:
        return None, f"{refused}; nor sharded as in training: {error}"


def _with_possible_mesh(asked: config.Config, topology: Topology) -> tuple[config.Config, str]:
    """The config, and why the topology cannot have its mesh; if so, with the default mesh."""
    try:
        sharding.resolve(asked.mesh, len(topology.devices))
        return asked, ""
    except ValueError as error:
        return dataclasses.replace(asked, mesh=sharding.Mesh()), str(error)


@dataclass
class _Search:
    """A search among other settings of an experiment for one that fits.

    Attributes:
      model_flops: of an update, on all chips together.
      tried: the settings that did not fit, as in ``Plan``.
    """

    experiment: config.Config
    model_flops: float = 0.0
    tried: list[tuple[str, str]] = field(default_factory=list)

    def fastest(self, topology: Topology, tries: int, share: float = 1.0) -> Compiled | None:
        """The first setting that fits, by expected time, of ``tries`` compiled at most.

        Args:
          share: of a chip's memory that ``candidates.least_bytes`` of a setting may fill.
        """
        too_large: list[config.Config] = []
        before = len(self.tried)
        for other in candidates.candidates(self.experiment, topology, self.model_flops):
            if len(self.tried) - before == tries:
                break
            least = sum(candidates.least_bytes(other, len(topology.devices)))
            if least > share * topology.chip.memory or any(
                candidates.needs_no_less(other, failed) for failed in too_large
            ):
                continue
            flags = f"{topology.name} {candidates.flags(self.experiment, other)}"
            _log.info(f"trying {flags}")
            try:
                return compile_update(other, topology)
            except TooLarge as error:
                too_large.append(other)
                self.tried.append((flags, str(error)))
            except ValueError:  # the mesh does not divide a size, or the topology cannot have it
                _log.info(f"no such mesh: {flags}")
        return None

    def on_larger_slice(self, topology: Topology, tries: int) -> tuple[Compiled | None, Topology]:
        """What fits the smallest larger slice where something is likely to, or the one after."""
        slices_left = 2 if tries else 0
        for name in larger_slices(topology):
            larger = find(name)
            if (
                not slices_left
                or sum(_least(self.experiment, larger)) > _LIKELY * larger.chip.memory
            ):
                continue
            slices_left -= 1
            found = self.fastest(larger, min(tries, 4), _LIKELY)
            if found is not None:
                return found, larger
        return None, topology


def _least(experiment: config.Config, topology: Topology) -> tuple[float, float]:
    """The least that any setting takes of a chip: (state and gradients, saved activations)."""
    others = candidates.candidates(experiment, topology, 1.0)
    chips = len(topology.devices)
    return min((candidates.least_bytes(c, chips) for c in (experiment, *others)), key=sum)


def _obstacle(experiment: config.Config, topology: Topology) -> str:
    """Which kind of memory is the largest even with the leanest settings, in words."""
    state, activations = _least(experiment, topology)
    what, size = (
        ("weights, their gradients and optimizer state", state)
        if state >= activations
        else ("activations of a micro-batch", activations)
    )
    return (
        f"{what} take at least {size / GIB:.1f} of a chip's {topology.chip.memory / GIB:.1f} "
        f"GiB, sharded over all {len(topology.devices)} chips"
    )
