"""Relative positions that act through the query: Shaw's vectors and Transformer-XL's sinusoids.

Each is a few plain functions of arrays, and a scheme that binds parameters and distances to a
``Relative``, which ``attention.attend`` takes.
"""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp

from tfm.params import Param, Tree, normal, xavier, zeros
from tfm.positions.absolute import sinusoidal
from tfm.positions.distances import Distances
from tfm.positions.scheme import Scheme
from tfm.positions.terms import Relative
from tfm.ranges import Range
from tfm.shapes import Check
from tfm.values import Values


def shaw_params(clip: int, head_dim: int) -> Tree:
    """A key and a value vector for each distance -clip..clip, shared by the heads of a layer."""
    Values("shaw_params").counts(clip=clip, head_dim=head_dim)
    table = Param((2 * clip + 1, head_dim), ("position", "head_dim"), normal(head_dim**-0.5))
    return {"keys": table, "values": table}


def shaw_scores(q_BNTH: jax.Array, keys_LH: jax.Array, distances: Distances) -> jax.Array:
    """q · a^K of the clipped distance (Shaw 2018, eq. 4, its second term): [B,N,T,S] float32.

    Args:
      keys_LH: the vectors of the distances -c..c, L = 2c + 1.
    """
    check = _check_distances("shaw_scores", distances)
    check.floats(q_BNTH=q_BNTH, keys_LH=keys_LH)
    _check_odd(check, "keys_LH")
    keys_MH = _clipped(keys_LH, distances).astype(q_BNTH.dtype)
    by_distance = jnp.einsum("bnth,mh->bntm", q_BNTH, keys_MH, preferred_element_type=jnp.float32)
    return distances.pick(by_distance)


def shaw_values(weights_BNTS: jax.Array, values_LH: jax.Array, distances: Distances) -> jax.Array:
    """The weighted mean of a^V of the clipped distance (Shaw 2018, eq. 3, its second term).

    Returns:
      [B,N,T,H].
    """
    check = _check_distances("shaw_values", distances)
    check.floats(weights_BNTS=weights_BNTS, values_LH=values_LH)
    _check_odd(check, "values_LH")
    values_MH = _clipped(values_LH, distances).astype(weights_BNTS.dtype)
    return jnp.einsum("bntm,mh->bnth", distances.spread(weights_BNTS), values_MH)


def _check_distances(function: str, distances: Distances) -> Check:
    """A check that knows T and S from the distances."""
    check = Check(function)
    check.instance(Distances, distances=distances)
    return Check(function, **distances.sizes())


def _check_odd(check: Check, name: str) -> None:
    if not check.size("L") % 2:
        raise check.error(
            f"{name} has {check.size('L')} rows; it must have 2c + 1, one a distance -c..c"
        )


def _clipped(table_LH: jax.Array, distances: Distances) -> jax.Array:
    clip = table_LH.shape[0] // 2
    return table_LH[jnp.clip(distances.values_M, -clip, clip) + clip]


def transformer_xl_params(d_model: int, heads: int, head_dim: int) -> Tree:
    """W_kR, u and v, all a layer's own, as in the released models (untied)."""
    check = Values("transformer_xl_params")
    check.counts(2, d_model=d_model)
    check.counts(heads=heads, head_dim=head_dim)
    vector = Param((heads, head_dim), ("heads", "head_dim"), zeros)
    weight = Param((d_model, heads, head_dim), ("embed", "heads", "head_dim"), xavier(0, (1, 2)))
    return {"w": weight, "u": vector, "v": vector}


def transformer_xl_scores(
    params: Tree, q_BNTH: jax.Array, k_BKSH: jax.Array, distances: Distances
) -> jax.Array:
    """(q + v) · W R + u · k (Dai 2019, §3.3, terms b, c and d; ``attend`` has a): [B,N,T,S].

    R is the sinusoid of i - j, the query's position less the key's; it needs no longest length.
    """
    check = _check_distances("transformer_xl_scores", distances)
    check.floats(q_BNTH=q_BNTH, k_BKSH=k_BKSH)
    check.heads()
    leaves = {"w": "DNH", "u": "NH", "v": "NH"}
    check.params(params, leaves, "transformer_xl_params")
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


@dataclass(frozen=True)
class Shaw(Scheme):
    """Learned key and value vectors by distance, in every layer (Shaw 2018).

    Attributes:
      clip: farther distances share the vectors of this one.
    """

    clip: Annotated[int, Range(least=1, most=2**16)] = 16

    acts_on = "relative"

    def layer_params(self, d_model: int, heads: int, head_dim: int) -> Tree:
        """See ``Scheme``."""
        return shaw_params(self.clip, head_dim)

    def relative(self, params: Tree, distances: Distances) -> Relative:
        """See ``Scheme``."""
        return Relative(
            scores=lambda q, k: shaw_scores(q, params["keys"], distances),
            values=lambda weights: shaw_values(weights, params["values"], distances),
        )


@dataclass(frozen=True)
class TransformerXL(Scheme):
    """Sinusoids of the distance, projected in every layer, and two global biases (Dai 2019)."""

    acts_on = "relative"

    def problem(self, d_model: int, heads: int, head_dim: int) -> str | None:
        """See ``Scheme``."""
        if d_model % 2:
            return f"channels are used in pairs: d_model {d_model} must be even"
        return None

    def layer_params(self, d_model: int, heads: int, head_dim: int) -> Tree:
        """See ``Scheme``."""
        return transformer_xl_params(d_model, heads, head_dim)

    def relative(self, params: Tree, distances: Distances) -> Relative:
        """See ``Scheme``."""
        return Relative(scores=lambda q, k: transformer_xl_scores(params, q, k, distances))
