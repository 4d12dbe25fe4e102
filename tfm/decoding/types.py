"""What all strategies share: the step callback, transforms of its logits, and what is found."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp


class Step(Protocol):
    """A model, seen from search: given the newest tokens, logits of the next ones.

    ``step(tokens_BR, parents_BR, state) -> (logits_BRV, log_z_BR, state)``. ``parents`` says which
    of the R hypotheses of the step before each of the present ones continues; the model reorders
    its own state. ``log_z`` is the log of the sum of exp(logits): a token's log-probability is
    ``logits - log_z``, whatever transforms do to the logits afterwards.
    """

    def __call__(
        self, tokens_BR: jax.Array, parents_BR: jax.Array, state: Any
    ) -> tuple[jax.Array, jax.Array, Any]: ...


class Transform(Protocol):
    """Something between model and search that changes which tokens are chosen.

    ``transform(logits_BRV, tokens_BRT, step_B) -> logits_BRV``, where ``tokens`` holds what each
    hypothesis of sentence b has written in its first ``step_B[b]`` entries, and what stands behind
    them means nothing. -inf excludes a token.
    """

    def __call__(
        self, logits_BRV: jax.Array, tokens_BRT: jax.Array, step_B: jax.Array
    ) -> jax.Array: ...


class Attended(NamedTuple):
    """A model's state with what its newest step attended to, for the coverage penalty.

    Attributes:
      state: of the model.
      attention: [B,R,S], the weight of each source token; they add up to 1.
      mask: [B,S] bool, which source tokens there are.
    """

    state: Any
    attention: jax.Array
    mask: jax.Array


class Hypotheses(NamedTuple):
    """R finished hypotheses a sentence.

    Attributes:
      tokens: [B,R,T] int32, ending with eos, padded with 0.
      lengths: [B,R] int32, eos included; 0 where there is no such hypothesis.
      log_probs: [B,R] float32, the natural-log probability, eos included; -inf where there is none.
      scores: [B,R] float32, by which a strategy ranks them.
    """

    tokens: jax.Array
    lengths: jax.Array
    log_probs: jax.Array
    scores: jax.Array


def newest(tokens_BRT: jax.Array, step_B: jax.Array, bos: int) -> jax.Array:
    """The newest token [B,R] of every hypothesis; bos where nothing is written yet."""
    at_B = jnp.maximum(step_B - 1, 0)
    last_BR = jnp.take_along_axis(tokens_BRT, at_B[:, None, None], axis=2, mode="clip")[:, :, 0]
    return jnp.where(step_B[:, None] == 0, bos, last_BR)


def write(tokens_BRT: jax.Array, new_BR: jax.Array, step_B: jax.Array) -> jax.Array:
    """The tokens with ``new`` at position ``step`` of each sentence; unchanged beyond the end."""
    here_BT = jnp.arange(tokens_BRT.shape[2])[None] == step_B[:, None]
    return jnp.where(here_BT[:, None, :], new_BR[:, :, None], tokens_BRT)


def recent(tokens_BRT: jax.Array, step_B: jax.Array, count: int) -> jax.Array:
    """The newest ``count`` tokens of each hypothesis, [B,R,count]; -1 where there are fewer."""
    at_BC = step_B[:, None] - count + jnp.arange(count)[None]
    tokens = jnp.take_along_axis(tokens_BRT, jnp.maximum(at_BC, 0)[:, None], axis=2, mode="clip")
    return jnp.where((at_BC >= 0)[:, None], tokens, -1)


def without(step: Step, ids: Sequence[int]) -> Step:
    """The step with some tokens excluded; the log-probabilities of the others do not change."""

    def restricted(
        tokens_BR: jax.Array, parents_BR: jax.Array, state: Any
    ) -> tuple[jax.Array, jax.Array, Any]:
        logits_BRV, log_z_BR, state = step(tokens_BR, parents_BR, state)
        for i in ids:  # one column each: in place, where a mask would read and write them all
            logits_BRV = logits_BRV.at[..., i].set(-jnp.inf)
        return logits_BRV, log_z_BR, state

    return restricted
