"""Beam search, step by step: the hypotheses that it kept, and those that it finished."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from tfm.decoding import Decode, Hypotheses, beam
from tfm.params import Tree
from tfm.transformer import Architecture, Execution
from tfm.translator import programs


@flax.struct.dataclass
class Beam:
    """One sentence's search with R hypotheses; step 0 is bos.

    Attributes:
      tokens_QR: the newest token of each live hypothesis at each of Q steps.
      parents_QR: the hypothesis of the step before that it continues.
      log_probs_QR: its natural-log probability so far; -inf where there is no such hypothesis.
      finished: the ``Hypotheses`` found, best first, without the batch axis.
    """

    tokens_QR: np.ndarray
    parents_QR: np.ndarray
    log_probs_QR: np.ndarray
    finished: Hypotheses


def record(
    params: Tree,
    arch: Architecture,
    decode: Decode,
    source: list[int],
    bos: int,
    execution: Execution = Execution(),
    compiler_options: dict[str, Any] | None = None,
) -> Beam:
    """Searches the translation of one sentence of ids as the translator does.

    Args:
      params: of ``transformer.inference_params``.
    """
    # Scanned, one layer of the encoder is compiled instead of all.
    execution = Execution(lookup=execution.lookup, dtype=execution.dtype, unroll=1)
    options = {"arch": arch, "decode": decode, "execution": execution}
    compiled = functools.partial(jax.jit, compiler_options=compiler_options)
    start = compiled(functools.partial(programs.start, **options))
    advance = compiled(functools.partial(programs.advance, **options), donate_argnums=1)

    state = start(params, jnp.asarray([source]))
    R = decode.beam_size
    log_probs_R = np.full(R, -np.inf)
    log_probs_R[0] = 0.0  # search starts from equal hypotheses, of which only one counts
    steps = [(np.full(R, bos), np.arange(R), log_probs_R)]
    while True:
        state = advance(params, state)
        if not beam.running(state).any():
            break
        log_probs_R = np.array(state.log_probs[0])
        log_probs_R[log_probs_R <= beam.NEGATIVE / 2] = -np.inf
        newest = np.array(state.tokens[0, :, int(state.step[0]) - 1])
        steps.append((newest, np.array(state.parents[0]), log_probs_R))
    finished = Hypotheses(*(np.asarray(x[0]) for x in beam.finish(state)))
    return Beam(*(np.stack(x) for x in zip(*steps, strict=True)), finished)
