"""Minimum-Bayes-risk decoding: the hypothesis that is most like all that the model finds likely."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def expected_utilities(
    hypotheses: Sequence[T], weights: Sequence[float], utility: Callable[[T, T], float]
) -> np.ndarray:
    """The utility that each hypothesis may expect, if every hypothesis may be the right one.

    Of hypothesis h this is the sum over r of weight(r) utility(h, r), weights adding up to 1
    (Kumar 2004, eq. 2; over samples: Eikema 2022, eq. 3).

    Args:
      hypotheses: distinct ones, N of them.
      weights: how likely each is, in any unit: how often it was drawn, or its probability.
      utility: of a hypothesis, the first argument, where the second is the right one.

    Returns:
      [N] float64.
    """
    probabilities_N = np.asarray(weights, np.float64) / np.sum(weights)
    utilities_NN = np.array([[utility(h, r) for r in hypotheses] for h in hypotheses])
    return utilities_NN @ probabilities_N
