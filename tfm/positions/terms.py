"""Relative terms: what a scheme adds inside attention besides a bias."""

from collections.abc import Callable
from typing import NamedTuple

import jax


class Relative(NamedTuple):
    """What a scheme adds to softmax((q kᵀ + scores) · scale) v + values.

    Attributes:
      scores: (q [B,N,T,H], k [B,K,S,H]) → [B,N,T,S].
      values: weights [B,N,T,S] → [B,N,T,H]; ``None`` adds nothing.
    """

    scores: Callable[[jax.Array, jax.Array], jax.Array]
    values: Callable[[jax.Array], jax.Array] | None = None
