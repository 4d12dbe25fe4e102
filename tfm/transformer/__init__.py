"""The encoder-decoder Transformer: architecture, parameters, encode, decode, and one layer."""

from tfm.transformer.attention import AttentionOutput, cross_attention, self_attention
from tfm.transformer.batch import Batch, single_sentences
from tfm.transformer.cache import Cache, KVCache
from tfm.transformer.config import (
    PRESETS,
    Architecture,
    Execution,
    compute_dtype,
    embedding_scale,
    has_final_norm,
    head_width,
    table_names,
)
from tfm.transformer.context import AttentionContext, cross_context, self_context, step_context
from tfm.transformer.forward import (
    ForwardActivations,
    activations,
    decode,
    embed_tokens,
    encode,
    forward,
    logits,
    output_bias,
    output_table,
)
from tfm.transformer.incremental import (
    decode_step,
    inference_layout,
    inference_params,
    init_cache,
)
from tfm.transformer.layer import LayerOutput, final_norm, layer
from tfm.transformer.params import declare
from tfm.transformer.scores import Scores
from tfm.transformer.validate import validate

__all__ = [
    "PRESETS",
    "Architecture",
    "AttentionContext",
    "AttentionOutput",
    "Batch",
    "Cache",
    "Execution",
    "ForwardActivations",
    "KVCache",
    "LayerOutput",
    "Scores",
    "activations",
    "compute_dtype",
    "cross_attention",
    "cross_context",
    "declare",
    "decode",
    "decode_step",
    "embed_tokens",
    "embedding_scale",
    "encode",
    "final_norm",
    "forward",
    "has_final_norm",
    "head_width",
    "inference_layout",
    "inference_params",
    "init_cache",
    "layer",
    "logits",
    "output_bias",
    "output_table",
    "self_attention",
    "self_context",
    "single_sentences",
    "step_context",
    "table_names",
    "validate",
]
