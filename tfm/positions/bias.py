"""Relative positions as a bias on the scores: T5's learned buckets and ALiBi's slopes."""

import math
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from tfm.params import Param, Tree, normal
from tfm.positions.distances import Distances
from tfm.positions.scheme import Scheme
from tfm.ranges import Range
from tfm.shapes import Check
from tfm.values import Values, is_integer, shown


def t5_bucket(
    distances: jax.Array, *, buckets: int = 32, max_distance: int = 128, bidirectional: bool = True
) -> jax.Array:
    """The bucket of each distance (Raffel 2020, §2.1): exact when near, logarithmic when far.

    Args:
      distances: [...] int, the key's position less the query's.
      buckets: number of buckets. If bidirectional, the first half is for distances ≤ 0, the second
        for later keys; else all are for distances ≤ 0, and later keys share bucket 0.
      max_distance: distances from this one on share the last bucket.

    Returns:
      [...] int32 in 0..buckets-1.

    Raises:
      ValueError: fewer than 4 buckets (2 if not bidirectional), an odd number of them, or a
        ``max_distance`` that the exact buckets cover already.
    """
    check = Check("t5_bucket")
    check.ints("...", distances=distances)
    if problem := t5_problem(buckets, max_distance, bidirectional):
        raise check.error(problem)
    half, exact = _halves(buckets, bidirectional)
    # The first distance of every bucket but the first, computed on the host: devices' logarithms
    # differ in the last bit, which would put a distance on either side of a border.
    ratio = max_distance / exact
    far = [math.ceil(exact * ratio ** (i / (half - exact)) - 1e-6) for i in range(half - exact)]
    borders = jnp.asarray([*range(1, exact), *far], jnp.int32)
    away = jnp.abs(distances) if bidirectional else jnp.maximum(-distances, 0)
    bucket = jnp.searchsorted(borders, away.astype(jnp.int32), side="right").astype(jnp.int32)
    return bucket + jnp.where(distances > 0, half, 0) if bidirectional else bucket


def t5_problem(buckets: int, max_distance: int, bidirectional: bool) -> str | None:
    """Why ``t5_bucket`` cannot take these numbers; ``None`` if it can."""
    for name, x in (("buckets", buckets), ("max_distance", max_distance)):
        if not is_integer(x):
            return f"t5 positions: {name} {shown(x)} must be an integer"
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
    """One number for each bucket and head; all layers of a side share the table."""
    Values("t5_params").counts(buckets=buckets, d_model=d_model, heads=heads)
    return Param((buckets, heads), ("position", "heads"), normal(d_model**-0.5))


def t5_bias(
    table_LN: jax.Array,
    distances: Distances,
    *,
    max_distance: int = 128,
    bidirectional: bool = True,
) -> jax.Array:
    """The learned bias of each distance's bucket (Raffel 2020, §2.1): [1,N,T,S].

    T5 adds it to unscaled scores; ``attention.attend`` scales, then adds.

    Args:
      table_LN: a row for each of L buckets.
      bidirectional: False in a decoder, where no query sees a later key.
    """
    check = Check("t5_bias")
    check.floats(table_LN=table_LN)
    check.instance(Distances, distances=distances)
    if problem := t5_problem(table_LN.shape[0], max_distance, bidirectional):
        raise check.error(f"table_LN has {table_LN.shape[0]} rows: {problem}")
    bucket_M = t5_bucket(
        jnp.asarray(distances.values_M),
        buckets=table_LN.shape[0],
        max_distance=max_distance,
        bidirectional=bidirectional,
    )
    return distances.pick(table_LN[bucket_M].T[None, :, None, :])


def alibi_slopes(heads: int) -> np.ndarray:
    """Each head's slope [N] (Press 2022, §3): 2^(-8/N), 2^(-16/N), ...

    If N is not a power of 2: the slopes of the next lower power, then every other slope of the next
    higher one, as in the authors' code.
    """
    Values("alibi_slopes").counts(heads=heads)
    below = 2 ** int(math.log2(heads))
    slopes = 2.0 ** (-8.0 / below * np.arange(1, below + 1))
    between = 2.0 ** (-4.0 / below * np.arange(1, 2 * below, 2))
    return np.concatenate([slopes, between])[:heads].astype(np.float32)


def alibi_bias(distances: Distances, heads: int) -> jax.Array:
    """-slope · |distance| (Press 2022): [1,N,T,S].

    Under a causal mask this is the paper's bias; without one, its symmetric form for encoders.
    """
    check = Values("alibi_bias")
    check.instance(Distances, distances=distances)
    check.counts(heads=heads)
    away_M = jnp.abs(jnp.asarray(distances.values_M, jnp.float32))
    bias_NM = -jnp.multiply.outer(jnp.asarray(alibi_slopes(heads)), away_M)
    return distances.pick(bias_NM[None, :, None, :])


@dataclass(frozen=True)
class T5(Scheme):
    """A learned bias for each bucket of distances and head, shared by all layers (Raffel 2020).

    Attributes:
      buckets: of distances; see ``t5_bucket``.
      max_distance: distances from this one on share the last bucket.
    """

    buckets: Annotated[int, Range(least=4, most=2**16)] = 32
    max_distance: Annotated[int, Range(least=2)] = 128

    acts_on = "bias"

    def problem(self, d_model: int, heads: int, head_dim: int) -> str | None:
        """See ``Scheme``; the encoder is bidirectional, the decoder is not."""
        problems = (t5_problem(self.buckets, self.max_distance, both) for both in (True, False))
        return next(filter(None, problems), None)

    def side_params(self, d_model: int, heads: int) -> Tree:
        """See ``Scheme``."""
        return t5_params(self.buckets, d_model, heads)

    def bias(
        self,
        params: Tree,
        distances: Distances,
        positions_BT: jax.Array,
        *,
        heads: int,
        bidirectional: bool,
    ) -> jax.Array:
        """See ``Scheme``."""
        return t5_bias(
            params.astype(jnp.float32),
            distances,
            max_distance=self.max_distance,
            bidirectional=bidirectional,
        )


@dataclass(frozen=True)
class ALiBi(Scheme):
    """A fixed bias that falls with the distance, with another slope for each head (Press 2022)."""

    acts_on = "bias"

    def bias(
        self,
        params: Tree | None,
        distances: Distances,
        positions_BT: jax.Array,
        *,
        heads: int,
        bidirectional: bool,
    ) -> jax.Array:
        """See ``Scheme``."""
        return alibi_bias(distances, heads)
