"""The encoder-decoder Transformer: configuration, parameters, encode, decode, and one cached step.

Sentences may be packed: a row of tokens holds several, told apart by segment ids (0 = padding)
with positions that restart. An unpacked batch is the case of one segment a row.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from tfm import attention, embeddings, layers, masks, positions
from tfm.attention import KeyValue
from tfm.params import Tree, stack, unstack

Tie = Literal["none", "target-output", "source-target", "source-output", "all"]


@dataclass(frozen=True)
class Config:
    """The shape of a model; hashable, so it can be a static argument of ``jit``.

    Attributes:
      source_vocab, target_vocab: V on each side; 0 is filled in from the tokenizers.
      d_model: D. heads: N. kv_heads: K, 0 means N. head_dim: H, 0 means D / N. d_ff: F.
      positions: absolute positions added to the input.
      max_length: rows of the learned position table.
      norm_placement: pre (Xiong 2020) or post (Vaswani 2017).
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
    positions: Literal["sinusoidal", "learned", "none"] = "sinusoidal"
    max_length: int = 512
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
}
"""base and big are the two of Vaswani 2017, table 3; tiny and small are for one CPU."""


def table_names(c: Config) -> tuple[str, str, str]:
    """The names under which the source, target and output tables are kept."""
    return {
        "none": ("source", "target", "output"),
        "target-output": ("source", "target", "target"),
        "source-target": ("source", "source", "output"),
        "source-output": ("source", "target", "source"),
        "all": ("source", "source", "source"),
    }[c.tie]


def declare(c: Config) -> Tree:
    """The parameters of the whole model.

    Raises:
      ValueError: sizes that do not fit together; the message names both.
    """
    head_dim = c.head_dim or c.d_model // c.heads
    if not c.head_dim and c.d_model % c.heads:
        raise ValueError(f"d_model {c.d_model} is not a multiple of heads {c.heads}")
    if c.heads % (c.kv_heads or c.heads):
        raise ValueError(f"heads {c.heads} is not a multiple of kv_heads {c.kv_heads}")
    names, sizes = table_names(c), (c.source_vocab, c.target_vocab, c.target_vocab)
    if 0 in sizes:
        raise ValueError("source_vocab and target_vocab must be set before parameters are declared")
    vocab = {}
    for name, size in zip(names, sizes, strict=True):
        if vocab.setdefault(name, size) != size:
            raise ValueError(
                f"tie={c.tie!r} needs one vocabulary, got source {c.source_vocab} and target "
                f"{c.target_vocab}: set tokenizer.joint, or tie less"
            )

    attend = attention.attention_params(c.d_model, c.heads, c.kv_heads or c.heads, head_dim, c.bias)
    norm = layers.norm_params(c.d_model, c.norm)
    feed_forward = layers.feed_forward_params(c.d_model, c.d_ff, c.activation)
    encoder_layer = {
        "self": attend, "self_norm": norm, "ff": feed_forward, "ff_norm": norm,
    }  # fmt: skip
    decoder_layer = encoder_layer | {"cross": attend, "cross_norm": norm}

    def side(layer: Tree, depth: int) -> Tree:
        tree = {"layers": stack(layer, depth)}
        if c.positions == "learned":
            tree["positions"] = positions.learned_params(c.max_length, c.d_model)
        if c.norm_placement == "pre":
            tree["norm"] = norm
        return tree

    return {
        "tables": {n: embeddings.embedding_params(v, c.d_model) for n, v in vocab.items()},
        "encoder": side(encoder_layer, c.encoder_layers),
        "decoder": side(decoder_layer, c.decoder_layers),
    }


def compute_dtype(c: Config) -> jnp.dtype:
    """The dtype of activations on the default device."""
    if c.dtype == "auto":
        return jnp.dtype("float32" if jax.default_backend() == "cpu" else "bfloat16")
    return jnp.dtype(c.dtype)


def output_table(params: Tree, c: Config) -> jax.Array:
    """The table [V,D] that scores the decoder's output, tied or not."""
    return params["tables"][table_names(c)[2]]


def embed_tokens(
    params: Tree, c: Config, table: str, side: str, tokens: jax.Array, places: jax.Array
) -> jax.Array:
    """Tokens [B,T] at places [B,T] → input of the first layer [B,T,D]."""
    dtype = compute_dtype(c)
    x_BTD = embeddings.embed(tokens, params["tables"][table], c.lookup) * c.d_model**0.5
    if c.positions == "sinusoidal":
        x_BTD += positions.sinusoidal(places, c.d_model)
    elif c.positions == "learned":
        table_TD = params[side]["positions"]
        x_BTD += positions.learned(places, table_TD) * c.d_model**0.5
    return x_BTD.astype(dtype)


def _attention(
    params: Tree,
    x_BTD: jax.Array,
    kv: KeyValue,
    mask: jax.Array,
    c: Config,
    key: jax.Array | None,
) -> tuple[jax.Array, KeyValue]:
    out_BTD = attention.multi_head(
        params, x_BTD, kv, mask=mask, dropout_rate=c.attention_dropout, key=key
    )
    return out_BTD, kv


