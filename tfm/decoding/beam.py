"""Beam search with length normalisation.

At every step a sentence has R live hypotheses. Of all their continuations the 2R best are
considered: those among the first R that end with eos are finished, and the first R that do not end
stay alive. A sentence is done when ``Decode.early_stopping`` says so or its length limit is
reached; at the limit every live hypothesis is ended. A beam of one is greedy search.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from tfm.decoding.allowed import next_logits
from tfm.decoding.candidates import NEGATIVE, Candidates, Live, Logits, choose
from tfm.decoding.config import Decode
from tfm.decoding.constraints import NONE, Constraints, prefix_left
from tfm.decoding.types import Attended, Hypotheses, Step, Transform, write


class State(NamedTuple):
    """A search under way, of B sentences with R live and R finished hypotheses each.

    Attributes:
      step: [B], tokens written so far of a sentence's live hypotheses; rows need not be equal.
      tokens: [B,R,T], of the live hypotheses.
      log_probs: [B,R], the model's log-probability of each; ``NEGATIVE`` where there is none.
      scores: [B,R], by which they are ranked; ``log_probs`` if no transform changed the logits.
      parents: [B,R], which hypothesis of the step before each one continues.
      finished: the best finished hypotheses so far, best first.
      done: [B], whether search of a sentence has ended before its limit.
      limits: [B], tokens a sentence may have, eos included.
      met: [B,R,P], which required phrases each live hypothesis has written; None if there are none.
      coverage: [B,R,S], how much each source token has been attended to; None without a coverage
        penalty.
      constraints: of the sentences.
      model: the state of the model behind the step callback.
    """

    step: jax.Array
    tokens: jax.Array
    log_probs: jax.Array
    scores: jax.Array
    parents: jax.Array
    finished: Hypotheses
    done: jax.Array
    limits: jax.Array
    met: jax.Array | None
    coverage: jax.Array | None
    constraints: Constraints
    model: Any


def start(
    model: Any,
    limits_B: jax.Array,
    decode: Decode,
    *,
    max_length: int,
    keys_B: jax.Array | None = None,
    constraints: Constraints = NONE,
) -> State:
    """The state before the first token.

    Args:
      model: the state of the model with R equal hypotheses a sentence; with a coverage penalty an
        ``Attended``.
      limits_B: tokens a sentence may have, eos included; at least 1, at most ``max_length``.
      max_length: T, static.
      keys_B: not used; other strategies draw at random.
      constraints: of the sentences.
    """
    del keys_B
    B, R, T = limits_B.shape[0], decode.beam_size, max_length
    # The R hypotheses are equal at the start: only the first one may count.
    log_probs = jnp.full((B, R), NEGATIVE).at[:, 0].set(0.0)
    tokens = jnp.zeros((B, R, T), jnp.int32)
    required = constraints.required
    return State(
        step=jnp.zeros(B, jnp.int32),
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
        done=jnp.zeros(B, bool),
        limits=limits_B,
        met=None if required is None else jnp.zeros((B, R, required.shape[1]), bool),
        coverage=jnp.zeros_like(model.attention) if decode.coverage_penalty else None,
        constraints=constraints,
        model=model,
    )


def running(state: State) -> jax.Array:
    """Which sentences are not done: bool [B]."""
    return (state.step < state.limits) & ~state.done


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
    found = next_logits(
        step, state.model, state.tokens, state.step, state.parents, decode, state.constraints,
        transforms, bos=bos, eos=eos,
    )  # fmt: skip
    logits = Logits(found.own, found.allowed, found.allowed, found.log_z)
    return extend(state._replace(model=found.model), logits, decode, eos=eos)


def extend(state: State, logits: Logits, decode: Decode, *, eos: int) -> State:
    """The state with the tokens that logits give; ``state.model`` is the model's after them."""
    R = state.log_probs.shape[1]
    live = Live(
        state.tokens, state.step, state.log_probs, state.scores, state.met, state.constraints,
        must_end=state.step + 1 >= state.limits,
        has_finished=(state.finished.lengths > 0).any(axis=1),
    )  # fmt: skip
    chosen = choose(logits, live, eos)
    tokens = jnp.take_along_axis(state.tokens, chosen.parents[:, :, None], axis=1)
    tokens = write(tokens, chosen.tokens, state.step)
    coverage = None
    if state.coverage is not None:
        covered = state.coverage + state.model.attention
        coverage = jnp.take_along_axis(covered, chosen.parents[:, :, None], axis=1)
    finished = _finished(state, chosen, tokens, coverage, decode, eos)

    ends = chosen.tokens == eos
    kept = jnp.argsort(ends, axis=1, stable=True)[:, :R]  # the first R that do not end
    pick = lambda x: jnp.take_along_axis(  # noqa: E731
        x, kept.reshape(*kept.shape, *[1] * (x.ndim - 2)), axis=1
    )
    scores = jnp.where(pick(ends), NEGATIVE, pick(chosen.scores))
    return ended(
        state._replace(
            step=state.step + 1,
            tokens=pick(tokens),
            log_probs=jnp.where(scores > NEGATIVE, pick(chosen.log_probs), NEGATIVE),
            scores=scores,
            parents=pick(chosen.parents),
            finished=_best(state.finished, finished),
            met=None if chosen.met is None else pick(chosen.met),
            coverage=None if coverage is None else pick(coverage),
        ),
        decode,
    )


