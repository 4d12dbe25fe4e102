"""One token at a time: greedily, or drawn at random."""

from typing import Any

import jax
import jax.numpy as jnp

from tfm.decoding.types import Hypotheses, Step


def sample(
    step: Step,
    state: Any,
    limits_B: jax.Array,
    *,
    max_length: int,
    bos: int,
    eos: int,
    key: jax.Array | None = None,
    samples: int = 1,
    temperature: float = 1.0,
    top_k: int = 0,
) -> Hypotheses:
    """Draws ``samples`` independent continuations of bos; without a key, the likeliest token.

    Args:
      step, state, limits_B, max_length: as in ``beam.search``; at its limit a sentence ends.
      key: of the draws; ``None`` is greedy search.
      temperature: divides the logits before drawing.
      top_k: draw among the k likeliest only (Fan 2018); 0 is all.

    Returns:
      In the order drawn. ``log_probs`` are the model's own; ``scores`` are the same numbers.
    """
    B, R, T = limits_B.shape[0], samples, max_length
    parents = jnp.broadcast_to(jnp.arange(R, dtype=jnp.int32), (B, R))

    def choose(logits_BRV: jax.Array, i: jax.Array) -> jax.Array:
        if key is None:
            return logits_BRV.argmax(axis=-1).astype(jnp.int32)
        if top_k:
            kth = jax.lax.top_k(logits_BRV, top_k)[0][..., -1:]
            logits_BRV = jnp.where(logits_BRV >= kth, logits_BRV, -jnp.inf)
        return jax.random.categorical(jax.random.fold_in(key, i), logits_BRV / temperature)

    def advance(carry: tuple) -> tuple:
        i, last_BR, hypotheses, state = carry
        logits_BRV, state = step(last_BR, parents, state)
        tokens_BR = jnp.where((i + 1 >= limits_B)[:, None], eos, choose(logits_BRV, i))
        log_probs_BRV = jax.nn.log_softmax(logits_BRV)
        gained_BR = jnp.take_along_axis(log_probs_BRV, tokens_BR[..., None], axis=-1)[..., 0]
        running_BR = hypotheses.lengths == i
        running_BR &= (last_BR != eos) | (i == 0)
        total_BR = hypotheses.log_probs + jnp.where(running_BR, gained_BR, 0.0)
        written = jnp.where(running_BR, tokens_BR, 0)
        hypotheses = Hypotheses(
            jax.lax.dynamic_update_slice_in_dim(hypotheses.tokens, written[:, :, None], i, axis=2),
            hypotheses.lengths + running_BR,
            total_BR,
            total_BR,
        )
        return i + 1, tokens_BR, hypotheses, state

    def running(carry: tuple) -> jax.Array:
        i, last_BR, hypotheses, _ = carry
        return (i == 0) | ((hypotheses.lengths == i) & (last_BR != eos)).any()

    nothing = Hypotheses(
        jnp.zeros((B, R, T), jnp.int32),
        jnp.zeros((B, R), jnp.int32),
        jnp.zeros((B, R)),
        jnp.zeros((B, R)),
    )
    first = (jnp.zeros((), jnp.int32), jnp.full((B, R), bos, jnp.int32), nothing, state)
    return jax.lax.while_loop(running, advance, first)[2]
