"""The parameters of the whole model, declared."""

import dataclasses

import jax

from tfm import attention, embeddings, layers, positions
from tfm.attention import additive
from tfm.params import Initializer, Param, Tree, is_param, stack
from tfm.transformer.config import Config, head_width, table_names
from tfm.transformer.validate import check


def declare(c: Config) -> Tree:
    """The parameters of the whole model.

    Raises:
      ValueError: sizes or variants that do not go together; see ``check``.
    """
    check(c)
    norm = layers.norm_params(c.d_model, c.norm)
    encoder_layer = {
        "self": _attention(c, c.attention) | _relative(c), "self_norm": norm,
        "ff": layers.feed_forward_params(c.d_model, c.d_ff, c.activation), "ff_norm": norm,
    }  # fmt: skip
    cross = {"cross": _attention(c, c.cross_attention), "cross_norm": norm}

    def side(name: str, layer: Tree, depth: int) -> Tree:
        if c.norm_placement == "deepnorm":
            layer = _shrunk(layer, layers.deepnorm(c.encoder_layers, c.decoder_layers)[name].beta)
        tree = {"layers": stack(layer, depth)}
        if c.positions == "learned":
            tree["positions"] = positions.learned_params(c.max_length, c.d_model)
        if c.positions == "t5":
            tree["positions"] = positions.t5_params(c.relative_buckets, c.d_model, c.heads)
        if c.norm_placement == "pre":
            tree["norm"] = norm
        return tree

    vocab = dict(zip(table_names(c), (c.source_vocab, *[c.target_vocab] * 2), strict=True))
    return {
        "tables": {n: embeddings.embedding_params(v, c.d_model) for n, v in vocab.items()},
        "encoder": side("encoder", encoder_layer, c.encoder_layers),
        "decoder": side("decoder", encoder_layer | cross, c.decoder_layers),
    }


def _attention(c: Config, variant: str) -> Tree:
    heads, head_dim = (c.heads, c.kv_heads or c.heads), head_width(c)
    tree = attention.attention_params(c.d_model, *heads, head_dim, c.bias, c.qk_norm)
    if variant == "additive":
        tree["score"] = additive.additive_params(c.heads, head_dim)
    return tree


def _relative(c: Config) -> Tree:
    """What a scheme keeps in every layer."""
    if c.positions == "shaw":
        return {"relative": positions.shaw_params(c.relative_clip, head_width(c))}
    if c.positions == "transformer_xl":
        return {"relative": positions.transformer_xl_params(c.d_model, c.heads, head_width(c))}
    return {}


def _shrunk(layer: Tree, beta: float) -> Tree:
    """DeepNorm's start: values, attention outputs and the feed-forward times β (Wang 2022)."""

    def shrink(path: tuple, p: Param) -> Param:
        block, *inside = [k.key for k in path]
        attends = block in ("self", "cross") and inside in (["v", "w"], ["out", "w"])
        if attends or (block == "ff" and len(p.shape) == 2):
            return dataclasses.replace(p, init=_scaled(p.init, beta))
        return p

    return jax.tree_util.tree_map_with_path(shrink, layer, is_leaf=is_param)


def _scaled(init: Initializer, factor: float) -> Initializer:
    return lambda key, shape, dtype: factor * init(key, shape, dtype)
