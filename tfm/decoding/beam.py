"""Beam search with length normalisation.

At every step a sentence has R live hypotheses. Of all their continuations the 2R best are
considered: those among the first R that end with eos are finished, and the first R that do not end
stay alive. A sentence is done when R hypotheses are finished or its length limit is reached; at the
limit every live hypothesis is ended. A beam of one is greedy search.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from tfm.decoding.config import Decode
from tfm.decoding.types import Hypotheses, Step, Transform, apply_transforms

NEGATIVE = -1e30  # log-probability of the impossible: finite, so that sums and products stay so


class State(NamedTuple):
    """A search under way, of B sentences with R live and R finished hypotheses each.

    Attributes:
      step: tokens written so far, the same of all live hypotheses.
      tokens: [B,R,T], of the live hypotheses.
      log_probs: [B,R], the model's log-probability of each; ``NEGATIVE`` where there is none.
      scores: [B,R], by which they are ranked; ``log_probs`` if no transform changed the logits.
      parents: [B,R], which hypothesis of the step before each one continues.
      finished: the best finished hypotheses so far, best first.
      limits: [B], tokens a sentence may have, eos included.
      model: the state of the model behind the step callback.
    """

    step: jax.Array
    tokens: jax.Array
    log_probs: jax.Array
    scores: jax.Array
    parents: jax.Array
    finished: Hypotheses
    limits: jax.Array
    model: Any


def start(
    model: Any,
    limits_B: jax.Array,
    decode: Decode,
    *,
    max_length: int,
    keys_B: jax.Array | None = None,
) -> State:
    """The state before the first token.

    Args:
      model: the state of the model with R equal hypotheses a sentence.
      limits_B: tokens a sentence may have, eos included; at least 1, at most ``max_length``.
      max_length: T, static.
      keys_B: not used; other strategies draw at random.
    """
    del keys_B
    B, R, T = limits_B.shape[0], decode.beam_size, max_length
    # The R hypotheses are equal at the start: only the first one may count.
    log_probs = jnp.full((B, R), NEGATIVE).at[:, 0].set(0.0)
    tokens = jnp.zeros((B, R, T), jnp.int32)
    return State(
        step=jnp.zeros((), jnp.int32),
        tokens=tokens,
        log_probs=log_probs,
        scores=log_probs,
        parents=jnp.broadcast_to(jnp.arange(R, dtype=jnp.int32), (B, R)),
        finished=Hypotheses(
            tokens=tokens,
            lengths=jnp.zeros((B, R), jnp.int32),
            log_probs=jnp.full((B, R), NEGATIVE),
            scores=jnp.full((B, R), NEGATIVE),
        ),
        limits=limits_B,
        model=model,
    )


def running(state: State) -> jax.Array:
    """Which sentences are not done: bool [B]."""
    return (state.step < state.limits) & (state.finished.lengths == 0).any(axis=1)


def advance(
    step: Step,
    state: State,
    decode: Decode,
    *,
    bos: int,
    eos: int,
    transforms: tuple[Transform, ...] = (),
) -> State:
    """One token further for every sentence that is running; the others do not change."""
    R = state.log_probs.shape[1]
    last_BR = state.tokens[:, :, jnp.maximum(state.step - 1, 0)]
    last_BR = jnp.where(state.step == 0, bos, last_BR)
    logits_BRV, log_z_BR, model = step(last_BR, state.parents, state.model)
    chosen = _candidates(
        logits_BRV,
        apply_transforms(transforms, logits_BRV, state.tokens, state.step),
        log_z_BR,
        state,
        must_end_B=state.step + 1 >= state.limits,
        eos=eos,
        transformed=bool(transforms),
    )
    tokens = jnp.take_along_axis(state.tokens, chosen.parents[:, :, None], axis=1)
    tokens = jax.lax.dynamic_update_slice_in_dim(
        tokens, chosen.tokens[:, :, None], state.step, axis=2
    )
    length, ends = state.step + 1, chosen.tokens == eos
    finishes = ends & running(state)[:, None] & (jnp.arange(2 * R) < R)[None]
    finishes &= chosen.scores > NEGATIVE / 2
    scores = normalise(chosen.scores, length, decode.length_norm, decode.length_penalty)
    finished = Hypotheses(
        tokens[:, :R],
        jnp.where(finishes, length, 0)[:, :R],
        jnp.where(finishes, chosen.log_probs, NEGATIVE)[:, :R],
        jnp.where(finishes, scores, NEGATIVE)[:, :R],
    )
    scores, live = jax.lax.top_k(jnp.where(ends, NEGATIVE, chosen.scores), R)
    pick = lambda x: jnp.take_along_axis(x, live, axis=1)  # noqa: E731
    return State(
        step=length,
        tokens=jnp.take_along_axis(tokens, live[:, :, None], axis=1),
        log_probs=jnp.where(scores > NEGATIVE, pick(chosen.log_probs), NEGATIVE),
        scores=scores,
        parents=pick(chosen.parents),
        finished=_best(state.finished, finished),
        limits=state.limits,
        model=model,
    )


def finish(state: State) -> Hypotheses:
    """The finished hypotheses, best first."""
    finished, exists = state.finished, state.finished.lengths > 0
    return finished._replace(
        tokens=jnp.where(exists[:, :, None], finished.tokens, 0),
        log_probs=jnp.where(exists, finished.log_probs, -jnp.inf),
        scores=jnp.where(exists, finished.scores, -jnp.inf),
    )


def normalise(
    log_probs: jax.Array, lengths: jax.Array, norm: Literal["power", "gnmt"], alpha: float
) -> jax.Array:
    """Log-probability over length^alpha ("power") or ((5+length)/6)^alpha ("gnmt").

    Without it (alpha 0) search prefers short output. GNMT: Wu 2016, eq. 14. Length counts eos.
    """
    lengths = jnp.asarray(lengths, jnp.float32)
    return log_probs / (lengths if norm == "power" else (5.0 + lengths) / 6.0) ** alpha


class _Candidates(NamedTuple):
    """The 2R best continuations of every sentence, [B,2R] each."""

    log_probs: jax.Array
    scores: jax.Array
    parents: jax.Array
    tokens: jax.Array


def _candidates(
    logits_BRV: jax.Array,
    transformed_BRV: jax.Array,
    log_z_BR: jax.Array,
    state: State,
    must_end_B: jax.Array,
    eos: int,
    transformed: bool,
) -> _Candidates:
    """The best continuations; where a sentence has reached its limit, eos whatever transforms say.

    Args:
      transformed: whether the two kinds of logits differ, so that log-probabilities are not scores.
    """
    B, R, V = logits_BRV.shape
    # First within each hypothesis, on the logits as they come, then between hypotheses.
    best, tokens = top_k(transformed_BRV, min(2 * R, V))
    is_first = jnp.arange(best.shape[2]) == 0
    end = jnp.where(is_first[None, None], logits_BRV[:, :, eos, None], -jnp.inf)
    must_end = must_end_B[:, None, None]
    best, tokens = jnp.where(must_end, end, best), jnp.where(must_end, eos, tokens)

    offset_BR = state.scores - log_z_BR
    scores = jnp.maximum(best + offset_BR[:, :, None], NEGATIVE)
    scores, where = jax.lax.top_k(scores.reshape(B, -1), 2 * R)
    parents = (where // best.shape[2]).astype(jnp.int32)
    tokens_of = lambda x: jnp.take_along_axis(x.reshape(B, -1), where, axis=1)  # noqa: E731
    log_probs = scores
    if transformed:
        own = jnp.take_along_axis(logits_BRV, tokens, axis=2)
        log_probs = tokens_of(own + (state.log_probs - log_z_BR)[:, :, None])
    return _Candidates(log_probs, scores, parents, tokens_of(tokens))


def top_k(x: jax.Array, k: int, group: int = 32) -> tuple[jax.Array, jax.Array]:
    """``lax.top_k`` over a long last axis, exactly, in about a quarter of its time on the CPU.

    The k largest entries are in the k groups with the largest maxima, so only those are sorted.
    Among equal entries, which one is returned may differ from ``lax.top_k``; where fewer than k
    entries are above -inf, an index may occur more than once.
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
    index = jnp.minimum(index, x.shape[-1] - 1)  # an entry of the padding, all -inf
    return values, index.astype(jnp.int32)


def _best(finished: Hypotheses, more: Hypotheses) -> Hypotheses:
    """The R best of both, best first."""
    both = Hypotheses(*(jnp.concatenate(pair, axis=1) for pair in zip(finished, more, strict=True)))
    _, best = jax.lax.top_k(both.scores, finished.scores.shape[1])
    return Hypotheses(
        jnp.take_along_axis(both.tokens, best[:, :, None], axis=1),
        *(jnp.take_along_axis(x, best, axis=1) for x in both[1:]),
    )
