"""How far a run has come, and when it is done."""

import dataclasses
from typing import Any

from tfm import config


@dataclasses.dataclass
class Progress:
    """State of the loop besides weights and data position; saved with each checkpoint.

    Attributes:
      elapsed: seconds of training, over all resumes.
      pairs: sentence pairs trained on.
      best: best value of ``train.metric`` so far, or None.
      since_best: validations since then.
      validated: updates made before the newest finished validation; -1 if there was none.
      pending_validation: a validation was interrupted, and is due before the next update.
    """

    elapsed: float = 0.0
    pairs: int = 0
    best: float | None = None
    since_best: int = 0
    validated: int = -1
    pending_validation: bool = False

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Progress":
        """Reads what ``to_json`` gave; older checkpoints call the last field "owed"."""
        values = dict(values)
        if "owed" in values:
            values["pending_validation"] = values.pop("owed")
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """All fields, JSON-able."""
        return dataclasses.asdict(self)

    def fraction(self, train: config.Train, update: int, epochs: float, seconds: float) -> float:
        """The fraction of ``train.stop`` that is done; 1 or more means all."""
        done = {"u": update, "e": epochs, "m": seconds / 60}
        return max(done[unit] / limit for unit, limit in config.parse_stop(train.stop).items())

    def reason_to_stop(
        self, train: config.Train, update: int, epochs: float, seconds: float
    ) -> str:
        """Why training is done; empty while it is not."""
        if train.patience and self.since_best >= train.patience:
            return f"no better {train.metric} in {self.since_best} validations"
        done = self.fraction(train, update, epochs, seconds) >= 1
        return f"train.stop {train.stop} reached" if done else ""

    def is_better(self, train: config.Train, value: float) -> bool:
        """Whether a value of ``train.metric`` is the best so far."""
        sign = -1 if train.metric == "loss" else 1
        return self.best is None or sign * value > sign * self.best
