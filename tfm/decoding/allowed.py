"""What search may write next: the model's logits after all settings, transforms, constraints."""

from typing import Any, NamedTuple

import jax

from tfm.decoding import transforms as named
from tfm.decoding.config import Decode
from tfm.decoding.constraints import Constraints, exclude_forbidden, follow_prefix
from tfm.decoding.types import Step, Transform, newest


class Next(NamedTuple):
    """What a model says of the next token of every hypothesis.

    Attributes:
      own, allowed: [B,R,V], the model's logits, and those by which tokens are chosen.
      log_z: [B,R], the log of the sum of exp(own).
      model: its new state.
    """

    own: jax.Array
    allowed: jax.Array
    log_z: jax.Array
    model: Any


def next_logits(
    step: Step,
    model: Any,
    tokens_BRT: jax.Array,
    step_B: jax.Array,
    parents_BR: jax.Array,
    decode: Decode,
    constraints: Constraints,
    transforms: tuple[Transform, ...],
    *,
    bos: int,
    eos: int,
) -> Next:
    """Gives the model the newest token of every hypothesis."""
    last_BR = newest(tokens_BRT, step_B, bos)
    own_BRV, log_z_BR, model = step(last_BR, parents_BR, model)
    allowed_BRV = allowed(
        own_BRV, log_z_BR, tokens_BRT, step_B, decode, constraints, transforms, eos=eos
    )
    return Next(own_BRV, allowed_BRV, log_z_BR, model)


def allowed(
    logits_BRV: jax.Array,
    log_z_BR: jax.Array,
    tokens_BRT: jax.Array,
    step_B: jax.Array,
    decode: Decode,
    constraints: Constraints,
    transforms: tuple[Transform, ...],
    *,
    eos: int,
) -> jax.Array:
    """The logits by which tokens are chosen; the very array where nothing changes them.

    In this order: what ``decode`` names, forbidden sequences, ``transforms``, and last the prefix,
    which a forced one overrides all others with.
    """
    own_BRV = logits_BRV
    for transform in named.for_all(decode, log_z_BR, eos):
        logits_BRV = transform(logits_BRV, tokens_BRT, step_B)
    if constraints.forbidden is not None:
        logits_BRV = exclude_forbidden(logits_BRV, tokens_BRT, step_B, constraints.forbidden)
    for transform in transforms:
        logits_BRV = transform(logits_BRV, tokens_BRT, step_B)
    if constraints.prefix is not None:
        logits_BRV = follow_prefix(
            logits_BRV, own_BRV, tokens_BRT, step_B, constraints.prefix, decode.prefix_bias
        )
    return logits_BRV
