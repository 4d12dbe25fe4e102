"""The shape of a model: one frozen dataclass, and five sizes that have a name."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from tfm import layers
from tfm.attention.kernels import Implementation

Tie = Literal["none", "target-output", "source-target", "source-output", "all"]
Positions = Literal[
    "sinusoidal",
    "learned",
    "none",
    "shaw",
    "t5",
    "alibi",
    "rotary",
    "rotary_interleaved",
    "transformer_xl",
]
ROTARY = ("rotary", "rotary_interleaved")


@dataclass(frozen=True)
class Embeddings:
    """How the embedding tables start.

    Attributes:
      init: files of word vectors (``tfm embed``) that a fresh run's tables start from, piece by
        piece: one file for both languages, or one for each; empty draws them at random.
    """

    init: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """The shape of a model; hashable, so it can be a static argument of ``jit``.

    Attributes:
      source_vocab, target_vocab: V on each side; 0 is filled in from the tokenizers.
      d_model: D. heads: N. kv_heads: K, 0 means N. head_dim: H, 0 means D / N. d_ff: F.
      embeddings: how the tables start.
      positions: sinusoidal and learned are added to the input; the others act within
        self-attention. Cross-attention has none.
      max_length: rows of the learned position table, the one scheme with a longest sentence.
      relative_clip: shaw: farther distances count as this one.
      relative_buckets, relative_max_distance: t5: buckets, and where the last one begins.
      rotary_base: rotary: the longest wavelength is 2π times this.
      rotary_scaling: rotary: places are divided by it; 2 reads twice the trained length.
      attention: of self-attention: softmax, local (within ``window``), additive or linear.
      cross_attention: softmax or additive.
      window: local: how many places to either side are seen.
      qk_norm: RMSNorm on queries and keys, a head at a time.
      soft_cap: scores are kept within ± this by a tanh; 0 is off.
      implementation: of softmax attention in training: xla, cudnn (GPU), splash (TPU); auto picks
        by device and shape. Translating, scoring, validating and inspecting, on other devices and
        at other lengths, take auto where a kernel is named here.
      norm_placement: pre (Xiong 2020), post (Vaswani 2017) or deepnorm (Wang 2022).
      bias: whether attention projections have biases.
      dropout: on embeddings and on every sublayer's output; the others on attention weights and
        inside the feed-forward.
      tie: which of the source, target and output tables are one.
      lookup: gather, or the product with one-hot vectors.
      dtype: of activations; auto is bfloat16 on TPU and GPU, float32 on the CPU. Parameters,
        softmax, norms and loss are float32 always.
      unroll: layers a scan step holds; 0 unrolls them all (compiles longer, runs faster on CPU).
      remat: what the backward pass recomputes: nothing, all but matrix products, or all.
    """

    source_vocab: int = 0
    target_vocab: int = 0
    d_model: int = 256
    heads: int = 4
    kv_heads: int = 0
    head_dim: int = 0
    d_ff: int = 1024
    encoder_layers: int = 3
    decoder_layers: int = 3
    embeddings: Embeddings = Embeddings()
    positions: Positions = "sinusoidal"
    max_length: int = 512
    relative_clip: int = 16
    relative_buckets: int = 32
    relative_max_distance: int = 128
    rotary_base: float = 10_000.0
    rotary_scaling: float = 1.0
    attention: Literal["softmax", "local", "additive", "linear"] = "softmax"
    cross_attention: Literal["softmax", "additive"] = "softmax"
    window: int = 32
    qk_norm: bool = False
    soft_cap: float = 0.0
    implementation: Implementation = "auto"
    norm: layers.Norm = "layer"
    norm_placement: layers.Placement = "pre"
    activation: layers.Activation = "relu"
    bias: bool = True
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    tie: Tie = "target-output"
    lookup: Literal["gather", "one_hot"] = "gather"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    unroll: int = 0
    remat: Literal["none", "dots", "full"] = "none"


PRESETS: dict[str, Config] = {
    "tiny": Config(d_model=128, heads=4, d_ff=512, encoder_layers=2, decoder_layers=2),
    "small": Config(),
    "base": Config(d_model=512, heads=8, d_ff=2048, encoder_layers=6, decoder_layers=6, unroll=1),
    "big": Config(
        d_model=1024, heads=16, d_ff=4096, encoder_layers=6, decoder_layers=6, dropout=0.3, unroll=1
    ),
    "xxl": Config(
        d_model=4096, heads=64, d_ff=10240, encoder_layers=24, decoder_layers=24,
        positions="rotary", norm="rms", activation="swiglu", bias=False, unroll=1,
    ),
}  # fmt: skip
"""base and big are the two of Vaswani 2017, table 3; tiny and small are for one CPU.

xxl has the sizes of mT5-XXL and T5 1.1 XXL (Xue 2021), with rotary positions in place of their
relative biases and SwiGLU of their gated GELU: 10.9 billion parameters besides the tables.
"""


def table_names(c: Config) -> tuple[str, str, str]:
    """The names under which the source, target and output tables are kept."""
    return {
        "none": ("source", "target", "output"),
        "target-output": ("source", "target", "target"),
        "source-target": ("source", "source", "output"),
        "source-output": ("source", "target", "source"),
        "all": ("source", "source", "source"),
    }[c.tie]


def head_width(c: Config) -> int:
    """H."""
    return c.head_dim or c.d_model // c.heads


def on_any_device(c: Config) -> Config:
    """The same model without the kernel it was trained with, which lives on one kind of device and
    takes few lengths.
    """
    return c if c.implementation == "xla" else dataclasses.replace(c, implementation="auto")


def compute_dtype(c: Config) -> jnp.dtype:
    """The dtype of activations on the default device."""
    if c.dtype == "auto":
        return jnp.dtype("float32" if jax.default_backend() == "cpu" else "bfloat16")
    return jnp.dtype(c.dtype)
