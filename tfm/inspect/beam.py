"""Beam search watched: the hypotheses it kept at every step, and the finished ones."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from tfm import transformer, translator
from tfm.config import Decode
from tfm.decoding.types import Hypotheses, Step
from tfm.params import Tree


@flax.struct.dataclass
class Beam:
    """One sentence's search with R hypotheses; step 0 is bos.

    Attributes:
      tokens_QR: the newest token of each hypothesis alive at each of Q steps.
      parents_QR: the hypothesis of the step before that it continues.
      log_probs_QR: its natural-log probability so far; -inf where there is no such hypothesis.
      finished: the ``Hypotheses`` found, best first, without the batch axis.
    """

    tokens_QR: np.ndarray
    parents_QR: np.ndarray
    log_probs_QR: np.ndarray
    finished: Hypotheses


def watch(
    params: Tree,
    c: transformer.Config,
    settings: Decode,
    source: list[int],
    compiler_options: dict[str, Any] | None = None,
) -> Beam:
    """Searches the translation of one sentence of ids as the translator does."""
    steps: list[tuple[np.ndarray, ...]] = []

    def keep(tokens_1R: Any, parents_1R: Any, gained_1R: Any) -> None:
        steps.append(tuple(np.array(x)[0] for x in (tokens_1R, parents_1R, gained_1R)))

    run = functools.partial(
        translator.search,
        c=dataclasses.replace(c, unroll=1),  # one layer of the encoder to compile instead of all
        settings=settings,
        watched=functools.partial(_told, keep, (1, settings.beam_size, c.target_vocab)),
    )
    search = jax.jit(run, compiler_options=compiler_options)
    found = jax.tree.map(np.asarray, search(params, jnp.asarray([source])))
    jax.effects_barrier()  # every step has been kept

    log_probs = np.full(settings.beam_size, -np.inf)
    log_probs[0] = 0.0  # search starts from equal hypotheses, of which only one counts
    totals = [log_probs]
    for _, parents, gained in steps[1:]:
        totals.append(totals[-1][parents] + gained)
    tokens, parents, _ = (np.stack(x) for x in zip(*steps, strict=True))
    return Beam(tokens, parents, np.stack(totals), Hypotheses(*(x[0] for x in found)))


def _told(keep: Callable, shape: tuple[int, int, int], step: Step, state: Any) -> tuple[Step, Any]:
    """The step of a search that tells ``keep`` of its tokens, parents and gains, [1,R] each.

    Args:
      shape: [1,R,V] of the log-probabilities that the state carries from step to step.
    """

    def told(tokens: jax.Array, parents: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        inner, before_1RV = state
        inherited_1RV = jnp.take_along_axis(before_1RV, parents[:, :, None], axis=1)
        gained = jnp.take_along_axis(inherited_1RV, tokens[:, :, None], axis=2)[:, :, 0]
        io_callback(keep, None, tokens, parents, gained, ordered=True)
        logits, inner = step(tokens, parents, inner)
        return logits, (inner, jax.nn.log_softmax(logits))

    return told, (state, jnp.zeros(shape))
