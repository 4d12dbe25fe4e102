"""What a translation must hold, must not hold, and begins with, sentence by sentence.

All are arrays that go in with the batch, so that sentences with different constraints share one
compiled search. Ids are padded with 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tfm.decoding.types import recent


class Constraints(NamedTuple):
    """Constraints of B sentences; ``None`` where a batch has none of a kind.

    Attributes:
      required: [B,P,A,L], P phrases in any order, each by one of A variants of up to L tokens.
      inside: [B,P,A] bool, variants that must not follow a token of ``ends`` at once: they begin a
        word without a space before it, as after a quotation mark.
      forbidden: [B,X,L], sequences of tokens that are never completed.
      prefix: [B,P], the tokens that a translation begins with.
      joins: [V] bool, tokens that go on with a word: a phrase that one of them follows at once is
        not yet written, as "cat" is not in "catalogue".
      ends: [V] bool, tokens after which a word may go on.
    """

    required: jax.Array | None = None
    inside: jax.Array | None = None
    forbidden: jax.Array | None = None
    prefix: jax.Array | None = None
    joins: jax.Array | None = None
    ends: jax.Array | None = None


NONE = Constraints()


def exclude_forbidden(
    logits_BRV: jax.Array, tokens_BRT: jax.Array, step_B: jax.Array, forbidden_BXL: jax.Array
) -> jax.Array:
    """Excludes tokens that would complete a forbidden sequence."""
    B, R, V = logits_BRV.shape
    L = forbidden_BXL.shape[2]
    last_BRL, lengths_BX = recent(tokens_BRT, step_B, L), (forbidden_BXL != 0).sum(axis=2)
    ids_BRX = jnp.full((B, R, forbidden_BXL.shape[1]), V)
    for n in range(1, L + 1):  # sequences of n tokens whose first n - 1 are the newest
        begun_BRX = (last_BRL[:, :, None, L - n + 1 :] == forbidden_BXL[:, None, :, : n - 1]).all(
            axis=3
        )
        completes_BRX = begun_BRX & (lengths_BX == n)[:, None]
        ids_BRX = jnp.where(completes_BRX, forbidden_BXL[:, None, :, n - 1], ids_BRX)
    b, r = jnp.arange(B)[:, None, None], jnp.arange(R)[None, :, None]
    return logits_BRV.at[b, r, ids_BRX].set(-jnp.inf, mode="drop")


def follow_prefix(
    logits_BRV: jax.Array,
    own_BRV: jax.Array,
    tokens_BRT: jax.Array,
    step_B: jax.Array,
    prefix_BP: jax.Array,
    bias: float,
) -> jax.Array:
    """Leads a hypothesis along the prefix of its sentence.

    Args:
      logits_BRV: after all transforms; ``own_BRV`` those of the model, which the tokens of a
        prefix keep that is forced.
      bias: what a token of the prefix gains in a hypothesis that has followed it so far; 0 excludes
        all other tokens.
    """
    V, T = logits_BRV.shape[2], tokens_BRT.shape[2]
    P = min(prefix_BP.shape[1], T)
    next_B = jnp.take_along_axis(prefix_BP, step_B[:, None], axis=1, mode="fill", fill_value=0)
    is_next_BRV = (next_B == jnp.arange(V)[None])[:, None] & (next_B != 0)[:, :, None]
    if bias == 0:
        forced_BRV = jnp.where(is_next_BRV, own_BRV, -jnp.inf)
        return jnp.where((next_B != 0)[:, :, None], forced_BRV, logits_BRV)
    unwritten_BP = jnp.arange(P)[None] >= step_B[:, None]
    follows_BRP = (tokens_BRT[:, :, :P] == prefix_BP[:, None, :P]) | unwritten_BP[:, None]
    return logits_BRV + bias * (is_next_BRV & follows_BRP.all(axis=2)[:, :, None])


def prefix_left(constraints: Constraints, step_B: jax.Array) -> jax.Array | int:
    """How many tokens of a sentence's prefix are still to come: [B]."""
    if constraints.prefix is None:
        return 0
    return jnp.maximum((constraints.prefix != 0).sum(axis=1) - step_B, 0)


