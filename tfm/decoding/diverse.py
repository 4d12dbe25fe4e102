"""Diverse beam search: a beam of groups, each of which avoids what those before it write.

Vijayakumar 2018, with Hamming diversity: at every step the groups choose one after the other, and a
token loses ``Decode.diversity`` for each hypothesis of a group before that has just written it.
Only the choice depends on that: scores are those of a beam.
"""

from typing import Any

import jax
import jax.numpy as jnp

from tfm.decoding import beam
from tfm.decoding.allowed import next_logits
from tfm.decoding.beam import State
from tfm.decoding.candidates import NEGATIVE, Logits
from tfm.decoding.config import Decode
from tfm.decoding.constraints import NONE, Constraints
from tfm.decoding.types import Hypotheses, Step, Transform, newest


def start(
    model: Any,
    limits_B: jax.Array,
    decode: Decode,
    *,
    max_length: int,
    keys_B: jax.Array | None = None,
    constraints: Constraints = NONE,
) -> State:
    """The state before the first token, as of a beam; but ``done`` is [B,groups]."""
    state = beam.start(
        model, limits_B, decode, max_length=max_length, keys_B=keys_B, constraints=constraints
    )
    first = jnp.arange(decode.beam_size) % (decode.beam_size // decode.groups) == 0
    log_probs = jnp.broadcast_to(jnp.where(first, 0.0, NEGATIVE), state.log_probs.shape)
    done = jnp.zeros((limits_B.shape[0], decode.groups), bool)
    return state._replace(log_probs=log_probs, scores=log_probs, done=done)


def running(state: State) -> jax.Array:
    """Which groups are not done: bool [B,groups]."""
    return (state.step < state.limits)[:, None] & ~state.done


def advance(
    step: Step,
    state: State,
    decode: Decode,
    *,
    bos: int,
    eos: int,
    transforms: tuple[Transform, ...] = (),
) -> State:
    """One token further for every group that is running; the others do not change."""
    found = next_logits(
        step, state.model, state.tokens, state.step, state.parents, decode, state.constraints,
        transforms, bos=bos, eos=eos,
    )  # fmt: skip
    B, R, V = found.own.shape
    size = R // decode.groups
    written_BV, groups = jnp.zeros((B, V)), []
    for g in range(decode.groups):
        own = slice(g * size, (g + 1) * size)
        logits_BrV = found.allowed[:, own]
        ranked_BrV = logits_BrV if g == 0 else logits_BrV - decode.diversity * written_BV[:, None]
        logits = Logits(found.own[:, own], logits_BrV, ranked_BrV, found.log_z[:, own])
        group = beam.extend(
            _group(state._replace(model=found.model), own, g), logits, decode, eos=eos
        )
        written = jnp.where(group.scores > NEGATIVE / 2, 1.0, 0.0)
        last = newest(group.tokens, group.step, bos)
        written_BV = written_BV.at[jnp.arange(B)[:, None], last].add(written)
        groups.append(group._replace(parents=group.parents + g * size))
    return _joined(groups, found.model)


def finish(state: State) -> Hypotheses:
    """The finished hypotheses of all groups, best first, each sentence once."""
    found = beam.finish(state)
    _, order = jax.lax.top_k(found.scores, found.scores.shape[1])
    tokens = jnp.take_along_axis(found.tokens, order[:, :, None], axis=1)
    lengths, log_probs, scores = (jnp.take_along_axis(x, order, axis=1) for x in found[1:])
    same_BRR = (tokens[:, :, None] == tokens[:, None]).all(axis=3) & (lengths > 0)[:, None]
    R = lengths.shape[1]
    again = (same_BRR & jnp.tril(jnp.ones((R, R), bool), k=-1)[None]).any(axis=2)
    order = jnp.argsort(again, axis=1, stable=True)  # those that are left come first
    pick = lambda x: jnp.take_along_axis(x, order, axis=1)  # noqa: E731
    return Hypotheses(
        jnp.take_along_axis(jnp.where(again[:, :, None], 0, tokens), order[:, :, None], axis=1),
        pick(jnp.where(again, 0, lengths)),
        pick(jnp.where(again, -jnp.inf, log_probs)),
        pick(jnp.where(again, -jnp.inf, scores)),
    )


def _group(state: State, own: slice, g: int) -> State:
    """The hypotheses of one group as a beam of its own."""

    def part(x: Any) -> Any:
        return None if x is None else x[:, own]

    model = state.model
    if state.coverage is not None:
        model = model._replace(attention=model.attention[:, own])
    return state._replace(
        tokens=part(state.tokens),
        log_probs=part(state.log_probs),
        scores=part(state.scores),
        parents=part(state.parents),
        finished=Hypotheses(*map(part, state.finished)),
        done=state.done[:, g],
        met=part(state.met),
        coverage=part(state.coverage),
        model=model,
    )


def _joined(groups: list[State], model: Any) -> State:
    """The groups as one state."""

    def join(*parts: Any) -> Any:
        return None if parts[0] is None else jnp.concatenate(parts, axis=1)

    return groups[0]._replace(
        tokens=join(*(x.tokens for x in groups)),
        log_probs=join(*(x.log_probs for x in groups)),
        scores=join(*(x.scores for x in groups)),
        parents=join(*(x.parents for x in groups)),
        finished=Hypotheses(*map(join, *(x.finished for x in groups))),
        done=jnp.stack([x.done for x in groups], axis=1),
        met=join(*(x.met for x in groups)),
        coverage=join(*(x.coverage for x in groups)),
        model=model,
    )
