"""Transforms of logits: pure functions of logits [...,V], and those that a ``Decode`` names."""

import math

import jax
import jax.numpy as jnp

from tfm.decoding.config import Decode
from tfm.decoding.types import Transform


def temperature(logits: jax.Array, value: float) -> jax.Array:
    """Logits divided by the temperature."""
    return logits / value


def top_k(logits: jax.Array, k: int) -> jax.Array:
    """Excludes all but the k largest logits and their equals (Fan 2018); none if k is above V."""
    kth = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][..., -1:]
    return jnp.where(logits >= kth, logits, -jnp.inf)


def min_p(logits: jax.Array, share: float) -> jax.Array:
    """Excludes tokens less than ``share`` times as probable as the likeliest (Nguyen 2024, §3)."""
    least = logits.max(axis=-1, keepdims=True) + math.log(share)
    return jnp.where(logits >= least, logits, -jnp.inf)


def sampling(decode: Decode) -> tuple[Transform, ...]:
    """What is done to the logits before a token is drawn from their softmax."""
    transforms: list[Transform] = []
    if decode.top_k:
        transforms.append(lambda logits, tokens, step: top_k(logits, decode.top_k))
    if decode.min_p:
        transforms.append(lambda logits, tokens, step: min_p(logits, decode.min_p))
    if decode.temperature != 1.0:
        transforms.append(lambda logits, tokens, step: temperature(logits, decode.temperature))
    return tuple(transforms)
