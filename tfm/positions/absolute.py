"""Absolute positions: a vector for each position of the sentence, added to the input."""

import math
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp

from tfm.params import Param, Tree, normal
from tfm.positions.scheme import Scheme
from tfm.ranges import Range
from tfm.shapes import Check
from tfm.values import Values, known_values


def sinusoidal(
    positions: jax.Array,
    d_model: int,
    max_wavelength: float = 10_000.0,
    endpoint: bool = False,
    interleaved: bool = False,
) -> jax.Array:
    """Fourier features of the position (Vaswani 2017, §3.5).

    Channel pairs hold sin and cos of ``position / max_wavelength^(2i/D)``: the first half of the
    channels the sines, the second half the cosines (tensor2tensor's order, a permutation of the
    paper's). A shift of the position is a fixed rotation of every pair.

    Args:
      positions: [...] int.
      d_model: D, even; 4 or more with ``endpoint``.
      max_wavelength: the longest wavelength is 2π times this, or a little less.
      endpoint: whether the longest wavelength is reached, by ``max_wavelength^(i/(D/2-1))``, as in
        tensor2tensor, Marian and M2M100.
      interleaved: sines and cosines alternate, as in the paper.

    Returns:
      [..., D] float32, every vector of norm sqrt(D/2).
    """
    check = Check("sinusoidal")
    check.ints("...", positions=positions)
    check.counts(2, d_model=d_model)
    check.positive(max_wavelength=max_wavelength)
    if d_model % 2:
        raise check.error(f"needs an even d_model, got {d_model}")
    half = d_model // 2
    if endpoint and half < 2:
        raise check.error(f"needs a d_model of 4 or more with endpoint, got {d_model}")
    steps = half - 1 if endpoint else half
    frequencies = jnp.exp(jnp.arange(half) * (-math.log(max_wavelength) / steps))
    angles = jnp.multiply.outer(positions.astype(jnp.float32), frequencies)
    if interleaved:
        pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
        return pairs.reshape(*angles.shape[:-1], d_model)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def learned_params(max_length: int, d_model: int) -> Param:
    """One free vector a position (Gehring 2017, §3.1)."""
    Values("learned_params").counts(max_length=max_length, d_model=d_model)
    return Param((max_length, d_model), ("position", "embed"), normal(d_model**-0.5))


def learned(positions: jax.Array, table_TD: jax.Array) -> jax.Array:
    """Looks up the vector of each position: [...] int → [..., D].

    Raises:
      ValueError: a position that the table has no row for. Under ``jit``, where the values are not
        known, a position beyond the table gives NaN.
    """
    check = Check("learned")
    check.ints("...", positions=positions)
    check.floats("LD", table_TD=table_TD)
    _check_range(check, positions)
    return jnp.take(table_TD, positions, axis=0, mode="fill", fill_value=jnp.nan)


def _check_range(check: Check, positions: jax.Array) -> None:
    known, length = known_values(positions), check.size("L")
    if known is None:
        return
    for position in known[(known < 0) | (known >= length)].flat:
        raise check.error(
            f"positions hold position {position}: the table of learned positions has {length} "
            f"rows, 0 to {length - 1}; shorten the sentence, or declare a longer table (max_length)"
        )


@dataclass(frozen=True)
class Sinusoidal(Scheme):
    """Fixed Fourier features of the position (Vaswani 2017, §3.5).

    Attributes:
      max_wavelength: the longest wavelength is 2π times this.
      endpoint, interleaved: see ``sinusoidal``.
      offset: of the first token's position.
    """

    max_wavelength: Annotated[float, Range(above=1)] = 10_000.0
    endpoint: bool = False
    interleaved: bool = False
    offset: Annotated[int, Range(least=0, most=2**16)] = 0

    acts_on = "input"

    def problem(self, d_model: int, heads: int, head_dim: int) -> str | None:
        """See ``Scheme``."""
        if d_model % 2:
            return f"channels are used in pairs: d_model {d_model} must be even"
        if self.endpoint and d_model < 4:
            return f"endpoint needs two wavelengths or more: d_model {d_model} must be 4 or more"
        return None

    def input(self, params: Tree | None, positions_BT: jax.Array, d_model: int) -> jax.Array:
        """See ``Scheme``."""
        positions_BT = positions_BT + self.offset if self.offset else positions_BT
        return sinusoidal(
            positions_BT, d_model, self.max_wavelength, self.endpoint, self.interleaved
        )


@dataclass(frozen=True)
class Learned(Scheme):
    """A table with one free vector a position (Gehring 2017, §3.1).

    Attributes:
      max_length: the longest sentence.
      offset: of the first token's position; the table has so many more rows, which nothing reads.
      like_embeddings: whether vectors are multiplied by sqrt(D), as embeddings are.
    """

    max_length: Annotated[int, Range(least=1, most=2**16)] = 512
    offset: Annotated[int, Range(least=0, most=2**16)] = 0
    like_embeddings: bool = True

    acts_on = "input"

    @property
    def longest(self) -> int:
        """See ``Scheme``."""
        return self.max_length

    def side_params(self, d_model: int, heads: int) -> Tree:
        """See ``Scheme``."""
        return learned_params(self.max_length + self.offset, d_model)

    def input(self, params: Tree, positions_BT: jax.Array, d_model: int) -> jax.Array:
        """See ``Scheme``; drawn as embeddings are."""
        positions_BT = positions_BT + self.offset if self.offset else positions_BT
        vectors_BTD = learned(positions_BT, params)
        return vectors_BTD * d_model**0.5 if self.like_embeddings else vectors_BTD
