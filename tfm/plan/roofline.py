"""From amounts to time: the slowest of computing, memory and the links between chips.

Williams, Waterman & Patterson 2009. A bound from below: it takes all three to overlap and each to
reach its peak; no more than products is counted as computing.
"""

from dataclasses import dataclass

from tfm.plan.compiled import Compiled
from tfm.plan.topology import Chip


@dataclass(frozen=True)
class Times:
    """Seconds an update would take by each limit; ``estimate`` by the compiler's cycles, or 0."""

    compute: float
    memory: float
    links: float
    estimate: float

    @property
    def step(self) -> float:
        """The roofline's step time."""
        return max(self.compute, self.memory, self.links)

    @property
    def limit(self) -> str:
        """Which of them it is."""
        by = {"computing": self.compute, "memory": self.memory, "links": self.links}
        return max(by, key=by.get)


def times(found: Compiled, chip: Chip) -> Times | None:
    """Seconds by each limit; None for a chip whose figures are not known."""
    if not (chip.peak and chip.bandwidth):
        return None
    sent = sum(c.sent for c in found.collectives)
    return Times(
        compute=found.flops / chip.peak,
        memory=found.moved / chip.bandwidth,
        links=sent / chip.ring if chip.ring else 0.0,
        estimate=found.cycles / chip.clock if chip.clock else 0.0,
    )


def share_of_peak(found: Compiled, chip: Chip, seconds: float) -> float:
    """The model's FLOPs against what the chip could have done in that time."""
    return found.model_flops / (chip.peak * seconds)
