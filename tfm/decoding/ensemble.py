"""Several models as one: a step made of steps."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from tfm.decoding.types import Attended, Step

Average = Literal["probability", "log_probability"]


def average(log_probs_MV: jax.Array, kind: Average) -> tuple[jax.Array, jax.Array]:
    """The mean of M models' log-probabilities [M,...,V]: (logits [...,V], log_z [...]).

    The mean of probabilities favours what some model finds likely, the mean of log-probabilities,
    normalised anew, what none finds unlikely.
    """
    if kind == "probability":
        logits = jax.nn.logsumexp(log_probs_MV, axis=0) - jnp.log(len(log_probs_MV))
        return logits, jnp.zeros(logits.shape[:-1])
    logits = log_probs_MV.mean(axis=0)
    return logits, jax.nn.logsumexp(logits, axis=-1)


def ensemble(steps: Sequence[Step], kind: Average = "probability") -> Step:
    """The step of the models behind ``steps``, which share a target vocabulary.

    Its state is the tuple of their states; if these are ``Attended``, an ``Attended`` of that
    tuple, with the mean of what they attend to.
    """

    def step(
        tokens_BR: jax.Array, parents_BR: jax.Array, state: Any
    ) -> tuple[jax.Array, jax.Array, Any]:
        states = state.state if isinstance(state, Attended) else state
        found = [one(tokens_BR, parents_BR, own) for one, own in zip(steps, states, strict=True)]
        log_probs = jnp.stack([logits - log_z[..., None] for logits, log_z, _ in found])
        kept: Any = tuple(own for _, _, own in found)
        if isinstance(state, Attended):
            mean_BRS = jnp.stack([own.attention for own in kept]).mean(axis=0)
            kept = Attended(kept, mean_BRS, state.mask)
        return *average(log_probs, kind), kept

    return step