def ended(state: State, decode: Decode) -> State:
    """The state with sentences marked as done whose search ends by ``decode.early_stopping``."""
    done = ~(state.scores > NEGATIVE / 2).any(axis=1)  # no hypothesis is left to go on with
    if decode.early_stopping != "never":
        full = (state.finished.lengths > 0).all(axis=1)
        if decode.early_stopping == "best":
            full &= _bound(state, decode) <= state.finished.scores.min(axis=1)
        done |= full
    return state._replace(done=state.done | done)


def _bound(state: State, decode: Decode) -> jax.Array:
    """The best score [B] that a live hypothesis of each sentence may still be finished with.

    A log-probability only falls while a sentence grows, by transforms too if they only lower
    logits, and the normaliser is monotone in the length; so the best of all is reached at the next
    token or at the limit, with no further loss. Only a biased prefix adds to it. Coverage grows, up
    to a penalty of 0.
    """
    gain_B = decode.prefix_bias * prefix_left(state.constraints, state.step)
    best_B = state.scores.max(axis=1) + gain_B
    bounds = [
        normalise(best_B, length_B, decode.length_norm, decode.length_penalty)
        for length_B in (state.step + 1, state.limits)
    ]
    return jnp.maximum(*bounds)


def _finished(
    state: State,
    chosen: Candidates,
    tokens: jax.Array,
    coverage: jax.Array | None,
    decode: Decode,
    eos: int,
) -> Hypotheses:
    """What the candidates finish: those among the first R that end."""
    R = state.log_probs.shape[1]
    length = (state.step + 1)[:, None]
    finishes = (chosen.tokens == eos) & running(state)[:, None] & chosen.may_end
    finishes &= chosen.scores > NEGATIVE / 2
    scores = normalise(chosen.scores, length, decode.length_norm, decode.length_penalty)
    if coverage is not None:
        assert isinstance(state.model, Attended)
        scores += decode.coverage_penalty * coverage_penalty(coverage, state.model.mask)
    return Hypotheses(
        tokens[:, :R],
        jnp.where(finishes, length, 0)[:, :R],
        jnp.where(finishes, chosen.log_probs, NEGATIVE)[:, :R],
        jnp.where(finishes, scores, NEGATIVE)[:, :R],
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


def coverage_penalty(coverage_BCS: jax.Array, mask_BS: jax.Array) -> jax.Array:
    """The sum of log(min(coverage, 1)) over the source tokens, [B,C] (Wu 2016, eq. 14)."""
    logs = jnp.log(jnp.clip(coverage_BCS, 1e-9, 1.0))  # a token that nothing attends to: -20.7
    return jnp.where(mask_BS[:, None], logs, 0.0).sum(axis=2)


def _best(finished: Hypotheses, more: Hypotheses) -> Hypotheses:
    """The R best of both, best first."""
    both = Hypotheses(*(jnp.concatenate(pair, axis=1) for pair in zip(finished, more, strict=True)))
    _, best = jax.lax.top_k(both.scores, finished.scores.shape[1])
    return Hypotheses(
        jnp.take_along_axis(both.tokens, best[:, :, None], axis=1),
        *(jnp.take_along_axis(x, best, axis=1) for x in both[1:]),
    )
