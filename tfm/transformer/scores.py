"""The scores of an attention, term by term: computed only for whoever wants to look at them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tfm import attention
from tfm.attention import additive, linear
from tfm.params import Tree
from tfm.transformer.config import Architecture
from tfm.transformer.context import AttentionContext


class Scores(NamedTuple):
    """What the softmax of one attention sees, and how it came about: [B,N,T,S] float32 each.

    Attributes:
      products: q·k as the projections give them, without positions; in additive attention
        w·tanh(q + k), in linear attention φ(q)·φ(k).
      added: what a relative position scheme adds to the scaled scores.
      scores: the sum, scaled and capped, before the mask.
    """

    products: jax.Array
    added: jax.Array
    scores: jax.Array


def attention_scores(
    params: Tree,
    q_BNTH: jax.Array,
    k_BKSH: jax.Array,
    arch: Architecture,
    context: AttentionContext,
) -> Scores:
    """The scores of queries and keys as they are before rotation."""
    variant = arch.cross_attention if context.kind == "cross" else arch.attention
    if variant == "linear":
        products = dot_products(linear.features(q_BNTH), linear.features(k_BKSH))
        return Scores(products, jnp.zeros_like(products), products)
    if variant == "additive":
        products, scale = additive.additive_scores(q_BNTH, k_BKSH, params["score"]), 1.0
    else:
        products, scale = dot_products(q_BNTH, k_BKSH), q_BNTH.shape[-1] ** -0.5
    added = jnp.zeros_like(products)
    if context.rotate is not None:
        added += dot_products(context.rotate(q_BNTH), context.rotate(k_BKSH)) - products
    if "relative" in params:
        relative = arch.positions.relative(params["relative"], context.distances)
        added += relative.scores(q_BNTH, k_BKSH)
    added = added * scale + (0.0 if context.bias is None else context.bias)
    scores = products * scale + added
    if arch.soft_cap:
        scores = arch.soft_cap * jnp.tanh(scores / arch.soft_cap)
    return Scores(products, added, scores)


def bilinear_scores(params: Tree, x_BTD: jax.Array, first: str, second: str) -> jax.Array:
    """x W₁ W₂ᵀ xᵀ for two projections ("q" and "k", or one twice), without biases: [B,N,T,T].

    With one matrix for both the score would be symmetric: this is why there are two.
    """
    heads = (attention.queries({"q": {"w": params[name]["w"]}}, x_BTD) for name in (first, second))
    return dot_products(*heads)


def dot_products(q_BNTH: jax.Array, k_BKSH: jax.Array) -> jax.Array:
    """q·k of every query and key head: [B,N,T,S] float32, neither scaled nor masked."""
    k_BNSH = jnp.repeat(k_BKSH, q_BNTH.shape[1] // k_BKSH.shape[1], axis=1)
    return jnp.einsum("bnth,bnsh->bnts", q_BNTH, k_BNSH, preferred_element_type=jnp.float32)
