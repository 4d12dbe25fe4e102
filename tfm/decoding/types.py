"""What all strategies share: the step callback, transforms of its logits, and what is found."""

from typing import Any, NamedTuple, Protocol

import jax


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

    ``transform(logits_BRV, tokens_BRT, step) -> logits_BRV``, where ``tokens`` holds what each
    hypothesis has written in its first ``step`` entries. -inf excludes a token.
    """

    def __call__(
        self, logits_BRV: jax.Array, tokens_BRT: jax.Array, step: jax.Array
    ) -> jax.Array: ...


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


def apply_transforms(
    transforms: tuple[Transform, ...],
    logits_BRV: jax.Array,
    tokens_BRT: jax.Array,
    step: jax.Array,
) -> jax.Array:
    """The logits after all transforms, in their order."""
    for transform in transforms:
        logits_BRV = transform(logits_BRV, tokens_BRT, step)
    return logits_BRV
