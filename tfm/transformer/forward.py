"""From tokens to the encoder's memory, from memory and target tokens to hidden states.

Sentences may be packed: a row of tokens holds several, told apart by segment ids (0 = padding)
with positions that restart. An unpacked batch is the case of one segment a row.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from tfm import attention, embeddings, layers
from tfm.params import Tree, like
from tfm.quantize import Weight
from tfm.sharding import NO_MESH, Layout
from tfm.transformer import arguments
from tfm.transformer.batch import Batch
from tfm.transformer.config import (
    BOS,
    Architecture,
    Execution,
    compute_dtype,
    embedding_scale,
    table_names,
)
from tfm.transformer.context import cross_context, self_context
from tfm.transformer.layer import LayerOutput, final_norm, layer, run_layers
from tfm.transformer.params import Side

CLOSED = -200.0  # logit of a closed row


def forward(
    params: Tree,
    arch: Architecture,
    batch: Batch,
    *,
    key: jax.Array | None = None,
    execution: Execution = Execution(),
    layout: Layout = NO_MESH,
) -> jax.Array:
    """Teacher forcing: a (packed) batch → the decoder's hidden states [B,T,D].

    Position t of the result has seen targets 0..t; ``logits`` scores what comes next.

    Args:
      params: of ``declare(arch)``.
      key: of dropout; ``None`` is inference.
      execution: how it is computed.
      layout: the mesh that activations are sharded over, if any.

    Raises:
      ValueError: an argument of another rank, dtype or shape; parameters that are not those of
        ``declare(arch)``; an id outside the vocabulary (known only outside ``jit``).
    """
    check = arguments.check_call("forward", arch=arch, execution=execution, layout=layout)
    arguments.check_batch(check, arch, batch)
    for side in get_args(Side):
        arguments.check_side(check, params, arch, side)
    check.optional_key(key)
    encoder_key, decoder_key = layers.split(key, 2)
    options = {"execution": execution, "layout": layout}
    source, target = batch[:3], batch[3:6]
    memory_BSD = encode(params, arch, *source, key=encoder_key, **options)
    return decode(
        params, arch, memory_BSD, batch.source_segments, *target, key=decoder_key, **options
    )


def encode(
    params: Tree,
    arch: Architecture,
    source_BS: jax.Array,
    segments_BS: jax.Array,
    positions_BS: jax.Array,
    *,
    key: jax.Array | None = None,
    execution: Execution = Execution(),
    layout: Layout = NO_MESH,
) -> jax.Array:
    """Source tokens → memory [B,S,D], each token's meaning in its sentence.

    Args:
      segments_BS: 0 = padding, else the number of the token's sentence in its row.
      positions_BS: positions in the sentence, from 0.
      key, execution, layout: as of ``forward``.
    """
    check = arguments.check_call("encode", arch=arch, execution=execution, layout=layout)
    arguments.check_tokens(check, arch, "encoder", source_BS=source_BS)
    check.ints(segments_BS=segments_BS, positions_BS=positions_BS)
    arguments.check_side(check, params, arch, "encoder")
    check.optional_key(key)
    source = source_BS, segments_BS, positions_BS
    return _encode(params, arch, source, key, execution, layout)[0]


def decode(
    params: Tree,
    arch: Architecture,
    memory_BSD: jax.Array,
    memory_segments_BS: jax.Array,
    target_BT: jax.Array,
    segments_BT: jax.Array,
    positions_BT: jax.Array,
    *,
    key: jax.Array | None = None,
    execution: Execution = Execution(),
    layout: Layout = NO_MESH,
) -> jax.Array:
    """Target tokens so far, and the memory they attend to → hidden states [B,T,D].

    Args:
      memory_segments_BS: of the source tokens.
      key, execution, layout: as of ``forward``.
    """
    check = arguments.check_call("decode", arch=arch, execution=execution, layout=layout)
    check.floats(memory_BSD=memory_BSD)
    check.ints(memory_segments_BS=memory_segments_BS)
    arguments.check_tokens(check, arch, "decoder", target_BT=target_BT)
    check.ints(segments_BT=segments_BT, positions_BT=positions_BT)
    arguments.check_side(check, params, arch, "decoder")
    check.optional_key(key)
    memory, target = (memory_BSD, memory_segments_BS), (target_BT, segments_BT, positions_BT)
    return _decode(params, arch, memory, target, key, execution, layout)[0]


class ForwardActivations(NamedTuple):
    """What ``activations`` gives.

    Attributes:
      encoder, decoder: what was kept of every layer, stacked on a first axis L.
      encoder_input, decoder_input: [B,T,D], embedded tokens with their positions.
      hidden: [B,T,D], as of ``forward``.
    """

    encoder: Any
    decoder: Any
    encoder_input: jax.Array
    decoder_input: jax.Array
    hidden: jax.Array


def activations(
    params: Tree,
    arch: Architecture,
    batch: Batch,
    keep: Callable[[Tree, LayerOutput], Any],
    *,
    execution: Execution = Execution(),
) -> ForwardActivations:
    """``forward`` without dropout, with what every layer computes, its scores and weights included.

    Args:
      keep: (parameters of a layer, its output) → a pytree of what to keep of it.
    """
    check = arguments.check_call("activations", arch=arch, execution=execution)
    arguments.check_batch(check, arch, batch)
    for side in get_args(Side):
        arguments.check_side(check, params, arch, side)
    check.function_of("(parameters of a layer, its output) → a pytree", keep=keep)
    options = {"key": None, "execution": execution, "layout": NO_MESH, "keep": keep}
    memory_BSD, encoder, x_BSD = _encode(params, arch, batch[:3], **options)
    memory = memory_BSD, batch.source_segments
    hidden_BTD, decoder, x_BTD = _decode(params, arch, memory, batch[3:6], **options)
    return ForwardActivations(encoder, decoder, x_BSD, x_BTD, hidden_BTD)


# (output [B,T,D], what was kept of the layers, input of the first layer [B,T,D])
_Stack = tuple[jax.Array, Any, jax.Array]


def _encode(
    params: Tree,
    arch: Architecture,
    source: tuple[jax.Array, ...],
    key: jax.Array | None,
    execution: Execution,
    layout: Layout,
    keep: Callable[[Tree, LayerOutput], Any] | None = None,
) -> _Stack:
    encoder, (source_BS, segments_BS, positions_BS) = params["encoder"], source
    embed_key, layers_key = layers.split(key, 2)
    positions_BS = _table_positions(arch, segments_BS, positions_BS)
    x_BSD = embed_tokens(params, arch, "encoder", source_BS, positions_BS, execution, layout)
    input_BSD = layout.constrain(
        layers.dropout(x_BSD, arch.dropout, embed_key), "batch", "length", None
    )
    context = self_context(
        encoder, arch, segments_BS, positions_BS,
        causal=False, training=key is not None, keep_scores=keep is not None,
        execution=execution, layout=layout,
    )  # fmt: skip

    def block(p: Tree, x_BSD: jax.Array, key: jax.Array | None) -> tuple[jax.Array, Any]:
        output = layer(p, x_BSD, arch, context, key=key, layout=layout)
        return output.x, keep and keep(p, output)

    x_BSD, kept = run_layers(
        block, encoder["layers"], arch.encoder_layers, input_BSD, layers_key, execution
    )
    return final_norm(encoder, x_BSD, arch.norm_epsilon), kept, input_BSD


def _decode(
    params: Tree,
    arch: Architecture,
    memory: tuple[jax.Array, jax.Array],
    target: tuple[jax.Array, ...],
    key: jax.Array | None,
    execution: Execution,
    layout: Layout,
    keep: Callable[[Tree, LayerOutput], Any] | None = None,
) -> _Stack:
    decoder, (target_BT, segments_BT, positions_BT) = params["decoder"], target
    memory_BSD, memory_segments_BS = memory
    embed_key, layers_key = layers.split(key, 2)
    positions_BT = _table_positions(arch, segments_BT, positions_BT)
    x_BTD = embed_tokens(params, arch, "decoder", target_BT, positions_BT, execution, layout)
    input_BTD = layout.constrain(
        layers.dropout(x_BTD, arch.dropout, embed_key), "batch", "length", None
    )
    options = {
        "training": key is not None, "keep_scores": keep is not None,
        "execution": execution, "layout": layout,
    }  # fmt: skip
    context = self_context(decoder, arch, segments_BT, positions_BT, causal=True, **options)
    cross = cross_context(arch, segments_BT, memory_segments_BS, **options)

    def block(p: Tree, x_BTD: jax.Array, key: jax.Array | None) -> tuple[jax.Array, Any]:
        cross_kv = attention.keys_values(p["cross"], memory_BSD)
        output = layer(p, x_BTD, arch, context, cross_kv, cross, key=key, layout=layout)
        return output.x, keep and keep(p, output)

    x_BTD, kept = run_layers(
        block, decoder["layers"], arch.decoder_layers, input_BTD, layers_key, execution
    )
    return decoder_output(decoder, arch, x_BTD), kept, input_BTD


def output_table(params: Tree, arch: Architecture) -> Weight:
    """The table [V,D] that scores the decoder's output, tied or not."""
    arguments.check_table(arguments.check_call("output_table", arch=arch), params, arch, 2)
    return params["output"] if "output" in params else params["tables"][table_names(arch)[2]]


