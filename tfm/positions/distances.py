"""The distance from each query to each key: T + S numbers that describe a T×S table."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from tfm.shapes import Check
from tfm.values import Values


@dataclass(frozen=True)
class Distances:
    """The distances that occur between queries and keys, and where in [T,S] each one occurs.

    A distance is the key's position less the query's: negative in the past, 0 at the query itself.
    Positions are contiguous, within each sentence of a packed row too, so the distance of two
    tokens of a sentence is that of their indices in the row. A relative position scheme therefore
    computes over M distances, shared by the batch, instead of over [B,T,S] pairs.

    Attributes:
      values_M: the distances.
      queries: T, if the queries have consecutive positions and key s is at distance
        ``values_M[s - t + T - 1]`` of query t; 0 if all queries have one position, and M = S.
    """

    values_M: np.ndarray | jax.Array
    queries: int

    def __post_init__(self) -> None:
        check = Check("Distances")
        check.ints(values_M=self.values_M)
        check.counts(0, queries=self.queries)
        if self.queries >= check.size("M"):
            raise check.error(
                f"values_M has {check.size('M')} distances; for {self.queries} queries T it must "
                "have T + S"
            )

    def pick(self, x: jax.Array) -> jax.Array:
        """By distance → by key: [..., T or 1, M] → [..., T, S].

        A row of the result is a window of a row of ``x`` that moves one entry to the left with each
        row: a slice and a reshape, no gather. The 1 is kept if all queries have one position.
        """
        check = Check("pick", **self.sizes())
        check.arrays(("float", "int"), "...M", x=x)
        if x.ndim < 2 or (self.queries and x.shape[-2] not in (1, self.queries)):
            want = f"T = {self.queries}" if self.queries else "any T"
            raise check.error(
                f"x has shape {x.shape}; it must be [...,T,M] with {want}, or [...,1,M]"
            )
        if not self.queries:
            return x
        T, (*lead, _, M) = self.queries, x.shape
        flat = jnp.broadcast_to(x, (*lead, T, M)).reshape(*lead, T * M)
        rows = flat[..., T - 1 : T - 1 + T * (M - 1)].reshape(*lead, T, M - 1)
        return rows[..., : M - T]

    def spread(self, x: jax.Array) -> jax.Array:
        """By key → by distance, the transpose of ``pick``: [..., T, S] → [..., T, M].

        A distance that has no key in a row is 0 there.
        """
        Check("spread", **self.sizes()).arrays(("float", "int"), "...TS", x=x)
        if not self.queries:
            return x
        *lead, T, S = x.shape
        beside = [(0, 0)] * len(lead)
        rows = jnp.pad(x, [*beside, (0, 0), (0, T - 1)]).reshape(*lead, T * (T + S - 1))
        return jnp.pad(rows, [*beside, (T - 1, 1)]).reshape(*lead, T, T + S)

    def sizes(self) -> dict[str, tuple[int, str]]:
        """The sizes M, S and, unless all queries have one position, T, for a ``Check``."""
        M, T = self.values_M.shape[0], self.queries
        sizes = {"M": M, "S": M - T} | ({"T": T} if T else {})
        return {letter: (size, "the distances") for letter, size in sizes.items()}


def consecutive(queries: int, keys: int, offset: int = 0) -> Distances:
    """T consecutive queries and S consecutive keys; query t has the position of key t + offset.

    M = T + S: the last distance does not occur, but makes ``pick`` a single reshape.
    """
    check = Values("consecutive")
    check.counts(queries=queries, keys=keys)
    check.integers(offset=offset)
    return Distances(np.arange(queries + keys) - (queries - 1) - offset, queries)


def from_one_position(key_positions_S: jax.Array, position: jax.Array) -> Distances:
    """All queries at one position, as the hypotheses of a decoding step are; keys at any."""
    check = Check("from_one_position")
    check.ints(key_positions_S=key_positions_S)
    check.ints("", position=position)
    return Distances(key_positions_S - position, 0)
