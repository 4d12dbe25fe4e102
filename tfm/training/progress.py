"""How far a run has come, and whether that is enough."""

from dataclasses import dataclass

from tfm import config


@dataclass
class Progress:
    """What a run must remember besides weights and data position; saved with each checkpoint.

    ``owed`` is a validation that was broken off: done at each start, until an update follows.
    """

    elapsed: float = 0.0
    pairs: int = 0
    best: float | None = None
    since_best: int = 0
    validated: int = -1
    owed: bool = False

    def share(self, c: config.Train, update: int, epochs: float, seconds: float) -> float:
        """How much of ``c.stop`` is done."""
        done = {"u": update, "e": epochs, "m": seconds / 60}
        return max(done[unit] / amount for unit, amount in config.parse_stop(c.stop).items())

    def reason_to_stop(self, c: config.Train, update: int, epochs: float, seconds: float) -> str:
        """Why there is nothing more to do; empty while there is."""
        if c.patience and self.since_best >= c.patience:
            return f"no better {c.metric} in {self.since_best} validations"
        return f"train.stop {c.stop} reached" if self.share(c, update, epochs, seconds) >= 1 else ""

    def is_better(self, c: config.Train, value: float) -> bool:
        """Whether a value of ``c.metric`` is the best so far."""
        sign = -1 if c.metric == "loss" else 1
        return self.best is None or sign * value > sign * self.best