def output_bias(params: Tree, arch: Architecture) -> jax.Array | None:
    """What is added to the logits, [V] float32: the output bias, and -200 at closed rows.

    -200 closes a row: its probability is 0 in float32, and label smoothing hardly sees it.
    """
    check = arguments.check_call("output_bias", arch=arch)
    arguments.check_output_bias(check, params, arch)
    if not arch.output_bias and not arch.closed_rows:
        return None
    bias_V = jnp.zeros(arch.target_vocab)
    if arch.output_bias:
        bias_V = jnp.asarray(params["decoder"]["output_bias"], jnp.float32)
    if arch.closed_rows:
        bias_V = bias_V.at[np.array(arch.closed_rows)].set(CLOSED)
    return bias_V


def logits(params: Tree, arch: Architecture, hidden_BTD: jax.Array) -> jax.Array:
    """Scores of every id after each of the decoder's hidden states: [B,T,V] float32."""
    check = arguments.check_call("logits", arch=arch)
    check.floats(hidden_BTD=hidden_BTD)
    arguments.check_table(check, params, arch, 2)
    logits_BTV = embeddings.logits(hidden_BTD, output_table(params, arch))
    bias_V = output_bias(params, arch)
    return logits_BTV if bias_V is None else logits_BTV + like(bias_V, logits_BTV)


