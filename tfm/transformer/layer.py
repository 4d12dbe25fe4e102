"""One layer of the encoder or the decoder, and a stack of them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm import layers
from tfm.attention import KeyValue
from tfm.params import Tree, unstack
from tfm.sharding import NO_MESH, Layout
from tfm.transformer.attention import Look, Memory, cross_attention, self_attention
from tfm.transformer.config import Config
from tfm.transformer.context import Sight


class Looks(NamedTuple):
    """Where a layer looked; ``cross`` is ``None`` in the encoder."""

    own: Look
    cross: Look | None


def layer(
    params: Tree,
    x_BTD: jax.Array,
    c: Config,
    *,
    sight: Sight,
    remember: Callable[[KeyValue], Memory] = lambda kv: kv,
    cross: KeyValue | None = None,
    cross_sight: Sight | None = None,
    key: jax.Array | None = None,
    layout: Layout = NO_MESH,
) -> tuple[jax.Array, Looks]:
    """One layer: self-attention, in the decoder cross-attention, feed-forward.

    Args:
      sight: whom self-attention may look at.
      remember: what self-attention's fresh keys and values become before they are looked up: with
        a cache, all those so far.
      cross, cross_sight: the source's keys and values, and which of them a query may look at.
      key: of dropout; ``None`` is inference.
      layout: the mesh that activations are spread over, if any.

    Returns:
      x [B,T,D], and where it looked.
    """
    keys = layers.split(key, 6)
    alpha = 1.0
    if c.norm_placement == "deepnorm":
        side = "encoder" if cross is None else "decoder"
        alpha = layers.deepnorm(c.encoder_layers, c.decoder_layers)[side].alpha

    def residual(name: str, x_BTD: jax.Array, sublayer: Callable, key: jax.Array | None) -> Any:
        x_BTD, looked = layers.residual(
            params[name],
            x_BTD,
            sublayer,
            c.norm_placement,
            alpha=alpha,
            dropout_rate=c.dropout,
            key=key,
        )
        return layout.constrain(x_BTD, "batch", "length", None), looked

    def own(x: jax.Array) -> tuple[jax.Array, Look]:
        return self_attention(params["self"], x, c, sight, remember, keys[0], layout)

    def consult(x: jax.Array) -> tuple[jax.Array, Look]:
        return cross_attention(params["cross"], x, cross, c, cross_sight, keys[2], layout)

    def feed_forward(x: jax.Array) -> tuple[jax.Array, None]:
        rate = c.activation_dropout
        y = layers.feed_forward(params["ff"], x, c.activation, dropout_rate=rate, key=keys[4])
        return y, None

    x_BTD, looked = residual("self_norm", x_BTD, own, keys[1])
    consulted = None
    if cross is not None:
        x_BTD, consulted = residual("cross_norm", x_BTD, consult, keys[3])
    x_BTD, _ = residual("ff_norm", x_BTD, feed_forward, keys[5])
    return x_BTD, Looks(looked, consulted)


def run_layers(
    block: Callable[[Tree, jax.Array, jax.Array | None], jax.Array],
    stacked: Tree,
    depth: int,
    x_BTD: jax.Array,
    c: Config,
    key: jax.Array | None,
) -> jax.Array:
    """Applies ``block(params, x, key)`` layer by layer: a scan, or a plain loop if unroll is 0."""
    if c.remat != "none":
        policies = jax.checkpoint_policies
        policy = policies.dots_with_no_batch_dims_saveable if c.remat == "dots" else None
        block = jax.checkpoint(block, policy=policy)
    keys = None if key is None else jnp.stack(layers.split(key, depth))
    if c.unroll == 0:
        for i, params in enumerate(unstack(stacked, depth)):
            x_BTD = block(params, x_BTD, None if keys is None else keys[i])
        return x_BTD
    x_BTD, _ = jax.lax.scan(
        lambda x, layer: (block(layer[0], x, layer[1]), None),
        x_BTD,
        (stacked, keys),
        unroll=c.unroll,
    )
    return x_BTD


def final_norm(params: Tree, x_BTD: jax.Array) -> jax.Array:
    """The norm that a pre-norm stack ends with; nothing in a post-norm one."""
    return layers.norm(params["norm"], x_BTD) if "norm" in params else x_BTD
