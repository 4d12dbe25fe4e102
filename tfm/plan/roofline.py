"""The roofline model: from amounts of work to time (Williams, Waterman & Patterson 2009).

The time of a program is that of its slowest resource: matrix units, memory or interconnect. This is
a lower bound: it assumes that all three overlap completely and each reaches its peak, and it counts
nothing but matrix products as computation.
"""

from dataclasses import dataclass

from tfm.plan.topology import Chip


@dataclass(frozen=True)
class Work:
    """What a program does on one chip.

    Attributes:
      flops: of matrix products, recomputed ones included.
      memory_bytes: read from and written to the chip's memory.
      cycles: the compiler's own estimate of clock cycles, where it gives one; it counts none for a
        Pallas kernel.
      sent_bytes: to other chips.
    """

    flops: float
    memory_bytes: float
    cycles: float
    sent_bytes: float = 0.0


@dataclass(frozen=True)
class Times:
    """Seconds that the work takes on each resource alone.

    Attributes:
      compute, memory, interconnect: at the peak rate of each.
      compiler: by the compiler's count of cycles; 0 if there is none.
    """

    compute: float
    memory: float
    interconnect: float
    compiler: float

    @property
    def bound(self) -> float:
        """The roofline's time: that of the slowest resource."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def bottleneck(self) -> str:
        """The name of the slowest resource."""
        resources = ("compute", "memory", "interconnect")
        return max(resources, key=lambda name: getattr(self, name))


def times(work: Work, chip: Chip) -> Times | None:
    """Seconds on each resource; None for a chip whose peak figures are not known."""
    if not (chip.peak_flops and chip.bandwidth):
        return None
    return Times(
        compute=work.flops / chip.peak_flops,
        memory=work.memory_bytes / chip.bandwidth,
        interconnect=work.sent_bytes / chip.ring_bandwidth if chip.ring_bandwidth else 0.0,
        compiler=work.cycles / chip.clock if chip.clock else 0.0,
    )


def utilization(model_flops: float, chip: Chip, seconds: float) -> float:
    """Model FLOPs utilization (MFU): the model's FLOPs over the chip's peak in that time."""
    return model_flops / (chip.peak_flops * seconds)
