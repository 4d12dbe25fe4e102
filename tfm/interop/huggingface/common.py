"""What the configs of BART's relatives have in common."""

from collections.abc import Mapping
from typing import Any

from tfm.layers import Activation

ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu_exact",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "swish": "silu",
    "silu": "silu",
}
"""Names of Hugging Face → ours."""


def number(config: Mapping[str, Any], name: str) -> int:
    """A positive integer of a config.

    Raises:
      ValueError: it is missing or something else.
    """
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise ValueError(f"config.json: {name} is {value!r}; it must be a positive integer")
    return value


def activation(config: Mapping[str, Any], name: str) -> Activation:
    """The activation that a field names.

    Raises:
      ValueError: tfm has none of that name.
    """
    value = config.get(name, "relu" if name != "activation_function" else "gelu")
    if value not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"config.json: {name} {value!r} is not one of {known}")
    return ACTIVATIONS[value]


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes and rates of a config with BART's names.

    Raises:
      ValueError: the two sides have other numbers of heads or widths.
    """
    for name in ("attention_heads", "ffn_dim"):
        a, b = number(config, f"encoder_{name}"), number(config, f"decoder_{name}")
        if a != b:
            raise ValueError(
                f"config.json: encoder_{name} {a} and decoder_{name} {b} differ; the two sides of "
                "an architecture of tfm share them"
            )
    rate = lambda name: float(config.get(name, 0.0))  # noqa: E731
    return {
        "d_model": number(config, "d_model"),
        "heads": number(config, "encoder_attention_heads"),
        "d_ff": number(config, "encoder_ffn_dim"),
        "encoder_layers": number(config, "encoder_layers"),
        "decoder_layers": number(config, "decoder_layers"),
        "activation": activation(config, "activation_function"),
        "embedding_scale": 0.0 if config.get("scale_embedding", False) else 1.0,
        "dropout": rate("dropout"),
        "attention_dropout": rate("attention_dropout"),
        "activation_dropout": rate("activation_dropout"),
    }
