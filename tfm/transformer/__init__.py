"""The encoder-decoder Transformer: configuration, parameters, encode, decode, and one layer."""

from tfm.transformer.attention import Look
from tfm.transformer.config import (
    PRESETS,
    ROTARY,
    Config,
    Embeddings,
    compute_dtype,
    head_width,
    on_any_device,
    table_names,
)
from tfm.transformer.context import Sight, across, own_row, step
from tfm.transformer.forward import decode, embed_tokens, encode, forward, output_table
from tfm.transformer.kernels import computed, implementation
from tfm.transformer.layer import Looks, final_norm, layer
from tfm.transformer.params import declare
from tfm.transformer.validate import check

__all__ = [
    "PRESETS",
    "ROTARY",
    "Config",
    "Embeddings",
    "Look",
    "Looks",
    "Sight",
    "across",
    "check",
    "compute_dtype",
    "computed",
    "declare",
    "decode",
    "embed_tokens",
    "encode",
    "final_norm",
    "forward",
    "head_width",
    "implementation",
    "layer",
    "on_any_device",
    "output_table",
    "own_row",
    "step",
    "table_names",
]
