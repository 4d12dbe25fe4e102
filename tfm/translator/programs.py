"""What a translator compiles: the search of a batch of sources, and the score of given targets."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from tfm import decoding, embeddings, transformer
from tfm.data.tokenizer import BOS, EOS
from tfm.decoding import Decode, Hypotheses, Step
from tfm.params import Tree
from tfm.transformer import Architecture, Execution


def most_tokens(decode: Decode, source_tokens: int) -> int:
    """How many tokens at most ``decode`` allows for a source of so many tokens: 1 or more."""
    return max(1, math.ceil(decode.max_length_factor * source_tokens + decode.max_length_offset))


def max_target_tokens(arch: Architecture, decode: Decode, source_tokens: int) -> int:
    """How many tokens at most are written: as many as the model has positions, if it ends there."""
    longest = arch.positions.longest
    return min(most_tokens(decode, source_tokens), math.inf if longest is None else longest)


def start(
    params: Tree,
    source_BS: jax.Array,
    seeds_B: jax.Array | None = None,
    *,
    arch: Architecture,
    decode: Decode,
    execution: Execution = Execution(),
) -> Any:
    """Encodes sources and gives the state that ``decode.strategy`` starts from.

    Args:
      params: of ``transformer.inference_params``.
      source_BS: ids, 0 at padding.
      seeds_B: uint32, one for each sentence, for a strategy that draws at random.
    """
    S = source_BS.shape[1]
    max_length = max_target_tokens(arch, decode, S)
    lengths_B = (source_BS != 0).sum(axis=1)
    limits_B = decode.max_length_factor * lengths_B + decode.max_length_offset
    limits_B = jnp.where(lengths_B > 0, jnp.clip(limits_B, 1, max_length), 1).astype(jnp.int32)

    segments_BS = (source_BS != 0).astype(jnp.int32)
    positions_BS = jnp.broadcast_to(jnp.arange(S), source_BS.shape)
    memory_BSD = transformer.encode(
        params, arch, source_BS, segments_BS, positions_BS, execution=execution
    )
    cache = transformer.init_cache(
        params, arch, memory_BSD, segments_BS, hypotheses=decode.hypotheses, max_length=max_length
    )
    keys_B = None
    if seeds_B is not None:
        keys_B = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
            jax.random.key(decode.seed), seeds_B
        )
    strategy = decoding.STRATEGIES[decode.strategy]
    return strategy.start(cache, limits_B, decode, max_length=max_length, keys_B=keys_B)


def advance(
    params: Tree,
    state: Any,
    *,
    arch: Architecture,
    decode: Decode,
    execution: Execution = Execution(),
) -> Any:
    """The state of a search after one more token for every sentence."""
    step = _step(params, arch, execution)
    return decoding.STRATEGIES[decode.strategy].advance(step, state, decode, bos=BOS, eos=EOS)


def search(
    params: Tree,
    source_BS: jax.Array,
    seeds_B: jax.Array | None = None,
    *,
    arch: Architecture,
    decode: Decode,
    execution: Execution = Execution(),
) -> Hypotheses:
    """Source ids [B,S], 0 at padding → hypotheses; arguments as of ``start``."""
    state = start(params, source_BS, seeds_B, arch=arch, decode=decode, execution=execution)
    return decoding.run(_step(params, arch, execution), state, decode, bos=BOS, eos=EOS)


def _step(params: Tree, arch: Architecture, execution: Execution) -> Step:
    """The model as search sees it."""

    def step(
        tokens_BR: jax.Array, parents_BR: jax.Array, state: transformer.Cache
    ) -> tuple[jax.Array, jax.Array, transformer.Cache]:
        logits_BRV, state = transformer.decode_step(
            params, arch, state, tokens_BR, parents_BR, execution=execution
        )
        return logits_BRV, jax.nn.logsumexp(logits_BRV, axis=-1), state

    return step


def score(
    params: Tree,
    source_BS: jax.Array,
    target_BT: jax.Array,
    *,
    arch: Architecture,
    execution: Execution = Execution(),
) -> jax.Array:
    """Log-probabilities [B] of the targets, ids ending with eos and padded with 0."""
    batch = transformer.single_sentences(source_BS, target_BT, BOS)
    hidden_BTD = transformer.forward(params, arch, batch, execution=execution)
    table_VD = transformer.output_table(params, arch)

    def sentence(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        hidden_TD, target_T = row
        log_probs_TV = jax.nn.log_softmax(embeddings.logits(hidden_TD, table_VD))
        log_probs_T = jnp.take_along_axis(log_probs_TV, target_T[:, None], axis=1)[:, 0]
        return jnp.where(target_T != 0, log_probs_T, 0.0).sum()

    return jax.lax.map(sentence, (hidden_BTD, target_BT))  # one sentence's logits at a time
