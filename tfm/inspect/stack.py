"""The layers of one side, with what their attention computed on the way."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from tfm import attention, layers, masks, transformer
from tfm.attention import additive, linear
from tfm.params import Tree
from tfm.sharding import NO_MESH
from tfm.transformer import Sight
from tfm.transformer import attention as attending


@flax.struct.dataclass
class Attention:
    """What one kind of attention computed, in L layers and N heads.

    Attributes:
      products_BLNTS: q·k as the projections give them, positions apart; in additive attention
        w·tanh(q + k), in linear attention φ(q)·φ(k).
      added_BLNTS: what a relative position scheme adds to the scaled scores.
      scores_BLNTS: what the softmax sees, the mask apart.
      weights_BLNTS: what the values are weighted with.
      mask_BTS: True = may attend.
    """

    products_BLNTS: jax.Array
    added_BLNTS: jax.Array
    scores_BLNTS: jax.Array
    weights_BLNTS: jax.Array
    mask_BTS: jax.Array


def own_row(
    side: Tree, c: transformer.Config, segments_BT: jax.Array, places_BT: jax.Array, causal: bool
) -> Sight:
    """``transformer.own_row`` with one mask for the whole row, in local attention too."""
    if c.attention != "local":
        return transformer.own_row(side, c, segments_BT, places_BT, causal)
    sight = transformer.own_row(side, as_softmax(c), segments_BT, places_BT, causal)
    T = segments_BT.shape[1]
    return sight._replace(mask=sight.mask & masks.window(T, T, c.window))


def as_softmax(c: transformer.Config) -> transformer.Config:
    """Local attention as softmax attention under a mask, which keeps its weights."""
    return dataclasses.replace(c, attention="softmax") if c.attention == "local" else c


def run_stack(
    side: Tree,
    c: transformer.Config,
    x_BTD: jax.Array,
    sight: Sight,
    memory_BSD: jax.Array | None = None,
    cross_sight: Sight | None = None,
) -> tuple[jax.Array, dict]:
    """All layers of one side and its last norm; what they kept has B and L in front."""
    c, first_B1T = as_softmax(c), _length(x_BTD)[:, None]
    x_BTD, kept = jax.lax.scan(
        lambda x, p: _layer(p, x, c, sight, memory_BSD, cross_sight), x_BTD, side["layers"]
    )
    kept = jax.tree.map(lambda x_LB: x_LB.swapaxes(0, 1), kept)
    B, L, P, T = kept["norms"].shape
    kept["norms"] = jnp.concatenate([first_B1T, kept["norms"].reshape(B, L * P, T)], axis=1)
    kept["self"] = Attention(*kept["self"], mask_BTS=sight.mask[:, 0])
    if cross_sight is not None:
        kept["cross"] = Attention(*kept["cross"], mask_BTS=cross_sight.mask[:, 0])
    return transformer.final_norm(side, x_BTD), kept


def _layer(
    params: Tree,
    x_BTD: jax.Array,
    c: transformer.Config,
    sight: Sight,
    memory_BSD: jax.Array | None,
    cross_sight: Sight | None,
) -> tuple[jax.Array, dict]:
    """``transformer.layer`` with what its sublayers computed."""
    kept, norms, alpha = {}, [], 1.0
    if c.norm_placement == "deepnorm":
        name = "encoder" if memory_BSD is None else "decoder"
        alpha = layers.deepnorm(c.encoder_layers, c.decoder_layers)[name].alpha

    def own(x: jax.Array) -> tuple[jax.Array, None]:
        p = params["self"]
        out, look = attending.self_attention(p, x, c, sight, lambda kv: kv, None, NO_MESH)
        kept["self"] = _scores(p, x, x, look.weights, c.attention, c.soft_cap, sight)
        kept["one_matrix"] = _products(*_heads(p, "q", "q", x))
        kept["two_matrices"] = _products(*_heads(p, "q", "k", x))
        return out, None

    def consult(x: jax.Array) -> tuple[jax.Array, None]:
        p = params["cross"]
        kv = attention.keys_values(p, memory_BSD)
        out, look = attending.cross_attention(p, x, kv, c, cross_sight, None, NO_MESH)
        kind = c.cross_attention
        kept["cross"] = _scores(p, x, memory_BSD, look.weights, kind, c.soft_cap, cross_sight)
        return out, None

    def feed_forward(x: jax.Array) -> tuple[jax.Array, None]:
        return layers.feed_forward(params["ff"], x, c.activation), None

    sublayers = {"self_norm": own, "cross_norm": consult, "ff_norm": feed_forward}
    for name in sublayers if memory_BSD is not None else ("self_norm", "ff_norm"):
        x_BTD, _ = layers.residual(
            params[name], x_BTD, sublayers[name], c.norm_placement, alpha=alpha
        )
        norms.append(_length(x_BTD))
    return x_BTD, kept | {"norms": jnp.stack(norms, axis=1)}


def _scores(
    params: Tree,
    x_BTD: jax.Array,
    memory_BSD: jax.Array,
    weights_BNTS: jax.Array | None,
    kind: str,
    soft_cap: float,
    sight: Sight,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The first four fields of ``Attention``, of one layer."""
    q, k = attention.queries(params, x_BTD), attention.keys_values(params, memory_BSD).k
    nothing = jnp.zeros((q.shape[0], q.shape[1], q.shape[2], k.shape[2]))
    if kind == "linear":
        return _linear(q, k, sight, nothing)
    if kind == "additive":
        products, scale = additive.additive_scores(q, k, params["score"]), 1.0
        added = nothing
    else:
        products, scale = _products(q, k), q.shape[-1] ** -0.5
        turned = products if sight.turn is None else _products(sight.turn(q), sight.turn(k))
        added = turned - products
        scheme = attending.relative(params, sight)
        if scheme is not None:
            added += scheme.scores(q, k)
    added = added * scale + (0.0 if sight.bias is None else sight.bias)
    scores = products * scale + added
    scores = soft_cap * jnp.tanh(scores / soft_cap) if soft_cap else scores
    return products, added, scores, weights_BNTS


def _linear(
    q_BNTH: jax.Array, k_BKTH: jax.Array, sight: Sight, nothing_BNTT: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Linear attention weights values without a matrix: it shows when each is a class vector."""
    products = _products(linear.features(q_BNTH), linear.features(k_BKTH))
    B, K, T, _ = k_BKTH.shape
    classes_BKTT = jnp.broadcast_to(jnp.eye(T), (B, K, T, T))
    weights = linear.linear_heads_first(
        q_BNTH, k_BKTH, classes_BKTT, sight.segments[0], causal=sight.causal, turn=sight.turn
    )
    return products, nothing_BNTT, products, weights


def _heads(params: Tree, first: str, second: str, x_BTD: jax.Array) -> list[jax.Array]:
    """x times the matrices of two projections, without offsets: [B,N,T,H] each."""
    pairs = ({"q": {"w": params[name]["w"]}} for name in (first, second))
    return [attention.queries(p, x_BTD) for p in pairs]


def _products(q_BNTH: jax.Array, k_BKSH: jax.Array) -> jax.Array:
    """q·k of every query and key head: [B,N,T,S] float32, neither scaled nor masked."""
    k_BNSH = jnp.repeat(k_BKSH, q_BNTH.shape[1] // k_BKSH.shape[1], axis=1)
    return jnp.einsum("bnth,bnsh->bnts", q_BNTH, k_BNSH, preferred_element_type=jnp.float32)


def _length(x_BTD: jax.Array) -> jax.Array:
    return jnp.linalg.norm(x_BTD.astype(jnp.float32), axis=-1)
