"""T5 and its version 1.1, Flan, mT5, MADLAD: relative biases, RMSNorm, unscaled attention."""

from collections.abc import Mapping
from typing import Any

from tfm.interop.huggingface import common
from tfm.layers import Activation
from tfm.positions import T5

_GATED: dict[str, Activation] = {
    "gated-gelu": "geglu",
    "gated-gelu_new": "geglu",
    "gated-silu": "swiglu",
    "gated-swish": "swiglu",
    "gated-relu": "reglu",
}


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json → fields of the architecture; version 1.0 scales the decoder's output."""
    scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings") is not False)
    return _fields(config, scaled)


def fields_mt5(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same of mT5, which scales nothing."""
    return _fields(config, False)


def _fields(config: Mapping[str, Any], scaled: bool) -> dict[str, Any]:
    d_model, rate = common.number(config, "d_model"), float(config.get("dropout_rate", 0.0))
    kind = config.get("feed_forward_proj", "relu")
    if kind not in _GATED and kind not in common.ACTIVATIONS:
        known = ", ".join([*_GATED, *common.ACTIVATIONS])
        raise ValueError(f"config.json: feed_forward_proj {kind!r} is not one of {known}")
    layers = common.number(config, "num_layers")
    return {
        "d_model": d_model,
        "heads": common.number(config, "num_heads"),
        "head_dim": common.number(config, "d_kv"),
        "d_ff": common.number(config, "d_ff"),
        "encoder_layers": layers,
        "decoder_layers": config.get("num_decoder_layers") or layers,
        "positions": T5(
            common.number(config, "relative_attention_num_buckets"),
            config.get("relative_attention_max_distance", 128),
        ),
        "norm": "rms",
        "norm_placement": "pre",
        "norm_epsilon": float(config.get("layer_norm_epsilon", 1e-6)),
        "activation": _GATED.get(kind) or common.ACTIVATIONS[kind],
        "bias": False,
        "ff_bias": False,
        "embedding_scale": 1.0,
        "attention_scale": 1.0,
        "output_scale": d_model**-0.5 if scaled else 1.0,
        "output_bias": False,
        "dropout": rate,
        "attention_dropout": rate,
        "activation_dropout": rate,
    }
