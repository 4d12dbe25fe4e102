"""From amounts to time: the slowest of computing, memory and the links between chips.

Williams, Waterman & Patterson 2009. A bound from below: it takes all three to overlap and each to
reach its peak; no more than products is counted as computing.
"""

from dataclasses import dataclass

from tfm.plan.topology import Chip


@dataclass(frozen=True)
class Work:
    """What a program has one chip do.

    Attributes:
      flops: of matrix products, recomputed ones included.
      moved: bytes between the chip and its memory.
      cycles: the compiler's own estimate, where it gives one; 0 for a kernel of Pallas.
      sent: bytes to other chips.
    """

    flops: float
    moved: float
    cycles: float
    sent: float = 0.0


@dataclass(frozen=True)
class Times:
    """Seconds that work would take by each limit; ``estimate`` by the compiler's cycles, or 0."""

    compute: float
    memory: float
    links: float
    estimate: float

    @property
    def step(self) -> float:
        """The roofline's time."""
        return max(self.compute, self.memory, self.links)

    @property
    def limit(self) -> str:
        """Which of them it is."""
        by = {"computing": self.compute, "memory": self.memory, "links": self.links}
        return max(by, key=by.get)


def times(work: Work, chip: Chip) -> Times | None:
    """Seconds by each limit; None for a chip whose figures are not known."""
    if not (chip.peak and chip.bandwidth):
        return None
    return Times(
        compute=work.flops / chip.peak,
        memory=work.moved / chip.bandwidth,
        links=work.sent / chip.ring if chip.ring else 0.0,
        estimate=work.cycles / chip.clock if chip.clock else 0.0,
    )


def share_of_peak(model_flops: float, chip: Chip, seconds: float) -> float:
    """The model's FLOPs against what the chip could have done in that time."""
    return model_flops / (chip.peak * seconds)