def layer(
    params: Tree,
    x_BTD: jax.Array,
    c: Config,
    *,
    self_mask: jax.Array,
    remember: Callable[[KeyValue], KeyValue] = lambda kv: kv,
    cross: KeyValue | None = None,
    cross_mask: jax.Array | None = None,
    key: jax.Array | None = None,
) -> tuple[jax.Array, KeyValue]:
    """One layer: self-attention, in the decoder cross-attention, feed-forward.

    Args:
      remember: what self-attention's fresh keys and values become before they are looked up: with
        a cache, all those so far.

    Returns:
      x [B,T,D], and the keys and values that self-attention looked up.
    """
    keys = layers.split(key, 6)

    def residual(name: str, x_BTD: jax.Array, sublayer: Callable, key: jax.Array | None) -> Any:
        return layers.residual(
            params[name], x_BTD, sublayer, c.norm_placement, dropout_rate=c.dropout, key=key
        )

    def self_attention(x: jax.Array) -> tuple[jax.Array, KeyValue]:
        kv = remember(attention.keys_values(params["self"], x))
        return _attention(params["self"], x, kv, self_mask, c, keys[0])

    def cross_attention(x: jax.Array) -> tuple[jax.Array, KeyValue]:
        return _attention(params["cross"], x, cross, cross_mask, c, keys[2])

    def feed_forward(x: jax.Array) -> tuple[jax.Array, None]:
        rate = c.activation_dropout
        y = layers.feed_forward(params["ff"], x, c.activation, dropout_rate=rate, key=keys[4])
        return y, None

    x_BTD, kv = residual("self_norm", x_BTD, self_attention, keys[1])
    if cross is not None:
        x_BTD, _ = residual("cross_norm", x_BTD, cross_attention, keys[3])
    x_BTD, _ = residual("ff_norm", x_BTD, feed_forward, keys[5])
    return x_BTD, kv


def _run_layers(
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
    keys = None if key is None else jax.random.split(key, depth)
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


def encode(
    params: Tree,
    c: Config,
    source_BS: jax.Array,
    segments_BS: jax.Array,
    positions_BS: jax.Array,
    *,
    key: jax.Array | None = None,
) -> jax.Array:
    """Source tokens → memory [B,S,D], each token's meaning in its sentence.

    Args:
      segments_BS: 0 = padding, else the sentence's number in its row.
      positions_BS: places, from 0 in every sentence.
      key: of dropout; ``None`` is inference.
    """
    embed_key, layers_key = layers.split(key, 2)
    x_BSD = embed_tokens(params, c, table_names(c)[0], "encoder", source_BS, positions_BS)
    x_BSD = layers.dropout(x_BSD, c.dropout, embed_key)
    mask = masks.segment(segments_BS, segments_BS)
    x_BSD = _run_layers(
        lambda p, x, k: layer(p, x, c, self_mask=mask, key=k)[0],
        params["encoder"]["layers"],
        c.encoder_layers,
        x_BSD,
        c,
        layers_key,
    )
    return final_norm(params["encoder"], x_BSD)


def decode(
    params: Tree,
    c: Config,
    memory_BSD: jax.Array,
    memory_segments_BS: jax.Array,
    target_BT: jax.Array,
    segments_BT: jax.Array,
    positions_BT: jax.Array,
    *,
    key: jax.Array | None = None,
) -> jax.Array:
    """Target tokens so far, and the memory they consult → hidden states [B,T,D].

    Position t of the result has seen targets 0..t; ``embeddings.logits(hidden, output_table)``
    scores what comes next.
    """
    embed_key, layers_key = layers.split(key, 2)
    x_BTD = embed_tokens(params, c, table_names(c)[1], "decoder", target_BT, positions_BT)
    x_BTD = layers.dropout(x_BTD, c.dropout, embed_key)
    length = target_BT.shape[1]
    self_mask = masks.combine(masks.segment(segments_BT, segments_BT), masks.causal(length))
    cross_mask = masks.segment(segments_BT, memory_segments_BS)

    def block(p: Tree, x_BTD: jax.Array, key: jax.Array | None) -> jax.Array:
        cross = attention.keys_values(p["cross"], memory_BSD)
        return layer(p, x_BTD, c, self_mask=self_mask, cross=cross, cross_mask=cross_mask, key=key)[
            0
        ]

    decoder = params["decoder"]
    x_BTD = _run_layers(block, decoder["layers"], c.decoder_layers, x_BTD, c, layers_key)
    return final_norm(decoder, x_BTD)


def forward(
    params: Tree, c: Config, batch: dict[str, jax.Array], *, key: jax.Array | None = None
) -> jax.Array:
    """Teacher forcing: a (packed) batch → the decoder's hidden states [B,T,D].

    Args:
      batch: ``source``, ``source_segments``, ``source_positions`` [B,S]; ``target_input``,
        ``target_segments``, ``target_positions`` [B,T].
    """
    encoder_key, decoder_key = layers.split(key, 2)
    memory_BSD = encode(
        params,
        c,
        batch["source"],
        batch["source_segments"],
        batch["source_positions"],
        key=encoder_key,
    )
    return decode(
        params,
        c,
        memory_BSD,
        batch["source_segments"],
        batch["target_input"],
        batch["target_segments"],
        batch["target_positions"],
        key=decoder_key,
    )
