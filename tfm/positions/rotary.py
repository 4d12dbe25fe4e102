"""Rotary positions: queries and keys turned by their place, so that scores see the distance."""

import math

import jax
import jax.numpy as jnp


def rotate(
    x: jax.Array,
    places: jax.Array,
    *,
    interleaved: bool = False,
    base: float = 10_000.0,
    scaling: float = 1.0,
) -> jax.Array:
    """Turns each pair of channels by place · base^(-2i/H) (Su 2021, §3.2).

    The product of a turned query and a turned key depends on both and on their distance alone.

    Args:
      x: [..., H], H even.
      places: int, of the shape of ``x`` without H, or with ones that broadcast to it: [B,T,1] for
        [B,T,N,H], [B,1,T] for [B,N,T,H].
      interleaved: pairs are channels (2i, 2i+1) as in the paper and GPT-J; else (i, i + H/2) as in
        GPT-NeoX and Llama.
      base: the longest wavelength is about 2π · base.
      scaling: places are divided by it: 2 fits twice the length trained on into the same angles
        (Chen 2023, position interpolation).

    Returns:
      [..., H] in x's dtype; the angles are float32.

    Raises:
      ValueError: H is odd.
    """
    if x.shape[-1] % 2:
        raise ValueError(f"rotary positions need an even head width, got {x.shape[-1]}")
    half = x.shape[-1] // 2
    frequencies = jnp.exp(jnp.arange(half) * (-math.log(base) / half)) / scaling
    angles = jnp.multiply.outer(places.astype(jnp.float32), frequencies)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    x32 = x.astype(jnp.float32)
    if interleaved:
        pairs = x32.reshape(*x.shape[:-1], half, 2)
        a, b = pairs[..., 0], pairs[..., 1]
    else:
        a, b = x32[..., :half], x32[..., half:]
    turned = a * cos - b * sin, b * cos + a * sin
    if interleaved:
        return jnp.stack(turned, axis=-1).reshape(x.shape).astype(x.dtype)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