def decoder_output(decoder: Tree, arch: Architecture, x_BTD: jax.Array) -> jax.Array:
    """From the output of the last layer to hidden states: final norm and scale."""
    arguments.check_call("decoder_output", arch=arch)
    x_BTD = final_norm(decoder, x_BTD, arch.norm_epsilon)
    return x_BTD if arch.output_scale == 1 else x_BTD * arch.output_scale


def embed_tokens(
    params: Tree,
    arch: Architecture,
    side: Side,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    execution: Execution = Execution(),
    layout: Layout = NO_MESH,
) -> jax.Array:
    """Tokens at their positions → input of the first layer [B,T,D] (Vaswani 2017, §3.4 and §3.5).

    Args:
      side: "encoder" or "decoder".
      positions_BT: or [B,1], if all tokens of a row have one position.
    """
    check = arguments.check_call("embed_tokens", arch=arch, execution=execution, layout=layout)
    check.choice(get_args(Side), side=side)
    arguments.check_tokens(check, arch, side, tokens_BT=tokens_BT)
    shape = getattr(positions_BT, "shape", ())
    length = "1" if shape[1:] == (1,) else "S" if side == "encoder" else "T"
    check.ints(f"B{length}", positions_BT=positions_BT)
    arguments.check_table(check, params, arch, get_args(Side).index(side))
    arguments.check_shared(check, params.get(side), arch, f"params[{side!r}]")
    table_VD = params["tables"][table_names(arch)[("encoder", "decoder").index(side)]]
    if side == "decoder" and arch.decoder_start != BOS:
        tokens_BT = jnp.where(tokens_BT == BOS, arch.decoder_start, tokens_BT)
    x_BTD = _embed(tokens_BT, table_VD, execution, layout) * embedding_scale(arch)
    if arch.positions.acts_on == "input":
        replicated = jax.tree.map(
            lambda x: layout.constrain(x, *[None] * x.ndim), params[side].get("positions")
        )
        x_BTD += arch.positions.input(replicated, positions_BT, arch.d_model)
    if arch.embedding_norm:
        x_BTD = layers.norm(params[side]["embedding_norm"], x_BTD, arch.norm_epsilon)
    return x_BTD.astype(compute_dtype(execution))


def _embed(
    tokens_BT: jax.Array, table_VD: jax.Array, execution: Execution, layout: Layout
) -> jax.Array:
    """The rows of tokens [B,T,D]; every device looks its tokens up in its shard of the vocabulary.

    The table's width is gathered before, and its gradient is reduce-scattered after. Left to itself
    XLA sums the gradient of the whole table on every device. Where all devices that share the width
    have the same tokens, as in inference, what they look up is gathered instead.
    """
    tokens_shared = not set(layout.mesh_axes("embed")) & set(layout.mesh_axes("batch"))

    def body(tokens_BT: jax.Array, table_VD: jax.Array) -> tuple[jax.Array]:
        if not tokens_shared:
            table_VD = layout.all_gather(table_VD, 1, "embed")
        x_BTD = look_up(tokens_BT, table_VD)
        return (layout.all_gather(x_BTD, 2, "embed") if tokens_shared else x_BTD,)

    def look_up(tokens_BT: jax.Array, table_VD: jax.Array) -> jax.Array:
        if not layout.mesh_axes("vocab"):
            return embeddings.embed(tokens_BT, table_VD, execution.lookup)
        ids_BT = tokens_BT - layout.axis_offset("vocab", table_VD.shape[0])
        own_BT = (ids_BT >= 0) & (ids_BT < table_VD.shape[0])
        x_BTD = embeddings.embed(jnp.where(own_BT, ids_BT, 0), table_VD, execution.lookup)
        return layout.psum(jnp.where(own_BT[..., None], x_BTD, 0), "vocab")

    tokens = ("batch", "length")
    run = layout.shard_map(body, (tokens, ("vocab", "embed")), ((*tokens, None),))
    return run(tokens_BT, table_VD)[0]


def _table_positions(
    arch: Architecture, segments_BT: jax.Array, positions_BT: jax.Array
) -> jax.Array:
    """Gives padding position 0 where positions are limited.

    A packed row may be longer than the table of positions, and a position beyond it is NaN, which
    no mask would keep from the sentences beside it.
    """
    if arch.positions.longest is None:
        return positions_BT
    return jnp.where(segments_BT != 0, positions_BT, 0)
