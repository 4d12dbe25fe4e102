"""Absolute positions: vectors added to the input, one for each place in the sentence."""

import math

import jax
import jax.numpy as jnp
import numpy as np

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
    """Looks up: [...] int → [..., D].

    Raises:
      ValueError: a place that the table has no row for. Under ``jit``, where places are not known,
        one past the table gives NaN, not a guess.
    """
    _check_places(positions, table_TD.shape[0])
    return jnp.take(table_TD, positions, axis=0, mode="fill", fill_value=jnp.nan)


def _check_places(places: jax.Array, length: int) -> None:
    if isinstance(places, jax.core.Tracer) or not getattr(places, "is_fully_addressable", True):
        return
    # On the host: an operation of JAX on known places is not known itself while something compiles.
    known = np.asarray(places)
    for place in known[(known < 0) | (known >= length)].flat:
        raise ValueError(
            f"place {place}: the table of learned positions has {length} rows, 0 to {length - 1}; "
            "shorten the sentence, or declare a longer table (max_length)"
        )
