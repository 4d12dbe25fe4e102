"""What a model is, and how it is computed: two frozen dataclasses, and five sizes with names."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import jax
import jax.numpy as jnp

from tfm import layers, positions
from tfm.attention.kernels import Implementation
from tfm.embeddings import Lookup
from tfm.positions import Scheme, schemes
from tfm.ranges import Range
from tfm.values import Values

Dtype = Literal["auto", "float32", "bfloat16"]
Weights = Literal["auto", "bfloat16", "int8"]
Tie = Literal["none", "target-output", "source-target", "source-output", "all"]

Rate = Annotated[float, Range(least=0, most=0.999, note="0 is off")]
Size = Annotated[int, Range(least=1, most=2**24)]
BOS = 2  # the invariant of every vocabulary: pad, unk, bos and eos are 0 to 3
Id = Annotated[int, Range(least=0)]
Depth = Annotated[int, Range(least=1, most=1000)]  # as deep as DeepNet (Wang 2022)


@dataclass(frozen=True)
class Architecture:
    """What the weights mean; hashable, so it can be a static argument of ``jit``.

    Attributes:
      source_vocab, target_vocab: V on each side; 0 is filled in from the tokenizers.
      d_model: D. heads: N. kv_heads: K, 0 means N. head_dim: H, 0 means D / N. d_ff: F.
      positions: of self-attention, a scheme of ``positions.SCHEMES`` with its hyperparameters: as
        text "rotary" or "rotary:base=500,scaling=2", or as an instance such as
        ``positions.Rotary(base=500.0)``. Cross-attention has no positions.
      attention: of self-attention: softmax, local (within ``window``), additive or linear.
      cross_attention: softmax or additive.
      window: local: how many positions to either side are seen.
      qk_norm: RMSNorm on the queries and keys of every head.
      soft_cap: scores are kept within ± this by a tanh; 0 is off.
      norm_placement: pre (Xiong 2020), post (Vaswani 2017) or deepnorm (Wang 2022).
      norm_epsilon: added to the variance in every norm; 0 takes 1e-5 of LayerNorm, 1e-6 of RMSNorm.
      final_norm: a norm at the end of the encoder and of the decoder; None: with pre-norm.
      bias: whether attention projections have biases.
      ff_bias: whether the feed-forward has biases; None: unless its activation is gated.
      embedding_norm: a norm on the embedded tokens with their positions.
      embedding_scale: by which embedded tokens are multiplied; 0 takes sqrt(d_model).
      attention_scale: by which the products of queries and keys are multiplied; 0 takes
        1/sqrt(head_dim). Of softmax and local attention.
      output_scale: by which the decoder's output is multiplied before the output table scores it.
      output_bias: a number for every id that is added to its logit.
      decoder_start: the id whose embedding the decoder starts a sentence with; 2 is bos.
      closed_rows: ids of the target vocabulary that no text has, such as a bos that the decoder
        does not start with; the softmax leaves them out.
      unwritten: further ids that search never writes; the softmax has them.
      dropout: on embeddings and on every sublayer's output; the others on attention weights and
        inside the feed-forward.
      tie: which of the source, target and output tables are one.
    """

    source_vocab: Annotated[int, Range(least=0)] = 0
    target_vocab: Annotated[int, Range(least=0)] = 0
    d_model: Size = 256
    heads: Size = 4
    kv_heads: Annotated[int, Range(least=0, most=2**24, note="0 takes that of heads")] = 0
    head_dim: Annotated[int, Range(least=0, most=2**24, note="0 takes d_model / heads")] = 0
    d_ff: Size = 1024
    encoder_layers: Depth = 3
    decoder_layers: Depth = 3
    positions: Scheme = positions.Sinusoidal()
    attention: Literal["softmax", "local", "additive", "linear"] = "softmax"
    cross_attention: Literal["softmax", "additive"] = "softmax"
    window: Annotated[int, Range(least=1)] = 32
    qk_norm: bool = False
    soft_cap: Annotated[float, Range(least=1e-3, special=0, note="0 is off")] = 0.0
    norm: layers.Norm = "layer"
    norm_placement: layers.Placement = "pre"
    activation: layers.Activation = "relu"
    norm_epsilon: Annotated[
        float, Range(least=1e-12, most=0.1, special=0, note="0 takes 1e-5 or, of RMSNorm, 1e-6")
    ] = 0.0  # fmt: skip
    final_norm: bool | None = None
    bias: bool = True
    ff_bias: bool | None = None
    embedding_norm: bool = False
    embedding_scale: Annotated[
        float, Range(least=1e-6, most=1e6, special=0, note="0 takes sqrt(d_model)")
    ] = 0.0  # fmt: skip
    attention_scale: Annotated[
        float, Range(least=1e-6, most=1e6, special=0, note="0 takes 1/sqrt(head_dim)")
    ] = 0.0  # fmt: skip
    output_scale: Annotated[float, Range(least=1e-6, most=1e6)] = 1.0
    output_bias: bool = False
    decoder_start: Id = 2
    closed_rows: tuple[Id, ...] = ()
    unwritten: tuple[Id, ...] = ()
    dropout: Rate = 0.1
    attention_dropout: Rate = 0.0
    activation_dropout: Rate = 0.0
    tie: Tie = "target-output"

    def __post_init__(self) -> None:
        if isinstance(self.positions, str):
            object.__setattr__(self, "positions", schemes.parse(self.positions))


@dataclass(frozen=True)
class Execution:
    """How a model is computed: changes speed, memory and rounding, never what the weights mean.

    Attributes:
      implementation: of softmax attention in training: xla, cudnn (GPU), splash (TPU); auto picks
        by device and shape. Translating, scoring, validating and inspecting always use auto.
      lookup: of embeddings: gather, or the product with one-hot vectors.
      dtype: of activations; auto is bfloat16 on TPU and GPU, float32 on the CPU. In training
        parameters, softmax, norms and loss are float32 always.
      weights: of matrix products when translating, scoring and validating: auto keeps them as
        activations are, bfloat16 and int8 (one scale an output; activations are rounded likewise)
        take less memory. Beside float32 activations, on a CPU, bfloat16 is the fastest where the
        CPU has instructions for it, and int8 is faster than float32 for large matrices.
      unroll: layers a scan step holds; 0 unrolls them all (compiles longer, runs faster on CPU).
      remat: what the backward pass recomputes: nothing, all but matrix products, or all.
    """

    implementation: Implementation = "auto"
    lookup: Lookup = "gather"
    dtype: Dtype = "auto"
    weights: Weights = "auto"
    unroll: Annotated[int, Range(least=0, note="0 unrolls all layers")] = 0
    remat: Literal["none", "dots", "full"] = "none"


PRESETS: dict[str, Architecture] = {
    "tiny": Architecture(d_model=128, heads=4, d_ff=512, encoder_layers=2, decoder_layers=2),
    "small": Architecture(),
    "base": Architecture(d_model=512, heads=8, d_ff=2048, encoder_layers=6, decoder_layers=6),
    "fast": Architecture(d_model=512, heads=8, d_ff=2048, encoder_layers=12, decoder_layers=1),
    "big": Architecture(
        d_model=1024, heads=16, d_ff=4096, encoder_layers=6, decoder_layers=6, dropout=0.3
    ),
    "xxl": Architecture(
        d_model=4096, heads=64, d_ff=10240, encoder_layers=24, decoder_layers=24,
        positions=positions.Rotary(), norm="rms", activation="swiglu", bias=False,
    ),
}  # fmt: skip
"""base and big are the two of Vaswani 2017, table 3; tiny and small are for one CPU.
fast is base with the decoder's work moved into the encoder, which sees a sentence once and not once
a token (Kasai 2021, deep encoder and shallow decoder).

