"""Which keys a query may attend to: bool masks, True = may attend, that broadcast to [B,N,T,S]."""

import jax
import jax.numpy as jnp

from tfm.shapes import Check
from tfm.values import Values


def padding(valid_BS: jax.Array) -> jax.Array:
    """Hides padding: every query sees the real tokens of its row.

    Args:
      valid_BS: bool, or any array that is 0 at padding (segment ids, say).

    Returns:
      [B,1,1,S].
    """
    Check("padding").arrays(("float", "int", "bool"), valid_BS=valid_BS)
    return (valid_BS != 0)[:, None, None, :]


def causal(queries: int, keys: int | None = None, offset: int = 0) -> jax.Array:
    """Hides later keys: query t sees keys up to t + offset.

    The decoder's mask (Vaswani 2017, §3.2.3); for 4 positions, 1 = may attend::

        1 0 0 0
        1 1 0 0
        1 1 1 0
        1 1 1 1

    Returns:
      [1,1,T,S].
    """
    keys = queries if keys is None else keys
    check = Values("causal")
    check.counts(0, queries=queries, keys=keys)
    check.integers(offset=offset)
    return jnp.tri(queries, keys, k=offset, dtype=bool)[None, None]


def window(queries: int, keys: int, width: int, offset: int = 0) -> jax.Array:
    """Hides distant keys: query t sees keys t + offset - width to t + offset + width.

    For 5 positions and width 1::

        1 1 0 0 0
        1 1 1 0 0
        0 1 1 1 0
        0 0 1 1 1
        0 0 0 1 1

    Returns:
      [1,1,T,S].
    """
    check = Values("window")
    check.counts(0, queries=queries, keys=keys, width=width)
    check.integers(offset=offset)
    past = jnp.tri(queries, keys, k=offset - width - 1, dtype=bool)
    near = jnp.tri(queries, keys, k=offset + width, dtype=bool)
    return (near & ~past)[None, None]


def segment(query_segments_BT: jax.Array, key_segments_BS: jax.Array) -> jax.Array:
    """Keeps packed sentences apart: a query sees keys of its own segment; 0 is padding.

    For segments 1 1 2 0::

        1 1 0 0
        1 1 0 0
        0 0 1 0
        0 0 0 0

    Returns:
      [B,1,T,S].
    """
    check = Check("segment")
    check.ints("BT", query_segments_BT=query_segments_BT)
    check.ints("BS", key_segments_BS=key_segments_BS)
    same = query_segments_BT[:, :, None] == key_segments_BS[:, None, :]
    return (same & (key_segments_BS != 0)[:, None, :])[:, None]


def combine(*masks: jax.Array | None) -> jax.Array | None:
    """The logical and of all masks; ``None`` means no restriction."""
    check, combined = Check("combine"), None
    for i, mask in enumerate(masks):
        if mask is not None:
            check.mask(mask, name=f"masks[{i}]")
            mask = mask[None, None] if mask.ndim == 2 else mask
            combined = mask if combined is None else combined & mask
    return combined
