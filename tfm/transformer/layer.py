"""One layer of the encoder or the decoder, and a stack of them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm import layers
from tfm.attention import KeyValue
from tfm.linear import saveable
from tfm.params import Tree, unstack
from tfm.shapes import Check
from tfm.sharding import NO_MESH, Layout
from tfm.transformer import arguments
from tfm.transformer.attention import AttentionOutput, cross_attention, self_attention
from tfm.transformer.cache import LayerCache
from tfm.transformer.config import Architecture, Execution
from tfm.transformer.context import AttentionContext, check_context


class LayerOutput(NamedTuple):
    """What a layer gives.

    Attributes:
      x: [B,T,D], the input of the next layer.
      self_attention: its output; ``cache`` is the layer's KV cache after a decoding step.
      cross_attention: ``None`` in the encoder.
      attention_input: [B,T,D], what self-attention read: x after pre-norm.
      residual: [B,T,D], the residual stream after self-attention, after cross-attention (in the
        decoder) and after the feed-forward.
    """

    x: jax.Array
    self_attention: AttentionOutput
    cross_attention: AttentionOutput | None
    attention_input: jax.Array
    residual: tuple[jax.Array, ...]


def layer(
    params: Tree,
    x_BTD: jax.Array,
    arch: Architecture,
    context: AttentionContext,
    cross_kv: KeyValue | None = None,
    cross_context: AttentionContext | None = None,
    *,
    cache: LayerCache | None = None,
    key: jax.Array | None = None,
    layout: Layout = NO_MESH,
) -> LayerOutput:
    """One layer: self-attention, in the decoder cross-attention, feed-forward.

    Args:
      context: of self-attention.
      cross_kv, cross_context: keys and values of the source, and the context of cross-attention; an
        encoder layer has neither.
      cache: of a decoding step: the layer's KV cache.
      key: of dropout; ``None`` is inference.
      layout: the mesh that activations are sharded over, if any.
    """
    decoder = cross_kv is not None
    _check(params, x_BTD, arch, context, cross_kv, cross_context, key, layout)
    keys = layers.split(key, 6)
    placement, alpha, epsilon = arch.norm_placement, _alpha(arch, decoder), arch.norm_epsilon
    rate, inner_rate = (arch.dropout, arch.activation_dropout) if key is not None else (0.0, 0.0)

    def add_norm(name: str, x: jax.Array, y: jax.Array, key: jax.Array | None) -> jax.Array:
        x = layers.add_norm(
            params[name], x, y, placement,
            alpha=alpha, epsilon=epsilon, dropout_rate=rate, key=key,
        )  # fmt: skip
        return layout.constrain(x, "batch", "length", None)

    h_BTD = layers.pre_norm(params["self_norm"], x_BTD, placement, epsilon)
    own = self_attention(
        params["self"], h_BTD, arch, context, cache=cache, key=keys[0], layout=layout
    )
    x_BTD = add_norm("self_norm", x_BTD, own.out, keys[1])
    attention_input, cross, residual = h_BTD, None, [x_BTD]

    if cross_kv is not None:
        h_BTD = layers.pre_norm(params["cross_norm"], x_BTD, placement, epsilon)
        cross = cross_attention(
            params["cross"], h_BTD, cross_kv, arch, cross_context, key=keys[2], layout=layout
        )
        x_BTD = add_norm("cross_norm", x_BTD, cross.out, keys[3])
        residual.append(x_BTD)

    h_BTD = layers.pre_norm(params["ff_norm"], x_BTD, placement, epsilon)
    y_BTD = layers.feed_forward(
        params["ff"], h_BTD, arch.activation, dropout_rate=inner_rate, key=keys[4]
    )
    x_BTD = add_norm("ff_norm", x_BTD, y_BTD, keys[5])
    return LayerOutput(x_BTD, own, cross, attention_input, (*residual, x_BTD))


def _check(
    params: Tree,
    x_BTD: jax.Array,
    arch: Architecture,
    context: AttentionContext,
    cross_kv: KeyValue | None,
    cross_context: AttentionContext | None,
    key: jax.Array | None,
    layout: Layout,
) -> None:
    check = arguments.check_call("layer", arch=arch, layout=layout)
    check.floats(x_BTD=x_BTD)
    check_context(check, context, ("self", "step"))
    check.sizes.pop("S", None)  # from here on the length of the source
    if (cross_kv is None) != (cross_context is None):
        raise check.error("cross_kv and cross_context belong together: pass both or neither")
    if cross_kv is not None:
        check.instance(KeyValue, cross_kv=cross_kv)
        check.floats("BKSH", **{"cross_kv.k": cross_kv.k, "cross_kv.v": cross_kv.v})
        check_context(check, cross_context, ("cross",), "cross_context")
    arguments.check_layer(check, params, arch, "encoder" if cross_kv is None else "decoder")
    check.optional_key(key)


def _alpha(arch: Architecture, decoder: bool) -> float:
    """The weight of the shortcut in DeepNorm."""
    if arch.norm_placement != "deepnorm":
        return 1.0
    constants = layers.deepnorm(arch.encoder_layers, arch.decoder_layers)
    return constants["decoder" if decoder else "encoder"].alpha


def run_layers(
    block: Callable[[Tree, jax.Array, jax.Array | None], tuple[jax.Array, Any]],
    layer_params: Tree,
    depth: int,
    x_BTD: jax.Array,
    key: jax.Array | None,
    execution: Execution,
) -> tuple[jax.Array, Any]:
    """Applies ``block(params, x, key) -> (x, kept)`` layer by layer.

    Args:
      layer_params: stacked on a first axis, or a list of one tree a layer.
      execution: ``unroll`` says whether to scan over stacked layers, ``remat`` what to recompute.

    Returns:
      x [B,T,D], and what ``block`` kept of every layer, stacked.
    """
    if execution.remat != "none":
        block = jax.checkpoint(block, policy=saveable if execution.remat == "dots" else None)
    keys = None if key is None else jnp.stack(layers.split(key, depth))
    if execution.unroll and not isinstance(layer_params, list):
        return jax.lax.scan(
            lambda x, layer: block(layer[0], x, layer[1]),
            x_BTD,
            (layer_params, keys),
            unroll=execution.unroll,
        )
    if not isinstance(layer_params, list):
        layer_params = unstack(layer_params, depth)
    kept = []
    for i, params in enumerate(layer_params):
        x_BTD, one = block(params, x_BTD, None if keys is None else keys[i])
        kept.append(one)
    return x_BTD, jax.tree.map(lambda *layer: jnp.stack(layer), *kept)


def final_norm(params: Tree, x_BTD: jax.Array, epsilon: float = 0.0) -> jax.Array:
    """The norm that a pre-norm stack ends with; a post-norm stack has none by default.

    Args:
      params: of the encoder or the decoder.
      epsilon: see ``layers.norm``.
    """
    check = Check("final_norm")
    check.instance(Mapping, params=params)
    check.floats(x_BTD=x_BTD)
    check.not_negative(epsilon=epsilon)
    if "norm" in params:
        check.params(params, {"norm/scale": "D", "norm/bias?": "D"}, "transformer.declare")
    return layers.norm(params["norm"], x_BTD, epsilon) if "norm" in params else x_BTD
