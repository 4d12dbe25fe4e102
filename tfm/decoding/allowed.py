"""What search may write next: the model's logits after all settings, transforms, constraints."""

import jax

from tfm.decoding import transforms as named
from tfm.decoding.config import Decode
from tfm.decoding.constraints import Constraints, exclude_forbidden, follow_prefix
from tfm.decoding.types import Transform


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
