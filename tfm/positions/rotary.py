"""Rotary positions: queries and keys rotated by their position, so that scores see the distance."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp

from tfm.positions.scheme import Rotation, Scheme
from tfm.ranges import Range
from tfm.shapes import Check
from tfm.values import Values

SCALING = Range(least=1e-3, note="positions are divided by it")


def frequencies(head_dim: int, base: float = 10_000.0, scaling: float = 1.0) -> jax.Array:
    """Radians a position for each channel pair, base^(-2i/H) / scaling: [H/2] (Su 2021, §3.2)."""
    check = Values("frequencies")
    check.counts(2, head_dim=head_dim)
    check.positive(base=base, scaling=scaling)
    half = head_dim // 2
    return jnp.exp(jnp.arange(half) * (-math.log(base) / half)) / scaling


def rotate(
    x: jax.Array,
    positions: jax.Array,
    *,
    interleaved: bool = False,
    base: float = 10_000.0,
    scaling: float = 1.0,
) -> jax.Array:
    """Rotates each pair of channels by position · base^(-2i/H) (Su 2021, §3.2).

    The product of a rotated query and a rotated key depends on the two vectors and on the distance
    of their positions alone.

    Args:
      x: [..., H], H even.
      positions: int, of the shape of ``x`` without H, or with ones that broadcast to it: [B,T,1]
        for [B,T,N,H], [B,1,T] for [B,N,T,H].
      interleaved: pairs are channels (2i, 2i+1) as in the paper and GPT-J; else (i, i + H/2) as in
        GPT-NeoX and Llama.
      base: the longest wavelength is about 2π · base.
      scaling: positions are divided by it: 2 fits twice the trained length into the same angles
        (Chen 2023, position interpolation).

    Returns:
      [..., H] in x's dtype; the angles are float32.

    Raises:
      ValueError: H is odd; positions that are not of the rank of ``x`` without H.
    """
    check = Check("rotate")
    check.floats("...H", x=x)
    check.ints("...", positions=positions)
    check.positive(base=base, scaling=scaling)
    if x.shape[-1] % 2:
        raise check.error(f"needs an even head width, got {x.shape[-1]} in x")
    _check_positions(check, x.shape[:-1], positions.shape)
    half = x.shape[-1] // 2
    radians = frequencies(x.shape[-1], base, scaling)
    angles = jnp.multiply.outer(positions.astype(jnp.float32), radians)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    x32 = x.astype(jnp.float32)
    if interleaved:
        pairs = x32.reshape(*x.shape[:-1], half, 2)
        a, b = pairs[..., 0], pairs[..., 1]
    else:
        a, b = x32[..., :half], x32[..., half:]
    rotated = a * cos - b * sin, b * cos + a * sin
    if interleaved:
        return jnp.stack(rotated, axis=-1).reshape(x.shape).astype(x.dtype)
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def _check_positions(check: Check, vectors: tuple[int, ...], positions: tuple[int, ...]) -> None:
    """Positions name every dimension: [B,T] for vectors [B,T,N] would be read as [T,N]."""
    fit = len(vectors) == len(positions) and all(
        size in (1, whole) for size, whole in zip(positions, vectors, strict=True)
    )
    if not fit:
        raise check.error(
            f"positions have shape {positions}, but x without its last dimension has {vectors}; "
            "give each dimension its size or 1: [B,T,1] for x [B,T,N,H], [B,1,T] for [B,N,T,H]"
        )


@dataclass(frozen=True)
class Rotary(Scheme):
    """Queries and keys rotated by their positions in every self-attention layer (Su 2021).

    Attributes:
      base, scaling, interleaved: see ``rotate``.
    """

    base: Annotated[float, Range(above=1)] = 10_000.0
    scaling: Annotated[float, SCALING] = 1.0
    interleaved: bool = False

    acts_on = "rotation"

    def problem(self, d_model: int, heads: int, head_dim: int) -> str | None:
        """See ``Scheme``."""
        if head_dim % 2:
            return f"channels are rotated in pairs: head width {head_dim} must be even"
        return None

    def scaled(self, factor: float) -> "Rotary":
        """See ``Scheme``."""
        if problem := SCALING.problem(factor):
            raise ValueError(f"rotary_scaling {factor}: {problem}")
        return dataclasses.replace(self, scaling=factor)

    def rotation(self, positions_BT: jax.Array) -> Rotation:
        """See ``Scheme``."""
        return lambda x_BNTH: rotate(
            x_BNTH,
            positions_BT[:, None],
            interleaved=self.interleaved,
            base=self.base,
            scaling=self.scaling,
        )

    def frequencies(self, head_dim: int) -> jax.Array:
        """See ``Scheme``."""
        return frequencies(head_dim, self.base, self.scaling)
