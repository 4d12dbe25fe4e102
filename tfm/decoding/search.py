"""The loop of every strategy: start, advance while a sentence is running, finish."""

from types import ModuleType
from typing import Any

import jax

from tfm.decoding import beam, diverse, sample
from tfm.decoding.config import Decode
from tfm.decoding.constraints import NONE, Constraints
from tfm.decoding.types import Hypotheses, Step, Transform

STRATEGIES: dict[str, ModuleType] = {"beam": beam, "diverse": diverse, "sample": sample}
"""Modules with ``start``, ``advance``, ``running`` and ``finish``, by ``Decode.search``."""


def search(
    step: Step,
    model: Any,
    limits_B: jax.Array,
    decode: Decode,
    *,
    max_length: int,
    bos: int,
    eos: int,
    keys_B: jax.Array | None = None,
    transforms: tuple[Transform, ...] = (),
    constraints: Constraints = NONE,
) -> Hypotheses:
    """Finds R continuations of bos under the model behind ``step``.

    Args:
      step: the model; the first call has R equal hypotheses.
      model: its state.
      limits_B: tokens a sentence may have, eos included; at most ``max_length``, at least 1.
      decode: the strategy and its settings; R is ``decode.hypotheses``.
      max_length: T, static.
      keys_B: a random key for each sentence, for a strategy that draws.
      transforms: applied to the logits in this order before tokens are chosen.
      constraints: what each sentence must hold, must not hold, and begins with.
    """
    strategy = STRATEGIES[decode.search]
    state = strategy.start(
        model, limits_B, decode, max_length=max_length, keys_B=keys_B, constraints=constraints
    )
    return run(step, state, decode, bos=bos, eos=eos, transforms=transforms)


def run(
    step: Step,
    state: Any,
    decode: Decode,
    *,
    bos: int,
    eos: int,
    transforms: tuple[Transform, ...] = (),
) -> Hypotheses:
    """``search`` from a state that ``start`` gave: one ``lax.while_loop``."""
    strategy = STRATEGIES[decode.search]
    last = jax.lax.while_loop(
        lambda state: strategy.running(state).any(),
        lambda state: strategy.advance(
            step, state, decode, bos=bos, eos=eos, transforms=transforms
        ),
        state,
    )
    return strategy.finish(last)
