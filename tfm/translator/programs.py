"""What a translator compiles: the search of a batch of sources, and the score of given targets.

Where a model is asked for, an ensemble can be given: a tuple of architectures, and the parameters
of each in a tuple.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tfm import decoding, transformer
from tfm.data.tokenizer import BOS, EOS, PAD, UNK
from tfm.decoding import Attended, Constraints, Decode, Hypotheses, Step
from tfm.decoding.constraints import NONE
from tfm.decoding.ensemble import average, ensemble
from tfm.params import Tree
from tfm.sharding import NO_MESH, Layout
from tfm.transformer import Architecture, Execution

Models = Architecture | tuple[Architecture, ...]
"""One model or an ensemble."""


def most_tokens(decode: Decode, source_tokens: int) -> int:
    """How many tokens at most ``decode`` allows for a source of so many tokens: 1 or more."""
    most = max(1, math.ceil(decode.max_length_factor * source_tokens + decode.max_length_offset))
    return min(most, decode.max_length or most)


def last_position(arch: Models) -> int | None:
    """How many positions a model has, the least of an ensemble; None if they do not end."""
    models = arch if isinstance(arch, tuple) else (arch,)
    ends = [one.positions.longest for one in models if one.positions.longest is not None]
    return min(ends, default=None)


def max_target_tokens(arch: Models, decode: Decode, source_tokens: int) -> int:
    """How many tokens at most are written: as many as the model has positions, if it ends there."""
    longest = last_position(arch)
    return min(most_tokens(decode, source_tokens), math.inf if longest is None else longest)


def start(
    params: Any,
    source_BS: jax.Array,
    seeds_B: jax.Array | None = None,
    constraints: Constraints = NONE,
    *,
    arch: Models,
    decode: Decode,
    execution: Execution = Execution(),
    layout: Layout = NO_MESH,
) -> Any:
    """Encodes sources and gives the state that the strategy of ``decode`` starts from.

    Args:
      params: of ``transformer.inference_params``.
      source_BS: ids, 0 at padding.
      seeds_B: uint32, one for each sentence, for a strategy that draws at random.
      constraints: what each translation must hold, must not hold, and begins with.
      layout: the mesh that weights and sentences are sharded over, if any; see
        ``transformer.inference_layout``.
    """
    S = source_BS.shape[1]
    max_length = max_target_tokens(arch, decode, S)
    lengths_B = (source_BS != 0).sum(axis=1)
    limits_B = decode.max_length_factor * lengths_B + decode.max_length_offset
    limits_B = jnp.where(lengths_B > 0, jnp.clip(limits_B, 1, max_length), 1).astype(jnp.int32)

    states = tuple(
        _model_state(own, one, source_BS, decode, max_length, execution, layout)
        for own, one in _members(params, arch)
    )
    state = states[0]
    if isinstance(arch, tuple):
        state = Attended(states, *states[0][1:]) if decode.coverage_penalty else states
    keys_B = None
    if seeds_B is not None:
        keys_B = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
            jax.random.key(decode.seed), seeds_B
        )
    strategy = decoding.STRATEGIES[decode.search]
    return strategy.start(
        state, limits_B, decode, max_length=max_length, keys_B=keys_B, constraints=constraints
    )


def _members(params: Any, arch: Models) -> list[tuple[Tree, Architecture]]:
    """The parameters and the architecture of each model."""
    return list(zip(params, arch, strict=True)) if isinstance(arch, tuple) else [(params, arch)]


def _model_state(
    params: Tree,
    arch: Architecture,
    source_BS: jax.Array,
    decode: Decode,
    max_length: int,
    execution: Execution,
    layout: Layout,
) -> Any:
    """The state of one model before the first token: its encoded source and an empty cache."""
    B, S = source_BS.shape
    segments_BS = (source_BS != 0).astype(jnp.int32)
    positions_BS = jnp.broadcast_to(jnp.arange(S), source_BS.shape)
    memory_BSD = transformer.encode(
        params, arch, source_BS, segments_BS, positions_BS, execution=execution, layout=layout
    )
    R = decode.hypotheses
    cache = transformer.init_cache(
        params,
        arch,
        memory_BSD,
        segments_BS,
        hypotheses=R,
        max_length=max_length,
        layout=layout,
    )
    if not decode.coverage_penalty:
        return cache
    return Attended(cache, jnp.zeros((B, R, S)), source_BS != 0)


def advance(
    params: Any,
    state: Any,
    *,
    arch: Models,
    decode: Decode,
    execution: Execution = Execution(),
    layout: Layout = NO_MESH,
) -> Any:
    """The state of a search after one more token for every sentence."""
    step = _step(params, arch, decode, execution, layout)
    return decoding.STRATEGIES[decode.search].advance(step, state, decode, bos=BOS, eos=EOS)


def search(
    params: Any,
    source_BS: jax.Array,
    seeds_B: jax.Array | None = None,
    constraints: Constraints = NONE,
    *,
    arch: Models,
    decode: Decode,
    execution: Execution = Execution(),
    layout: Layout = NO_MESH,
) -> Hypotheses:
    """Source ids [B,S], 0 at padding → hypotheses; arguments as of ``start``."""
    state = start(
        params,
        source_BS,
        seeds_B,
        constraints,
        arch=arch,
        decode=decode,
        execution=execution,
        layout=layout,
    )
    step = _step(params, arch, decode, execution, layout)
    found = decoding.run(step, state, decode, bos=BOS, eos=EOS)
    # Every process reads what is found of all sentences.
    return jax.tree.map(lambda x: layout.constrain(x, *[None] * x.ndim), found)


def _step(params: Any, arch: Models, decode: Decode, execution: Execution, layout: Layout) -> Step:
    """The model as search sees it: padding and beginning of sentence are never written."""
    steps = [
        functools.partial(_model_step, *one, execution, layout) for one in _members(params, arch)
    ]
    step = ensemble(steps, decode.ensemble_average) if isinstance(arch, tuple) else steps[0]
    return decoding.without(step, (PAD, BOS) if decode.unk else (PAD, UNK, BOS))


def _model_step(
    params: Tree,
    arch: Architecture,
    execution: Execution,
    layout: Layout,
    tokens_BR: jax.Array,
    parents_BR: jax.Array,
    state: Any,
) -> tuple[jax.Array, jax.Array, Any]:
    """The ``Step`` of one model; ``Attended`` goes on as such."""
    step = functools.partial(
        transformer.decode_step, params, arch, execution=execution, layout=layout
    )
    if isinstance(state, Attended):
        logits_BRV, cache, attention_BRS = step(
            state.state, tokens_BR, parents_BR, return_attention=True
        )
        state = Attended(cache, attention_BRS, state.mask)
    else:
        logits_BRV, state = step(state, tokens_BR, parents_BR)
    log_z_BR = jax.nn.logsumexp(logits_BRV, axis=-1)
    if arch.unwritten or arch.closed_rows:
        never = np.array([*arch.unwritten, *arch.closed_rows])
        logits_BRV = logits_BRV.at[:, :, never].set(-jnp.inf)
    return logits_BRV, log_z_BR, state


def score(
    params: Any,
    source_BS: jax.Array,
    target_BT: jax.Array,
    *,
    arch: Models,
    kind: Any = "probability",
    execution: Execution = Execution(),
) -> jax.Array:
    """Log-probabilities [B,T] of the targets' tokens; ids end with eos, padding gets 0.

    Args:
      kind: how the log-probabilities of an ensemble are averaged.
    """
    batch = transformer.single_sentences(source_BS, target_BT, BOS)
    members = _members(params, arch)
    hidden = tuple(
        transformer.forward(own, one, batch, execution=execution) for own, one in members
    )

    def sentence(row: tuple[tuple[jax.Array, ...], jax.Array]) -> jax.Array:
        hidden, target_T = row
        logits = [
            transformer.logits(own, one, x_TD[None])[0]
            for (own, one), x_TD in zip(members, hidden, strict=True)
        ]
        log_probs_TV = jax.nn.log_softmax(logits[0])
        if len(logits) > 1:
            mean_TV, log_z_T = average(jnp.stack(list(map(jax.nn.log_softmax, logits))), kind)
            log_probs_TV = mean_TV - log_z_T[:, None]
        log_probs_T = jnp.take_along_axis(log_probs_TV, target_T[:, None], axis=1)[:, 0]
        return jnp.where(target_T != 0, log_probs_T, 0.0)

    return jax.lax.map(sentence, (hidden, target_BT))  # one sentence's logits at a time
