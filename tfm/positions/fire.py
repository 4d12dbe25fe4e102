"""FIRE: a small network maps the distance, relative to the query's position, to a bias."""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp

from tfm.params import Param, Tree, like, normal, zeros
from tfm.positions.distances import Distances
from tfm.positions.scheme import Scheme
from tfm.ranges import Range
from tfm.shapes import Check
from tfm.values import Values


def fire_params(heads: int, hidden: int, threshold: float) -> Tree:
    """c, the threshold L, and the network's two layers; all layers of a side share them."""
    check = Values("fire_params")
    check.counts(heads=heads, hidden=hidden)
    check.positive(threshold=threshold)
    scalar = lambda value: Param((), (), jax.nn.initializers.constant(value))  # noqa: E731
    return {
        "c": scalar(0.1),
        "threshold": scalar(threshold),
        "w1": Param((1, hidden), ("position", "position"), normal(1.0)),
        "b1": Param((hidden,), ("position",), zeros),
        "w2": Param((hidden, heads), ("position", "heads"), normal(hidden**-0.5)),
        "b2": Param((heads,), ("heads",), zeros),
    }


def fire_bias(params: Tree, distances: Distances, positions_BT: jax.Array) -> jax.Array:
    """f(ψ(i - j) / ψ(max(i, L))), ψ(x) = log(c x + 1) (Li 2024, eq. 2 and 3): [B,N,T,S].

    f is a network of one hidden layer. The ratio is at most 1 at any length, so positions beyond
    those trained on are interpolated. Where j > i, in an encoder, the ratio is negative.

    Args:
      params: of ``fire_params``, float32.
      distances: j - i.
      positions_BT: i, the position of each query in its sentence.
    """
    Values("fire_bias").instance(Distances, distances=distances)
    check = Check("fire_bias", **distances.sizes())
    leaves = {"c": "", "threshold": "", "w1": "IF", "b1": "F", "w2": "FN", "b2": "N"}
    check.params(params, leaves, "fire_params")
    check.ints(positions_BT=positions_BT)
    psi = lambda x: jnp.log(jnp.abs(params["c"] * x) + 1.0)  # noqa: E731
    away_M = -jnp.asarray(distances.values_M, jnp.float32)  # i - j
    ratio_TS = distances.pick((jnp.sign(away_M) * psi(away_M))[None])
    scale_BT = psi(jnp.maximum(positions_BT, jnp.abs(params["threshold"])))
    ratio_BTS = ratio_TS[None] / (scale_BT[..., None] + 1e-6)
    up_BTSF = ratio_BTS[..., None] @ params["w1"]
    hidden_BTSF = jax.nn.relu(up_BTSF + like(params["b1"], up_BTSF))
    bias_BTSN = hidden_BTSF @ params["w2"]
    return jnp.moveaxis(bias_BTSN + like(params["b2"], bias_BTSN), -1, 1)


@dataclass(frozen=True)
class FIRE(Scheme):
    """A learned function of the distance over the query's position, a bias (Li 2024).

    Attributes:
      hidden: width of the network.
      threshold: the initial L: queries at positions before it share one scale.
    """

    hidden: Annotated[int, Range(least=1, most=2**12)] = 32
    threshold: Annotated[float, Range(above=0)] = 512.0

    acts_on = "bias"

    def side_params(self, d_model: int, heads: int) -> Tree:
        """See ``Scheme``."""
        return fire_params(heads, self.hidden, self.threshold)

    def bias(
        self,
        params: Tree,
        distances: Distances,
        positions_BT: jax.Array,
        *,
        heads: int,
        bidirectional: bool,
    ) -> jax.Array:
        """See ``Scheme``."""
        params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
        return fire_bias(params, distances, positions_BT)
