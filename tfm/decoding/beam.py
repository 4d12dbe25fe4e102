"""Beam search with length normalisation.

At every step a sentence has R live hypotheses. Of all their continuations the 2R likeliest are
looked at: those among the first R that end are finished, the first R that do not end live on. A
sentence is done when R hypotheses are finished or its length limit is reached; at the limit every
live hypothesis is made to end. A beam of one is greedy search.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from tfm.decoding.types import Hypotheses, Step

NEGATIVE = -1e30  # log-probability of the impossible: finite, so that sums and products stay so


def normalise(
    log_probs: jax.Array, lengths: jax.Array, norm: Literal["power", "gnmt"], alpha: float
) -> jax.Array:
    """Log-probability over length^alpha ("power") or ((5+length)/6)^alpha ("gnmt").

    Without it (alpha 0) search prefers short output. GNMT: Wu 2016, eq. 14. Length counts eos.
    """
    lengths = jnp.asarray(lengths, jnp.float32)
    return log_probs / (lengths if norm == "power" else (5.0 + lengths) / 6.0) ** alpha


class _State(NamedTuple):
    step: jax.Array  # scalar: tokens written so far
    live_tokens: jax.Array  # [B,R,T]
    live_log_probs: jax.Array  # [B,R]
    parents: jax.Array  # [B,R]
    done: Hypotheses
    model: Any


def search(
    step: Step,
    state: Any,
    limits_B: jax.Array,
    *,
    beam_size: int,
    max_length: int,
    bos: int,
    eos: int,
    length_norm: Literal["power", "gnmt"] = "gnmt",
    length_penalty: float = 1.0,
) -> Hypotheses:
    """Finds the ``beam_size`` best continuations of bos under the model behind ``step``.

    Args:
      step: the model; the first call has ``beam_size`` equal hypotheses.
      state: its state, carried through a ``lax.while_loop``.
      limits_B: tokens a sentence may have, eos included; at most ``max_length``, at least 1.
      max_length: T, static.
      length_norm, length_penalty: see ``normalise``.
    """
    B, R, T = limits_B.shape[0], beam_size, max_length
    done = Hypotheses(
        tokens=jnp.zeros((B, R, T), jnp.int32),
        lengths=jnp.zeros((B, R), jnp.int32),
        log_probs=jnp.full((B, R), NEGATIVE),
        scores=jnp.full((B, R), NEGATIVE),
    )
    # The R first hypotheses are equal: only one may count.
    live_log_probs = jnp.full((B, R), NEGATIVE).at[:, 0].set(0.0)
    parents = jnp.broadcast_to(jnp.arange(R, dtype=jnp.int32), (B, R))
    zero = jnp.zeros((), jnp.int32)
    first = _State(zero, done.tokens, live_log_probs, parents, done, state)

    def running_B(s: _State) -> jax.Array:
        return (s.step < limits_B) & (s.done.lengths == 0).any(axis=1)

    def advance(s: _State) -> _State:
        last_BR = s.live_tokens[:, :, jnp.maximum(s.step - 1, 0)]
        last_BR = jnp.where(s.step == 0, bos, last_BR)
        logits_BRV, model = step(last_BR, s.parents, s.model)
        log_probs, parents, tokens = _candidates(
            logits_BRV, s.live_log_probs, must_end_B=s.step + 1 >= limits_B, eos=eos
        )
        running_B1 = running_B(s)[:, None]
        histories = jnp.take_along_axis(s.live_tokens, parents[:, :, None], axis=1)
        histories = jax.lax.dynamic_update_slice_in_dim(
            histories, tokens[:, :, None], s.step, axis=2
        )
        ends = tokens == eos
        finishes = ends & running_B1 & (jnp.arange(2 * R) < R)[None] & (log_probs > NEGATIVE / 2)
        length = s.step + 1
        ended = Hypotheses(
            histories[:, :R],
            jnp.where(finishes, length, 0)[:, :R],
            jnp.where(finishes, log_probs, NEGATIVE)[:, :R],
            jnp.where(
                finishes, normalise(log_probs, length, length_norm, length_penalty), NEGATIVE
            )[:, :R],
        )
        lives, chosen = jax.lax.top_k(jnp.where(ends, NEGATIVE, log_probs), R)
        pick = lambda x: jnp.take_along_axis(x, chosen, axis=1)  # noqa: E731
        live_tokens = jnp.take_along_axis(histories, chosen[:, :, None], axis=1)
        return _State(length, live_tokens, lives, pick(parents), _merge(s.done, ended), model)

    last = jax.lax.while_loop(lambda s: running_B(s).any(), advance, first)
    exists = last.done.lengths > 0
    return last.done._replace(
        tokens=jnp.where(exists[:, :, None], last.done.tokens, 0),
        log_probs=jnp.where(exists, last.done.log_probs, -jnp.inf),
        scores=jnp.where(exists, last.done.scores, -jnp.inf),
    )


def _candidates(
    logits_BRV: jax.Array, live_log_probs_BR: jax.Array, must_end_B: jax.Array, eos: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The 2R likeliest continuations: log-probabilities, parents and tokens, [B,2R] each."""
    B, R, V = logits_BRV.shape
    # First within each hypothesis, on the logits as they come, then between hypotheses.
    best, tokens = top_k(logits_BRV, min(2 * R, V))
    is_first = jnp.arange(best.shape[2]) == 0
    end = jnp.where(is_first[None, None], logits_BRV[:, :, eos, None], -jnp.inf)
    must_end = must_end_B[:, None, None]
    best, tokens = jnp.where(must_end, end, best), jnp.where(must_end, eos, tokens)

    offset_BR = live_log_probs_BR - jax.nn.logsumexp(logits_BRV, axis=-1)
    log_probs = jnp.maximum(best + offset_BR[:, :, None], NEGATIVE)
    log_probs, where = jax.lax.top_k(log_probs.reshape(B, -1), 2 * R)
    parents = (where // best.shape[2]).astype(jnp.int32)
    return log_probs, parents, jnp.take_along_axis(tokens.reshape(B, -1), where, axis=1)


def top_k(x: jax.Array, k: int, group: int = 32) -> tuple[jax.Array, jax.Array]:
    """``lax.top_k`` over a long last axis, exactly, in about a quarter of its time on the CPU.

    The k largest entries stand in the k groups with the largest maxima, so only those are sorted.
    Among equal entries, which one is returned may differ from ``lax.top_k``.
    """
    groups = -(-x.shape[-1] // group)
    if groups <= k:
        return jax.lax.top_k(x, k)
    fill = [(0, 0)] * (x.ndim - 1) + [(0, groups * group - x.shape[-1])]
    grouped = jnp.pad(x, fill, constant_values=-jnp.inf).reshape(*x.shape[:-1], groups, group)
    _, chosen = jax.lax.top_k(grouped.max(axis=-1), k)
    members = jnp.take_along_axis(grouped, chosen[..., None], axis=-2)
    values, where = jax.lax.top_k(members.reshape(*x.shape[:-1], k * group), k)
    index = jnp.take_along_axis(chosen, where // group, axis=-1) * group + where % group
    return values, index.astype(jnp.int32)


def _merge(done: Hypotheses, ended: Hypotheses) -> Hypotheses:
    """The R best of both, best first."""
    both = Hypotheses(*(jnp.concatenate(pair, axis=1) for pair in zip(done, ended, strict=True)))
    _, best = jax.lax.top_k(both.scores, done.scores.shape[1])
    return Hypotheses(
        jnp.take_along_axis(both.tokens, best[:, :, None], axis=1),
        *(jnp.take_along_axis(x, best, axis=1) for x in both[1:]),
    )
