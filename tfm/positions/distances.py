"""How far each key stands from each query: T + S numbers that describe a T×S table."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Distances:
    """The distances that occur between queries and keys, and where in [T,S] each one stands.

    A distance is the key's place less the query's: negative in the past, 0 at the query itself.
    Places are contiguous and a packed row keeps that within each of its sentences, so the distance
    of two tokens of a sentence is that of their indices in the row. A relative position scheme
    therefore computes over M distances, shared by the batch, never over [B,T,S] pairs.

    Attributes:
      values_M: the distances.
      queries: T, if the queries stand side by side and key s is at distance
        ``values_M[s - t + T - 1]`` of query t; 0 if all queries stand at one place, and M = S.
    """

    values_M: np.ndarray | jax.Array
    queries: int

    def pick(self, x: jax.Array) -> jax.Array:
        """By distance → by key: [..., T or 1, M] → [..., T, S].

        A row of the result is a window of a row of ``x``, one place further left each row: a slice
        and a reshape, no gather. The 1 is kept if all queries stand at one place.
        """
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
        if not self.queries:
            return x
        *lead, T, S = x.shape
        beside = [(0, 0)] * len(lead)
        rows = jnp.pad(x, [*beside, (0, 0), (0, T - 1)]).reshape(*lead, T * (T + S - 1))
        return jnp.pad(rows, [*beside, (T - 1, 1)]).reshape(*lead, T, T + S)


def side_by_side(queries: int, keys: int, offset: int = 0) -> Distances:
    """T queries in a row before S keys in a row, query t beside key t + offset.

    M = T + S: the last distance occurs nowhere, and makes ``pick`` one reshape.
    """
    return Distances(np.arange(queries + keys) - (queries - 1) - offset, queries)


def from_one_place(key_places_S: jax.Array, place: jax.Array) -> Distances:
    """All queries at one place, as the hypotheses of a decoding step are; keys anywhere."""
    return Distances(key_places_S - place, 0)
