"""What every search shares: the step callback, and what a finished search returns."""

from typing import Any, NamedTuple, Protocol

import jax


class Step(Protocol):
    """A model, seen from search: given the newest tokens, scores of the next ones.

    ``step(tokens_BR, parents_BR, state) -> (logits_BRV, state)``. ``parents`` says which of the R
    hypotheses of the step before each of the present ones continues; what to reorder is the
    model's business.
    """

    def __call__(
        self, tokens_BR: jax.Array, parents_BR: jax.Array, state: Any
    ) -> tuple[jax.Array, Any]: ...


class Hypotheses(NamedTuple):
    """R finished hypotheses a sentence, best first.

    Attributes:
      tokens: [B,R,T] int32, ending with eos, padded with 0.
      lengths: [B,R] int32, eos included; 0 where there is no such hypothesis.
      log_probs: [B,R] float32, the natural-log probability, eos included; -inf where there is none.
      scores: [B,R] float32, ``log_probs`` after length normalisation.
    """

    tokens: jax.Array
    lengths: jax.Array
    log_probs: jax.Array
    scores: jax.Array
