"""The best continuations of a sentence's hypotheses, from which a beam takes its next ones."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tfm.decoding import allocation
from tfm.decoding.constraints import Constraints, wanted

NEGATIVE = -1e30  # log-probability of the impossible: finite, so that sums and products stay so


class Live(NamedTuple):
    """The live hypotheses of a beam, as far as continuations of them depend on these.

    Attributes:
      tokens: [B,R,T]; ``step`` [B] of them are written.
      log_probs, scores: [B,R].
      met: [B,R,P], which required phrases each has written; None if there are none.
      constraints: of the sentences.
      must_end: [B], whether the next token is eos, whatever transforms say.
      has_finished: [B], whether a hypothesis is finished.
    """

    tokens: jax.Array
    step: jax.Array
    log_probs: jax.Array
    scores: jax.Array
    met: jax.Array | None
    constraints: Constraints
    must_end: jax.Array
    has_finished: jax.Array


class Logits(NamedTuple):
    """The logits of the next token, [B,R,V], with the log of their normaliser.

    Attributes:
      own: those of the model, which log-probabilities follow.
      allowed: after transforms, which scores follow; ``own`` itself if there are none.
      ranked: by which tokens are chosen; ``allowed`` itself but in a search for diversity.
      log_z: [B,R], of ``own``.
    """

    own: jax.Array
    allowed: jax.Array
    ranked: jax.Array
    log_z: jax.Array


class Candidates(NamedTuple):
    """The 2R continuations that are considered of every sentence, [B,2R] each, in their order.

    Attributes:
      may_end: whether one that ends with eos is finished by it.
      met: [B,2R,P], see ``Live``.
    """

    log_probs: jax.Array
    scores: jax.Array
    parents: jax.Array
    tokens: jax.Array
    may_end: jax.Array
    met: jax.Array | None


def choose(logits: Logits, live: Live, eos: int) -> Candidates:
    """The 2R best continuations, best first, or those that constraints ask for."""
    B, R, V = logits.own.shape
    # First within each hypothesis, on the logits as they come, then between hypotheses.
    best, tokens = top_k(logits.ranked, min(2 * R, V))
    if live.met is not None:
        more = wanted(live.tokens, live.step, live.met, live.constraints)
        best, tokens = allocation.add_wanted(best, tokens, logits.ranked, more)
    is_first = jnp.arange(best.shape[2]) == 0
    end = jnp.where(is_first[None, None], logits.own[:, :, eos, None], -jnp.inf)
    must_end = live.must_end[:, None, None]
    best, tokens = jnp.where(must_end, end, best), jnp.where(must_end, eos, tokens)

    offset_BR1 = (live.scores - logits.log_z)[:, :, None]
    ranks = jnp.maximum(best + offset_BR1, NEGATIVE).reshape(B, -1)
    flat = tokens.reshape(B, -1)
    if live.met is None:
        ranks, where = jax.lax.top_k(ranks, 2 * R)
        may_end, met = ranks > NEGATIVE / 2, None
    else:
        where, met, may_end = allocation.allocate(
            ranks, flat, 2 * R, live.tokens, live.step, live.met, live.constraints,
            must_end_B=live.must_end, has_finished_B=live.has_finished, eos=eos,
            least=NEGATIVE / 2,
        )  # fmt: skip
        ranks = jnp.take_along_axis(ranks, where, axis=1)

    def gathered(logits_BRV: jax.Array, offset_BR: jax.Array) -> jax.Array:
        values = jnp.take_along_axis(logits_BRV, tokens, axis=2) + offset_BR[:, :, None]
        return jnp.take_along_axis(values.reshape(B, -1), where, axis=1)

    scores = ranks
    if logits.ranked is not logits.allowed:
        chosen = jnp.where(must_end, logits.own, logits.allowed)
        scores = jnp.maximum(gathered(chosen, live.scores - logits.log_z), NEGATIVE)
    log_probs = scores
    if logits.ranked is not logits.own:
        log_probs = gathered(logits.own, live.log_probs - logits.log_z)
    parents = (where // best.shape[2]).astype(jnp.int32)
    tokens = jnp.take_along_axis(flat, where, axis=1)
    return Candidates(log_probs, scores, parents, tokens, may_end, met)


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
