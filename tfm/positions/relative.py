"""Relative positions that act through the query: Shaw's vectors and Transformer-XL's sinusoids.

Each is two plain functions of arrays, and one that binds parameters and distances to a
``Relative``, which ``attend`` takes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tfm.params import Param, Tree, normal, xavier, zeros
from tfm.positions.absolute import sinusoidal
from tfm.positions.distances import Distances


class Relative(NamedTuple):
    """What a scheme adds to softmax((q kᵀ + scores) · scale) v + values.

    Attributes:
      scores: (q [B,N,T,H], k [B,K,S,H]) → [B,N,T,S].
      values: weights [B,N,T,S] → [B,N,T,H]; ``None`` adds nothing.
    """

    scores: Callable[[jax.Array, jax.Array], jax.Array]
    values: Callable[[jax.Array], jax.Array] | None = None


def shaw_params(clip: int, head_dim: int) -> Tree:
    """A key and a value vector for each distance -clip..clip, shared by the heads of a layer."""
    table = Param((2 * clip + 1, head_dim), ("position", "head_dim"), normal(head_dim**-0.5))
    return {"keys": table, "values": table}


def shaw_scores(q_BNTH: jax.Array, keys_LH: jax.Array, distances: Distances) -> jax.Array:
    """q · a^K of the clipped distance (Shaw 2018, eq. 4, its second term): [B,N,T,S] float32.

    Args:
      keys_LH: the vectors of the distances -c..c, L = 2c + 1.
    """
    keys_MH = _clipped(keys_LH, distances).astype(q_BNTH.dtype)
    by_distance = jnp.einsum("bnth,mh->bntm", q_BNTH, keys_MH, preferred_element_type=jnp.float32)
    return distances.pick(by_distance)


def shaw_values(weights_BNTS: jax.Array, values_LH: jax.Array, distances: Distances) -> jax.Array:
    """The weighted mean of a^V of the clipped distance (Shaw 2018, eq. 3, its second term).

    Returns:
      [B,N,T,H].
    """
    values_MH = _clipped(values_LH, distances).astype(weights_BNTS.dtype)
    return jnp.einsum("bntm,mh->bnth", distances.spread(weights_BNTS), values_MH)


def _clipped(table_LH: jax.Array, distances: Distances) -> jax.Array:
    clip = table_LH.shape[0] // 2
    return table_LH[jnp.clip(distances.values_M, -clip, clip) + clip]


def shaw(params: Tree, distances: Distances) -> Relative:
    """Shaw 2018, bound to ``shaw_params`` and distances."""
    return Relative(
        scores=lambda q, k: shaw_scores(q, params["keys"], distances),
        values=lambda weights: shaw_values(weights, params["values"], distances),
    )


def transformer_xl_params(d_model: int, heads: int, head_dim: int) -> Tree:
    """W_kR, u and v, all a layer's own, as in the released models (untied)."""
    vector = Param((heads, head_dim), ("heads", "head_dim"), zeros)
    weight = Param((d_model, heads, head_dim), ("embed", "heads", "head_dim"), xavier(0, (1, 2)))
    return {"w": weight, "u": vector, "v": vector}


def transformer_xl_scores(
    params: Tree, q_BNTH: jax.Array, k_BKSH: jax.Array, distances: Distances
) -> jax.Array:
    """(q + v) · W R + u · k (Dai 2019, §3.3, terms b, c and d; ``attend`` has a): [B,N,T,S].

    R is the sinusoid of the distance backwards, i - j: any length, and the future too.
    """
    (B, N, _, _), (K, S) = q_BNTH.shape, k_BKSH.shape[1:3]
    w_DNH, u_NH, v_NH = (params[name].astype(q_BNTH.dtype) for name in "wuv")
    r_MD = sinusoidal(-jnp.asarray(distances.values_M), w_DNH.shape[0]).astype(q_BNTH.dtype)
    r_MNH = jnp.einsum("md,dnh->mnh", r_MD, w_DNH)
    by_distance = jnp.einsum(
        "bnth,mnh->bntm", q_BNTH + v_NH[None, :, None], r_MNH, preferred_element_type=jnp.float32
    )
    u_KGH = u_NH.reshape(K, N // K, -1)
    by_key = jnp.einsum("kgh,bksh->bkgs", u_KGH, k_BKSH, preferred_element_type=jnp.float32)
    return distances.pick(by_distance) + by_key.reshape(B, N, 1, S)


def transformer_xl(params: Tree, distances: Distances) -> Relative:
    """Dai 2019, bound to ``transformer_xl_params`` and distances."""
    return Relative(scores=lambda q, k: transformer_xl_scores(params, q, k, distances))
