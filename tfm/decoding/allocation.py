"""Dynamic beam allocation: a beam divided among hypotheses that have met more or fewer constraints.

Post & Vilar 2018, vectorised as in Hu 2019. Hypotheses with equally many tokens of the required
phrases form a bank. Continuations are taken in turn: the best of every bank, of the fullest bank
first, then the second best of every bank, and so on; so one hypothesis after the other arrives in
the last bank, where all phrases are written, while the others go on as the model likes. A beam
should be larger than the number of tokens of the phrases, or little of it is left for the model.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tfm.decoding.constraints import Constraints, progress


class Allocation(NamedTuple):
    """The continuations taken of each sentence, C of them, in their order.

    Attributes:
      where: [B,C], their index among all.
      met: [B,C,P], the phrases that each has written.
      ends: [B,C], whether it may be finished if its token is eos: all phrases are written, or the
        sentence is at its limit, no hypothesis has all, and none has more.
    """

    where: jax.Array
    met: jax.Array
    ends: jax.Array


def add_wanted(
    best_BRK: jax.Array,
    tokens_BRK: jax.Array,
    ranked_BRV: jax.Array,
    wanted_BRQ: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The continuations of each hypothesis, with the wanted tokens that are not among them."""
    Q = wanted_BRQ.shape[2]
    values_BRQ = jnp.take_along_axis(ranked_BRV, wanted_BRQ, axis=2)
    known_BRQ = (wanted_BRQ[..., None] == tokens_BRK[:, :, None]).any(axis=3)
    earlier_QQ = jnp.tril(jnp.ones((Q, Q), bool), k=-1)[None, None]
    known_BRQ |= ((wanted_BRQ[..., None] == wanted_BRQ[:, :, None]) & earlier_QQ).any(axis=3)
    values_BRQ = jnp.where(known_BRQ | (wanted_BRQ == 0), -jnp.inf, values_BRQ)
    return (
        jnp.concatenate([best_BRK, values_BRQ], axis=2),
        jnp.concatenate([tokens_BRK, wanted_BRQ], axis=2),
    )


def allocate(
    ranks_BM: jax.Array,
    next_BM: jax.Array,
    count: int,
    tokens_BRT: jax.Array,
    step_B: jax.Array,
    met_BRP: jax.Array,
    constraints: Constraints,
    *,
    must_end_B: jax.Array,
    has_finished_B: jax.Array,
    eos: int,
    least: float,
) -> Allocation:
    """Takes ``count`` of the M continuations of a sentence, those of one hypothesis side by side.

    Args:
      ranks_BM: their scores, ``least`` or less where there is none.
      next_BM: their tokens.
      tokens_BRT, step_B, met_BRP: the hypotheses.
      has_finished_B: whether a finished hypothesis is there, which has all phrases.
    """
    M, R = ranks_BM.shape[1], tokens_BRT.shape[1]
    parents_M = jnp.arange(M) // (M // R)
    made = progress(tokens_BRT, step_B, met_BRP, parents_M, next_BM, constraints)
    assert constraints.required is not None
    worth_BP = (constraints.required != 0).sum(axis=3).max(axis=2)
    complete_BM = (made.met | (worth_BP == 0)[:, None]).all(axis=2)
    partial_BMP = jnp.minimum(made.begun.max(axis=3), worth_BP[:, None])
    bank_BM = (made.met * worth_BP[:, None]).sum(axis=2)
    bank_BM += jnp.where(made.met, 0, partial_BMP).max(axis=2)

    is_eos_BM = next_BM == eos
    exists_BM = (ranks_BM > least) & (~is_eos_BM | complete_BM | must_end_B[:, None])
    same_BMM = (bank_BM[:, :, None] == bank_BM[:, None]) & exists_BM[:, None]
    index_M = jnp.arange(M)
    before_BMM = (ranks_BM[:, None] > ranks_BM[:, :, None]) | (
        (ranks_BM[:, None] == ranks_BM[:, :, None]) & (index_M[None] < index_M[:, None])[None]
    )
    place_BM = (same_BMM & before_BMM).sum(axis=2)  # in its own bank, from 0
    banks_B = worth_BP.sum(axis=1)
    order_BM = place_BM * (banks_B + 1)[:, None] + banks_B[:, None] - bank_BM
    last = jnp.iinfo(jnp.int32).max
    _, where_BC = jax.lax.top_k(-jnp.where(exists_BM, order_BM, last), count)

    none_complete_B = ~has_finished_B & ~(exists_BM & complete_BM & is_eos_BM).any(axis=1)
    fullest_B = jnp.where(exists_BM, bank_BM, -1).max(axis=1)
    makeshift_BM = (must_end_B & none_complete_B)[:, None] & (bank_BM == fullest_B[:, None])
    ends_BM = exists_BM & (complete_BM | makeshift_BM)
    take = lambda x: jnp.take_along_axis(x, where_BC, axis=1)  # noqa: E731
    met_BCP = jnp.take_along_axis(made.met, where_BC[:, :, None], axis=1)
    return Allocation(where_BC, met_BCP, take(ends_BM))
