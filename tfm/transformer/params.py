"""The parameters of the whole model, declared."""

import dataclasses
from typing import Literal

import jax

from tfm import attention, embeddings, layers
from tfm.attention import additive
from tfm.params import Initializer, Param, Tree, is_param, stack, zeros
from tfm.transformer.config import Architecture, has_final_norm, head_width, table_names
from tfm.transformer.validate import validate
from tfm.values import Values

Side = Literal["encoder", "decoder"]


def declare(arch: Architecture) -> Tree:
    """The parameters of the whole model: a nested dict of ``Param``.

    Raises:
      ValueError: sizes or variants that do not go together; see ``validate``.
    """
    Values("declare").instance(Architecture, arch=arch)
    validate(arch)
    vocab = dict(zip(table_names(arch), (arch.source_vocab, *[arch.target_vocab] * 2), strict=True))
    return {
        "tables": {n: embeddings.embedding_params(v, arch.d_model) for n, v in vocab.items()},
        "encoder": _side(arch, "encoder", arch.encoder_layers),
        "decoder": _side(arch, "decoder", arch.decoder_layers),
    }


def _side(arch: Architecture, name: Side, depth: int) -> Tree:
    """The encoder or the decoder: a stack of layers, and what they share."""
    layer = declare_layer(arch, name)
    if arch.norm_placement == "deepnorm":
        constants = layers.deepnorm(arch.encoder_layers, arch.decoder_layers)
        layer = _scale_init(layer, constants[name].beta)
    tree = {"layers": stack(layer, depth)}
    positions = arch.positions.side_params(arch.d_model, arch.heads)
    if positions is not None:
        tree["positions"] = positions
    if has_final_norm(arch):
        tree["norm"] = layers.norm_params(arch.d_model, arch.norm)
    if arch.embedding_norm:
        tree["embedding_norm"] = layers.norm_params(arch.d_model, arch.norm)
    if arch.output_bias and name == "decoder":
        tree["output_bias"] = Param((arch.target_vocab,), ("vocab",), zeros)
    return tree


def declare_layer(arch: Architecture, side: Side) -> Tree:
    """The parameters of one layer of the encoder or the decoder."""
    norm = layers.norm_params(arch.d_model, arch.norm)
    tree = {
        "self": _attention(arch, arch.attention) | _relative(arch), "self_norm": norm,
        "ff": layers.feed_forward_params(
            arch.d_model, arch.d_ff, arch.activation, arch.ff_bias
        ),
        "ff_norm": norm,
    }  # fmt: skip
    if side == "decoder":
        tree |= {"cross": _attention(arch, arch.cross_attention), "cross_norm": norm}
    return tree


def _attention(arch: Architecture, variant: str) -> Tree:
    heads, head_dim = (arch.heads, arch.kv_heads or arch.heads), head_width(arch)
    tree = attention.attention_params(arch.d_model, *heads, head_dim, arch.bias, arch.qk_norm)
    if variant == "additive":
        tree["score"] = additive.additive_params(arch.heads, head_dim)
    return tree


def _relative(arch: Architecture) -> Tree:
    """What the position scheme has in every layer."""
    tree = arch.positions.layer_params(arch.d_model, arch.heads, head_width(arch))
    return {} if tree is None else {"relative": tree}


def _scale_init(layer: Tree, beta: float) -> Tree:
    """DeepNorm's initialization: β times values, attention outputs, feed-forward (Wang 2022)."""

    def scale(path: tuple, p: Param) -> Param:
        block, *inside = [k.key for k in path]
        attends = block in ("self", "cross") and inside in (["v", "w"], ["out", "w"])
        if attends or (block == "ff" and len(p.shape) == 2):
            return dataclasses.replace(p, init=_scaled(p.init, beta))
        return p

    return jax.tree_util.tree_map_with_path(scale, layer, is_leaf=is_param)


def _scaled(init: Initializer, factor: float) -> Initializer:
    return lambda key, shape, dtype: factor * init(key, shape, dtype)