class Progress(NamedTuple):
    """How far hypotheses (or continuations of them), M a sentence, are with required phrases.

    Attributes:
      met: [B,M,P], phrases that are written.
      begun: [B,M,P,A], how many tokens of each variant the newest tokens are.
    """

    met: jax.Array
    begun: jax.Array


def begun(newest_BMW: jax.Array, constraints: Constraints) -> jax.Array:
    """How many tokens of each variant each hypothesis ends with: [B,M,P,A].

    Args:
      newest_BMW: at least L + 1 tokens, -1 before the first one.
    """
    ids_BPAL, W = constraints.required, newest_BMW.shape[2]
    assert ids_BPAL is not None
    lengths_BPA = (ids_BPAL != 0).sum(axis=3)
    count_BMPA = jnp.zeros((*newest_BMW.shape[:2], *lengths_BPA.shape[1:]), jnp.int32)
    for n in range(1, ids_BPAL.shape[3] + 1):
        same_BMPA = (lengths_BPA >= n)[:, None]
        for i in range(n):
            token_BM11 = newest_BMW[:, :, W - n + i, None, None]
            same_BMPA = same_BMPA & (token_BM11 == ids_BPAL[:, None, :, :, i])
        if constraints.inside is not None and constraints.ends is not None:
            before_BM = newest_BMW[:, :, W - n - 1]
            after_word_BM = (before_BM >= 0) & constraints.ends[before_BM]
            same_BMPA &= ~(constraints.inside[:, None] & after_word_BM[:, :, None, None])
        count_BMPA = jnp.where(same_BMPA, n, count_BMPA)
    return count_BMPA


def wanted(
    tokens_BRT: jax.Array, step_B: jax.Array, met_BRP: jax.Array, constraints: Constraints
) -> jax.Array:
    """The next token of every variant of the phrases that are not met: [B,R,P*A]; 0 if none."""
    ids_BPAL = constraints.required
    assert ids_BPAL is not None
    B, P, A, L = ids_BPAL.shape
    begun_BRPA = begun(recent(tokens_BRT, step_B, L + 1), constraints)
    ids_BRPAL = jnp.broadcast_to(ids_BPAL[:, None], (B, tokens_BRT.shape[1], P, A, L))
    next_BRPA = jnp.take_along_axis(
        ids_BRPAL, begun_BRPA[..., None], axis=4, mode="fill", fill_value=0
    )[..., 0]
    return jnp.where(met_BRP[..., None], 0, next_BRPA).reshape(B, -1, P * A)


def progress(
    tokens_BRT: jax.Array,
    step_B: jax.Array,
    met_BRP: jax.Array,
    parents_M: jax.Array,
    next_BM: jax.Array,
    constraints: Constraints,
) -> Progress:
    """The progress of continuations of hypotheses ``parents`` by one token each."""
    ids_BPAL = constraints.required
    assert ids_BPAL is not None
    newest_BRW = recent(tokens_BRT, step_B, ids_BPAL.shape[3] + 1)
    lengths_BPA = (ids_BPAL != 0).sum(axis=3)
    whole_BRPA = (begun(newest_BRW, constraints) == lengths_BPA[:, None]) & (lengths_BPA > 0)[
        :, None
    ]
    whole_BMP = whole_BRPA.any(axis=3)[:, parents_M]
    if constraints.joins is not None:
        whole_BMP &= ~constraints.joins[next_BM][:, :, None]
    extended_BMW = jnp.concatenate([newest_BRW[:, parents_M, 1:], next_BM[:, :, None]], axis=2)
    return Progress(met_BRP[:, parents_M] | whole_BMP, begun(extended_BMW, constraints))
