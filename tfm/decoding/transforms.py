"""Transforms of logits: pure functions of logits [...,V], and those that a ``Decode`` names."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from tfm.decoding.config import Decode
from tfm.decoding.types import Transform, recent


def temperature(logits: jax.Array, value: float) -> jax.Array:
    """Logits divided by the temperature."""
    return logits / value


def top_k(logits: jax.Array, k: int) -> jax.Array:
    """Excludes all but the k largest logits and their equals (Fan 2018); none if k is above V."""
    kth = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][..., -1:]
    return jnp.where(logits >= kth, logits, -jnp.inf)


def top_p(logits: jax.Array, share: float) -> jax.Array:
    """Excludes all but the fewest likeliest tokens, and the equals of the last of them, whose
    probabilities add up to ``share`` or more (nucleus, Holtzman 2020, section 3.1).
    """
    ordered = -jnp.sort(-logits, axis=-1)
    probabilities = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    least = jnp.where(before < share, ordered, jnp.inf).min(axis=-1, keepdims=True)
    return jnp.where(logits >= least, logits, -jnp.inf)


def epsilon(logits: jax.Array, least: float) -> jax.Array:
    """Excludes tokens of probability below ``least``, never the likeliest (Hewitt 2022, §4)."""
    likely = jax.nn.softmax(logits, axis=-1) >= least
    likeliest = logits >= logits.max(axis=-1, keepdims=True)
    return jnp.where(likely | likeliest, logits, -jnp.inf)


def min_p(logits: jax.Array, share: float) -> jax.Array:
    """Excludes tokens less than ``share`` times as probable as the likeliest (Nguyen 2024, §3)."""
    least = logits.max(axis=-1, keepdims=True) + math.log(share)
    return jnp.where(logits >= least, logits, -jnp.inf)


def suppress(logits: jax.Array, ids: Sequence[int]) -> jax.Array:
    """Excludes tokens by their ids."""
    return logits.at[..., jnp.asarray(ids)].set(-jnp.inf, mode="drop")


def repetition_penalty(
    logits_BRV: jax.Array,
    log_z_BR: jax.Array,
    tokens_BRT: jax.Array,
    step_B: jax.Array,
    penalty: float,
) -> jax.Array:
    """Multiplies the log-probability of every token that was written before by ``penalty``.

    Keskar 2019 (section 4.1) divides logits, which makes a token likelier where its logit is
    negative and changes with a constant added to all logits; log-probabilities have neither fault.
    """
    written_BRV = _mark(jnp.zeros(logits_BRV.shape, bool), tokens_BRT, _written(tokens_BRT, step_B))
    loss_BRV = (penalty - 1) * (logits_BRV - log_z_BR[:, :, None])
    return jnp.where(written_BRV, logits_BRV + loss_BRV, logits_BRV)


def no_repeat_ngram(
    logits_BRV: jax.Array, tokens_BRT: jax.Array, step_B: jax.Array, n: int
) -> jax.Array:
    """Excludes tokens that would complete a sequence of n tokens that was written before."""
    T = tokens_BRT.shape[2]
    last_BRn = recent(tokens_BRT, step_B, n - 1)
    again_BRT = jnp.ones(tokens_BRT.shape, bool)
    for i in range(n - 1):  # does the sequence that ends before t equal the newest one?
        shifted_BRT = jnp.pad(tokens_BRT, ((0, 0), (0, 0), (n - 1 - i, 0)))[:, :, :T]
        again_BRT &= shifted_BRT == last_BRn[:, :, i, None]
    again_BRT &= _written(tokens_BRT, step_B) & (jnp.arange(T) >= n - 1)[None, None]
    return jnp.where(
        _mark(jnp.zeros(logits_BRV.shape, bool), tokens_BRT, again_BRT), -jnp.inf, logits_BRV
    )


def min_length(logits_BRV: jax.Array, step_B: jax.Array, least: int, eos: int) -> jax.Array:
    """Excludes the end of sentence as long as fewer than ``least`` tokens would be written."""
    end_BR = jnp.where((step_B + 1 < least)[:, None], -jnp.inf, logits_BRV[..., eos])
    return logits_BRV.at[..., eos].set(end_BR)


def for_all(decode: Decode, log_z_BR: jax.Array, eos: int) -> tuple[Transform, ...]:
    """The transforms that act in every strategy; none under the default settings."""
    transforms: list[Transform] = []
    if decode.repetition_penalty != 1.0:
        transforms.append(
            lambda logits, tokens, step_B: repetition_penalty(
                logits, log_z_BR, tokens, step_B, decode.repetition_penalty
            )
        )
    if decode.suppress:
        transforms.append(lambda logits, tokens, step_B: suppress(logits, decode.suppress))
    if decode.no_repeat_ngram:
        transforms.append(
            lambda logits, tokens, step_B: no_repeat_ngram(
                logits, tokens, step_B, decode.no_repeat_ngram
            )
        )
    if decode.min_length > 1:
        transforms.append(
            lambda logits, tokens, step_B: min_length(logits, step_B, decode.min_length, eos)
        )
    return tuple(transforms)


def sampling(decode: Decode) -> tuple[Transform, ...]:
    """What is done to the logits before a token is drawn from their softmax.

    What is excluded is excluded by the model's own distribution; temperature comes last.
    """
    transforms: list[Transform] = []
    if decode.epsilon:
        transforms.append(lambda logits, tokens, step_B: epsilon(logits, decode.epsilon))
    if decode.top_k:
        transforms.append(lambda logits, tokens, step_B: top_k(logits, decode.top_k))
    if decode.top_p < 1.0:
        transforms.append(lambda logits, tokens, step_B: top_p(logits, decode.top_p))
    if decode.min_p:
        transforms.append(lambda logits, tokens, step_B: min_p(logits, decode.min_p))
    if decode.temperature != 1.0:
        transforms.append(lambda logits, tokens, step_B: temperature(logits, decode.temperature))
    return tuple(transforms)


def _written(tokens_BRT: jax.Array, step_B: jax.Array) -> jax.Array:
    """Which entries have been written: [B,1,T]."""
    return (jnp.arange(tokens_BRT.shape[2])[None] < step_B[:, None])[:, None]


def _mark(mask_BRV: jax.Array, tokens_BRT: jax.Array, chosen_BRT: jax.Array) -> jax.Array:
    """The mask with True at the chosen ones of the tokens."""
    B, R, V = mask_BRV.shape
    ids = jnp.where(chosen_BRT, tokens_BRT, V)
    b, r = jnp.arange(B)[:, None, None], jnp.arange(R)[None, :, None]
    return mask_BRV.at[b, r, ids].set(True, mode="drop")
