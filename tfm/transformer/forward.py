"""From tokens to memory, from memory and target tokens to hidden states.

Sentences may be packed: a row of tokens holds several, told apart by segment ids (0 = padding)
with positions that restart. An unpacked batch is the case of one segment a row.
"""

import jax
import jax.numpy as jnp

from tfm import attention, embeddings, layers, positions
from tfm.params import Tree
from tfm.sharding import NO_MESH, Layout
from tfm.transformer.config import Config, compute_dtype, table_names
from tfm.transformer.context import across, own_row
from tfm.transformer.layer import final_norm, layer, run_layers


def output_table(params: Tree, c: Config) -> jax.Array:
    """The table [V,D] that scores the decoder's output, tied or not."""
    return params["tables"][table_names(c)[2]]


def embed_tokens(
    params: Tree,
    c: Config,
    table: str,
    side: str,
    tokens: jax.Array,
    places: jax.Array,
    layout: Layout = NO_MESH,
) -> jax.Array:
    """Tokens [B,T] at places [B,T] → input of the first layer [B,T,D]."""
    dtype = compute_dtype(c)
    x_BTD = _look_up(tokens, params["tables"][table], c, layout) * c.d_model**0.5
    if c.positions == "sinusoidal":
        x_BTD += positions.sinusoidal(places, c.d_model)
    elif c.positions == "learned":
        table_TD = layout.constrain(params[side]["positions"], "position", None)
        x_BTD += positions.learned(places, table_TD) * c.d_model**0.5
    return x_BTD.astype(dtype)


def _look_up(tokens_BT: jax.Array, table_VD: jax.Array, c: Config, layout: Layout) -> jax.Array:
    """The rows of tokens [B,T,D]: every device finds its own tokens in its part of the vocabulary.

    The table's width is made whole before, and its gradient is summed up in parts after. Left to
    itself XLA sums up the whole of it on every device.
    """

    def body(tokens_BT: jax.Array, table_VD: jax.Array) -> tuple[jax.Array]:
        table_VD = layout.all_gather(table_VD, 1, "embed")
        if not layout.mesh_axes("vocab"):
            return (embeddings.embed(tokens_BT, table_VD, c.lookup),)
        ids_BT = tokens_BT - layout.axis_offset("vocab", table_VD.shape[0])
        mine_BT = (ids_BT >= 0) & (ids_BT < table_VD.shape[0])
        found_BTD = embeddings.embed(jnp.where(mine_BT, ids_BT, 0), table_VD, c.lookup)
        return (layout.psum(jnp.where(mine_BT[..., None], found_BTD, 0), "vocab"),)

    tokens = ("batch", "length")
    run = layout.shard_map(body, (tokens, ("vocab", "embed")), ((*tokens, None),))
    return run(tokens_BT, table_VD)[0]


def _places(c: Config, segments_BT: jax.Array, places_BT: jax.Array) -> jax.Array:
    """Padding stands at place 0: a row may be longer than the table of learned positions, as packed
    ones are, and what the table lacks is NaN, which no mask keeps from the sentences beside it.
    """
    return jnp.where(segments_BT != 0, places_BT, 0) if c.positions == "learned" else places_BT


def encode(
    params: Tree,
    c: Config,
    source_BS: jax.Array,
    segments_BS: jax.Array,
    positions_BS: jax.Array,
    *,
    key: jax.Array | None = None,
    layout: Layout = NO_MESH,
) -> jax.Array:
    """Source tokens → memory [B,S,D], each token's meaning in its sentence.

    Args:
      segments_BS: 0 = padding, else the sentence's number in its row.
      positions_BS: places, from 0 in every sentence.
      key: of dropout; ``None`` is inference.
      layout: the mesh that activations are spread over, if any.
    """
    embed_key, layers_key = layers.split(key, 2)
    positions_BS = _places(c, segments_BS, positions_BS)
    x_BSD = embed_tokens(params, c, table_names(c)[0], "encoder", source_BS, positions_BS, layout)
    x_BSD = layout.constrain(layers.dropout(x_BSD, c.dropout, embed_key), "batch", "length", None)
    sight = own_row(params["encoder"], c, segments_BS, positions_BS, causal=False)
    x_BSD = run_layers(
        lambda p, x, k: layer(p, x, c, sight=sight, key=k, layout=layout)[0],
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
    layout: Layout = NO_MESH,
) -> jax.Array:
    """Target tokens so far, and the memory they consult → hidden states [B,T,D].

    Position t of the result has seen targets 0..t; ``embeddings.logits(hidden, output_table)``
    scores what comes next.
    """
    embed_key, layers_key = layers.split(key, 2)
    positions_BT = _places(c, segments_BT, positions_BT)
    x_BTD = embed_tokens(params, c, table_names(c)[1], "decoder", target_BT, positions_BT, layout)
    x_BTD = layout.constrain(layers.dropout(x_BTD, c.dropout, embed_key), "batch", "length", None)
    decoder = params["decoder"]
    sight = own_row(decoder, c, segments_BT, positions_BT, causal=True)
    cross_sight = across(segments_BT, memory_segments_BS)

    def block(p: Tree, x_BTD: jax.Array, key: jax.Array | None) -> jax.Array:
        cross = attention.keys_values(p["cross"], memory_BSD)
        x_BTD, _ = layer(
            p, x_BTD, c,
            sight=sight, cross=cross, cross_sight=cross_sight, key=key, layout=layout,
        )  # fmt: skip
        return x_BTD

    x_BTD = run_layers(block, decoder["layers"], c.decoder_layers, x_BTD, c, layers_key)
    return final_norm(decoder, x_BTD)


def forward(
    params: Tree,
    c: Config,
    batch: dict[str, jax.Array],
    *,
    key: jax.Array | None = None,
    layout: Layout = NO_MESH,
) -> jax.Array:
    """Teacher forcing: a (packed) batch → the decoder's hidden states [B,T,D].

    Args:
      batch: ``source``, ``source_segments``, ``source_positions`` [B,S]; ``target_input``,
        ``target_segments``, ``target_positions`` [B,T].
      key: of dropout; ``None`` is inference.
      layout: the mesh that activations are spread over, if any.
    """
    encoder_key, decoder_key = layers.split(key, 2)
    memory_BSD = encode(
        params,
        c,
        batch["source"],
        batch["source_segments"],
        batch["source_positions"],
        key=encoder_key,
        layout=layout,
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
        layout=layout,
    )
