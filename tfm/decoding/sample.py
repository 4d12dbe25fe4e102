"""Ancestral sampling: every next token is drawn from the model's distribution."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.decoding.allowed import next_logits
from tfm.decoding.config import Decode
from tfm.decoding.constraints import NONE, Constraints
from tfm.decoding.transforms import sampling
from tfm.decoding.types import Hypotheses, Step, Transform, write


class State(NamedTuple):
    """R samples under way of each of B sentences.

    Attributes:
      step: [B], tokens written so far of a sentence's samples that have not ended; rows need not be
        equal.
      ended: [B,R], whether its eos is written.
      hypotheses: what is written; ``scores`` are the log-probabilities.
      limits: [B], tokens a sentence may have, eos included.
      keys: [B], random keys.
      constraints: of the sentences.
      model: the state of the model behind the step callback.
    """

    step: jax.Array
    ended: jax.Array
    hypotheses: Hypotheses
    limits: jax.Array
    keys: jax.Array
    constraints: Constraints
    model: Any


def start(
    model: Any,
    limits_B: jax.Array,
    decode: Decode,
    *,
    max_length: int,
    keys_B: jax.Array,
    constraints: Constraints = NONE,
) -> State:
    """The state before the first token.

    Args:
      model: the state of the model with R equal hypotheses a sentence.
      limits_B: tokens a sentence may have, eos included; at least 1, at most ``max_length``.
      max_length: T, static.
      keys_B: a random key for each sentence; its samples depend on no other.
      constraints: of the sentences.

    Raises:
      ValueError: phrases that must appear, for which a search has to look ahead.
    """
    if constraints.required is not None:
        raise ValueError("phrases that must appear need strategy beam or diverse, not sample")
    B, R = limits_B.shape[0], decode.samples
    zeros = jnp.zeros((B, R))
    return State(
        step=jnp.zeros(B, jnp.int32),
        ended=jnp.zeros((B, R), bool),
        hypotheses=Hypotheses(
            jnp.zeros((B, R, max_length), jnp.int32), zeros.astype(jnp.int32), zeros, zeros
        ),
        limits=limits_B,
        keys=keys_B,
        constraints=constraints,
        model=model,
    )


def running(state: State) -> jax.Array:
    """Which samples have not ended: bool [B,R]."""
    return ~state.ended


def advance(
    step: Step,
    state: State,
    decode: Decode,
    *,
    bos: int,
    eos: int,
    transforms: tuple[Transform, ...] = (),
) -> State:
    """One token further for every sample that is running; at its limit a sentence is ended.

    Log-probabilities are the model's own, whatever temperature and transforms do to the draws.
    """
    step_B, hypotheses = state.step, state.hypotheses
    B, R = state.ended.shape
    parents_BR = jnp.broadcast_to(jnp.arange(R, dtype=jnp.int32), (B, R))
    found = next_logits(
        step, state.model, hypotheses.tokens, step_B, parents_BR, decode, state.constraints,
        (*transforms, *sampling(decode)), bos=bos, eos=eos,
    )  # fmt: skip
    drawn_BR = _draw(state.keys, step_B, found.allowed)
    tokens_BR = jnp.where((step_B + 1 >= state.limits)[:, None], eos, drawn_BR)
    own_BR = jnp.take_along_axis(found.own, tokens_BR[..., None], axis=-1)[..., 0]
    log_probs_BR = own_BR - found.log_z
    running_BR = running(state)
    total_BR = hypotheses.log_probs + jnp.where(running_BR, log_probs_BR, 0.0)
    written_BRT = write(hypotheses.tokens, tokens_BR, step_B)
    return State(
        step=step_B + 1,
        ended=state.ended | (tokens_BR == eos),
        hypotheses=Hypotheses(
            jnp.where(running_BR[:, :, None], written_BRT, hypotheses.tokens),
            hypotheses.lengths + running_BR,
            total_BR,
            total_BR,
        ),
        limits=state.limits,
        keys=state.keys,
        constraints=state.constraints,
        model=found.model,
    )


def finish(state: State) -> Hypotheses:
    """The samples, in the order drawn; their scores are their log-probabilities.

    What has no finite log-probability, as under logits of NaN, is no sample.
    """
    tokens, lengths, log_probs, _ = state.hypotheses
    exists = jnp.isfinite(log_probs)
    log_probs = jnp.where(exists, log_probs, -jnp.inf)
    return Hypotheses(
        jnp.where(exists[:, :, None], tokens, 0),
        jnp.where(exists, lengths, 0),
        log_probs,
        log_probs,
    )


def _draw(keys_B: jax.Array, step_B: jax.Array, logits_BRV: jax.Array) -> jax.Array:
    """A token for each sample r of each sentence, from a key that follows from both: [B,R]."""

    def one(key: jax.Array, step: jax.Array, r: jax.Array, logits_V: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(key, r), step)
        return jax.random.categorical(key, logits_V)

    samples = jnp.arange(logits_BRV.shape[1])
    of_sentence = jax.vmap(one, in_axes=(None, None, 0, 0))
    return jax.vmap(of_sentence, in_axes=(0, 0, None, 0))(keys_B, step_B, samples, logits_BRV)
