"""Absolute positions: vectors added to the input, one for each place in the sentence."""

import math

import jax
import jax.numpy as jnp

from tfm.params import Param, normal


def sinusoidal(positions: jax.Array, d_model: int, max_wavelength: float = 10_000.0) -> jax.Array:
    """Fourier features of the position (Vaswani 2017, §3.5).

    Channel pairs hold sin and cos of ``position / max_wavelength^(2i/D)``: the first half of the
    channels the sines, the second half the cosines (tensor2tensor's order, a permutation of the
    paper's). A shift of the position is a fixed rotation of every pair.

    Args:
      positions: [...] int.
      d_model: D, even.

    Returns:
      [..., D] float32, every vector of norm sqrt(D/2).
    """
    if d_model % 2:
        raise ValueError(f"sinusoidal positions need an even d_model, got {d_model}")
    half = d_model // 2
    frequencies = jnp.exp(jnp.arange(half) * (-math.log(max_wavelength) / half))
    angles = jnp.multiply.outer(positions.astype(jnp.float32), frequencies)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def learned_params(max_length: int, d_model: int) -> Param:
    """One free vector a position (Gehring 2017, §3.1)."""
    return Param((max_length, d_model), ("position", "embed"), normal(d_model**-0.5))


def learned(positions: jax.Array, table_TD: jax.Array) -> jax.Array:
    """Looks up: [...] int → [..., D]. A position past the table gives NaN, not a guess."""
    return jnp.take(table_TD, positions, axis=0, mode="fill", fill_value=jnp.nan)
