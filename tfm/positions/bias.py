"""Relative positions as a number added to the score: T5's buckets and ALiBi's straight lines."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from tfm.params import Param, normal
from tfm.positions.distances import Distances


def t5_bucket(
    distances: jax.Array, *, buckets: int = 32, max_distance: int = 128, bidirectional: bool = True
) -> jax.Array:
    """The bucket of each distance (Raffel 2020, §2.1): exact when near, logarithmic when far.

    Args:
      distances: [...] int, the key's place less the query's.
      buckets: how many there are. Bidirectional: the first half for the past and the query's own
        place, the second for the future. Else all are for the past, and the future shares bucket 0.
      max_distance: from here on all share the last bucket.

    Returns:
      [...] int32 in 0..buckets-1.

    Raises:
      ValueError: fewer than 4 buckets (2 if not bidirectional), an odd number of them, or a
        ``max_distance`` that the exact buckets cover already.
    """
    if problem := t5_problem(buckets, max_distance, bidirectional):
        raise ValueError(problem)
    half, exact = _halves(buckets, bidirectional)
    # The first distance of every bucket but the first; from the host, so that no device's
    # logarithm decides which side of a border a distance falls on.
    ratio = max_distance / exact
    far = [math.ceil(exact * ratio ** (i / (half - exact)) - 1e-6) for i in range(half - exact)]
    borders = jnp.asarray([*range(1, exact), *far], jnp.int32)
    away = jnp.abs(distances) if bidirectional else jnp.maximum(-distances, 0)
    bucket = jnp.searchsorted(borders, away.astype(jnp.int32), side="right").astype(jnp.int32)
    return bucket + jnp.where(distances > 0, half, 0) if bidirectional else bucket


def t5_problem(buckets: int, max_distance: int, bidirectional: bool) -> str | None:
    """Why ``t5_bucket`` cannot take these numbers; ``None`` if it can."""
    exact = _halves(buckets, bidirectional)[1]
    if buckets % 2 or exact < 1:
        least = 4 if bidirectional else 2
        return f"t5 positions need an even number of buckets, {least} or more, got {buckets}"
    if max_distance <= exact:
        return (
            f"t5 positions: max_distance {max_distance} must be more than the {exact} exact buckets"
        )
    return None


def _halves(buckets: int, bidirectional: bool) -> tuple[int, int]:
    """How many buckets one direction has, and how many of them hold a single distance."""
    half = buckets // 2 if bidirectional else buckets
    return half, half // 2


def t5_params(buckets: int, d_model: int, heads: int) -> Param:
    """One number a bucket and head; one table serves all layers of a side."""
    return Param((buckets, heads), ("position", "heads"), normal(d_model**-0.5))


def t5_bias(
    table_LN: jax.Array,
    distances: Distances,
    *,
    max_distance: int = 128,
    bidirectional: bool = True,
) -> jax.Array:
    """The learned number of each distance's bucket (Raffel 2020, §2.1): [1,N,T,S].

    T5 adds it to unscaled scores; ``attend`` scales, then adds.

    Args:
      table_LN: L buckets.
      bidirectional: False for a decoder, which sees no future.
    """
    bucket_M = t5_bucket(
        jnp.asarray(distances.values_M),
        buckets=table_LN.shape[0],
        max_distance=max_distance,
        bidirectional=bidirectional,
    )
    return distances.pick(table_LN[bucket_M].T[None, :, None, :])


def alibi_slopes(heads: int) -> np.ndarray:
    """Each head's slope [N] (Press 2022, §3): 2^(-8/N), 2^(-16/N), ...

    If N is no power of 2: those of the power below, then every other one of the power above, as
    the authors' code does.
    """
    below = 2 ** int(math.log2(heads))
    slopes = 2.0 ** (-8.0 / below * np.arange(1, below + 1))
    between = 2.0 ** (-4.0 / below * np.arange(1, 2 * below, 2))
    return np.concatenate([slopes, between])[:heads].astype(np.float32)


def alibi_bias(distances: Distances, heads: int) -> jax.Array:
    """-slope · |distance| (Press 2022): [1,N,T,S].

    Under a causal mask this is the paper's; without one it is the symmetric form for encoders.
    """
    away_M = jnp.abs(jnp.asarray(distances.values_M, jnp.float32))
    bias_NM = -jnp.multiply.outer(jnp.asarray(alibi_slopes(heads)), away_M)
    return distances.pick(bias_NM[None, :, None, :])
