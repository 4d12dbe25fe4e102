"""What a translator compiles: beam search of a batch of sources, and scores of given targets."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tfm import embeddings, transformer
from tfm.config import Decode
from tfm.data.tokenizer import BOS, EOS
from tfm.decoding import beam
from tfm.decoding.types import Hypotheses, Step
from tfm.params import Tree


def most_tokens(settings: Decode, pieces: int) -> int:
    """How many tokens at most are written for a source of so many pieces."""
    return math.ceil(settings.max_length_factor * pieces + settings.max_length_offset)


def search(
    params: Tree,
    source_BS: jax.Array,
    c: transformer.Config,
    settings: Decode,
    watched: Callable[[Step, Any], tuple[Step, Any]] = lambda step, state: (step, state),
) -> Hypotheses:
    """Source ids [B,S], 0 at padding → hypotheses.

    Args:
      watched: puts something around the step ``(tokens, parents, state) → (logits, state)`` that
        search takes, and around the state it starts from.
    """
    S = source_BS.shape[1]
    max_length = most_tokens(settings, S)
    if c.positions == "learned":  # there is no vector for a place beyond
        max_length = min(max_length, c.max_length)
    lengths_B = (source_BS != 0).sum(axis=1)
    limits_B = settings.max_length_factor * lengths_B + settings.max_length_offset
    limits_B = jnp.where(lengths_B > 0, jnp.clip(limits_B, 1, max_length), 1).astype(jnp.int32)

    valid_BS = (source_BS != 0).astype(jnp.int32)
    places_BS = jnp.broadcast_to(jnp.arange(S), source_BS.shape)
    memory_BSD = transformer.encode(params, c, source_BS, valid_BS, places_BS)
    weights = transformer.for_decoding(params, c)
    cache = transformer.init_cache(
        weights, c, memory_BSD, valid_BS, hypotheses=settings.beam_size, max_length=max_length
    )
    step, state = watched(
        lambda tokens, parents, cache: transformer.decode_step(weights, c, cache, tokens, parents),
        cache,
    )
    return beam.search(
        step,
        state,
        limits_B,
        beam_size=settings.beam_size,
        max_length=max_length,
        bos=BOS,
        eos=EOS,
        length_norm=settings.length_norm,
        length_penalty=settings.length_penalty,
    )


def score(
    params: Tree, source_BS: jax.Array, target_BT: jax.Array, c: transformer.Config
) -> jax.Array:
    """Log-probabilities [B] of the targets, ids ending with eos and padded with 0."""
    batch = {"source": source_BS, "target_input": target_BT}
    batch["target_input"] = jnp.pad(target_BT, ((0, 0), (1, 0)), constant_values=BOS)[:, :-1]
    for side, ids in (("source", source_BS), ("target", target_BT)):
        batch[f"{side}_segments"] = (ids != 0).astype(jnp.int32)
        batch[f"{side}_positions"] = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    hidden_BTD = transformer.forward(params, c, batch)
    table_VD = transformer.output_table(params, c)

    def sentence(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        hidden_TD, target_T = row
        log_probs_TV = jax.nn.log_softmax(embeddings.logits(hidden_TD, table_VD))
        gained_T = jnp.take_along_axis(log_probs_TV, target_T[:, None], axis=1)[:, 0]
        return jnp.where(target_T != 0, gained_T, 0.0).sum()

    return jax.lax.map(sentence, (hidden_BTD, target_BT))  # one sentence's logits at a time