xxl has the sizes of mT5-XXL and T5 1.1 XXL (Xue 2021), with rotary positions in place of their
relative biases and SwiGLU of their gated GELU: 10.9 billion parameters besides the tables. Of base,
big and xxl compile a scan over layers: ``Execution(unroll=1)``.
"""


def table_names(arch: Architecture) -> tuple[str, str, str]:
    """The names under which the source, target and output tables are kept."""
    check = Values("table_names")
    check.instance(Architecture, arch=arch)
    check.choice(get_args(Tie), **{"arch.tie": arch.tie})
    return {
        "none": ("source", "target", "output"),
        "target-output": ("source", "target", "target"),
        "source-target": ("source", "source", "output"),
        "source-output": ("source", "target", "source"),
        "all": ("source", "source", "source"),
    }[arch.tie]


def head_width(arch: Architecture) -> int:
    """H."""
    Values("head_width").instance(Architecture, arch=arch)
    return arch.head_dim or arch.d_model // arch.heads


def embedding_scale(arch: Architecture) -> float:
    """By which embedded tokens are multiplied."""
    Values("embedding_scale").instance(Architecture, arch=arch)
    return arch.embedding_scale or arch.d_model**0.5


def has_final_norm(arch: Architecture) -> bool:
    """Whether the encoder and the decoder end with a norm."""
    Values("has_final_norm").instance(Architecture, arch=arch)
    return arch.norm_placement == "pre" if arch.final_norm is None else arch.final_norm


def compute_dtype(execution: Execution) -> jnp.dtype:
    """The dtype of activations on the default device."""
    check = Values("compute_dtype")
    check.instance(Execution, execution=execution)
    check.choice(get_args(Dtype), **{"execution.dtype": execution.dtype})
    if execution.dtype == "auto":
        return jnp.dtype("float32" if jax.default_backend() == "cpu" else "bfloat16")
    return jnp.dtype(execution.dtype)
