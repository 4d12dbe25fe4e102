"""Scaled dot-product attention."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from tfm import layers
from tfm.positions import Relative
from tfm.shapes import Check


def attend(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    relative: Relative | None = None,
    scale: float | None = None,
    soft_cap: float = 0.0,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
    return_weights: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """softmax(q kᵀ · scale + bias) v, row by row (Vaswani 2017, eq. 1).

    Unit-normal q and k give scores of variance H; the default scale 1/sqrt(H) brings it to 1.
    A query whose mask row is empty gives zeros, with zero gradients.

    Args:
      q_BTNH, k_BSKH, v_BSKH: N a multiple of K.
      mask: bool, True = may attend; [T,S], or broadcasts to [B,N,T,S].
      bias: added to the scaled scores; of such a shape too.
      relative: terms of a relative position scheme, added to the unscaled scores and to the output.
      soft_cap: scores x, bias included, become cap · tanh(x / cap), within ±cap (Gemma 2, 2024,
        §2); 0 is off.
      dropout_rate, key: dropout on the weights; a rate without a key is an error.
      return_weights: also return the weights [B,N,T,S], float32, before dropout.

    Returns:
      [B,T,N,H] in q's dtype. Scores and softmax are float32 inside.

    Raises:
      ValueError: an argument of another rank, dtype or shape; N is not a multiple of K.
    """
    check = Check("attend")
    check.floats(q_BTNH=q_BTNH, k_BSKH=k_BSKH, v_BSKH=v_BSKH)
    check_scores(
        check,
        mask=mask,
        bias=bias,
        relative=relative,
        scale=scale,
        soft_cap=soft_cap,
        dropout_rate=dropout_rate,
        key=key,
    )
    out_BNTH, weights_BNTS = attend_heads_first(
        *heads_first(q_BTNH, k_BSKH, v_BSKH),
        mask=mask,
        bias=bias,
        relative=relative,
        scale=scale,
        soft_cap=soft_cap,
        dropout_rate=dropout_rate,
        key=key,
    )
    out_BTNH = out_BNTH.swapaxes(1, 2)
    return (out_BTNH, weights_BNTS) if return_weights else out_BTNH


def attend_heads_first(
    q_BNTH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    relative: Relative | None = None,
    scale: float | None = None,
    soft_cap: float = 0.0,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """``attend`` for arrays with heads before time, as caches keep them.

    Returns:
      ([B,N,T,H], weights [B,N,T,S]).
    """
    check = Check("attend_heads_first")
    check.floats(q_BNTH=q_BNTH, k_BKSH=k_BKSH, v_BKSH=v_BKSH)
    check_scores(
        check,
        mask=mask,
        bias=bias,
        relative=relative,
        scale=scale,
        soft_cap=soft_cap,
        dropout_rate=dropout_rate,
        key=key,
    )
    B, N, T, H = q_BNTH.shape
    K, S = k_BKSH.shape[1:3]
    groups = N // K
    scale = H**-0.5 if scale is None else scale

    # The queries of the G heads that share a key head are rows of one matrix: one product each.
    q_BKRH = q_BNTH.reshape(B, K, groups * T, H)
    scores_BKRS = jnp.einsum("bkrh,bksh->bkrs", q_BKRH, k_BKSH, preferred_element_type=jnp.float32)
    scores_BNTS = scores_BKRS.reshape(B, N, T, S)
    if relative is not None:
        more_BNTS = relative.scores(q_BNTH, k_BKSH)
        check.floats("BNTS", **{"relative.scores(q, k)": more_BNTS})
        scores_BNTS += more_BNTS
    out_BNTH, weights_BNTS = weighted_values(
        scores_BNTS * scale,
        v_BKSH,
        mask=mask,
        bias=bias,
        more_values=None if relative is None else relative.values,
        soft_cap=soft_cap,
        dropout_rate=dropout_rate,
        key=key,
    )
    return out_BNTH.astype(q_BNTH.dtype), weights_BNTS


def weighted_values(
    scores_BNTS: jax.Array,
    v_BKSH: jax.Array,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    more_values: Callable[[jax.Array], jax.Array] | None = None,
    soft_cap: float = 0.0,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Softmax of the scores, and the weighted mean of the values.

    Args:
      scores_BNTS: scaled; from dot products or anything else.
      more_values: a function of the weights after dropout, [B,N,T,S] → [B,N,T,H], whose result is
        added to the output.

    Returns:
      ([B,N,T,H], weights [B,N,T,S] float32 before dropout).
    """
    check = Check("weighted_values")
    check.floats(scores_BNTS=scores_BNTS, v_BKSH=v_BKSH)
    check_scores(check, mask=mask, bias=bias, soft_cap=soft_cap, dropout_rate=dropout_rate, key=key)
    if more_values is not None:
        check.function_of("weights [B,N,T,S] → [B,N,T,H]", more_values=more_values)
    B, N, T, S = scores_BNTS.shape
    K, H = v_BKSH.shape[1], v_BKSH.shape[3]
    if bias is not None:
        scores_BNTS += bias if bias.ndim == 4 else bias[None, None]
    if soft_cap:
        scores_BNTS = soft_cap * jnp.tanh(scores_BNTS / soft_cap)
    if mask is not None and mask.ndim == 2:
        mask = mask[None, None]
    weights_BNTS = masked_softmax(scores_BNTS, mask)

    dropped_BNTS = layers.dropout(weights_BNTS, dropout_rate, key).astype(v_BKSH.dtype)
    dropped_BKRS = dropped_BNTS.reshape(B, K, N // K * T, S)
    out_BKRH = jnp.einsum("bkrs,bksh->bkrh", dropped_BKRS, v_BKSH)
    out_BNTH = out_BKRH.reshape(B, N, T, H)
    if more_values is not None:
        more_BNTH = more_values(dropped_BNTS)
        check.floats("BNTH", **{"more_values(weights)": more_BNTH})
        out_BNTH += more_BNTH
    return out_BNTH, weights_BNTS


def masked_softmax(scores: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Softmax over the last axis where the mask is True; a row without any True gives zeros.

    Args:
      mask: bool; broadcasts to the scores, or to their last two dimensions.
    """
    check = Check("masked_softmax")
    check.floats("...S", scores=scores)
    letters = "UVWXYZBNTS"[-scores.ndim :]
    check.floats(letters, scores=scores)
    check.mask(mask, letters)
    if mask is None:
        return jax.nn.softmax(scores, axis=-1)
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    return jnp.where(mask, jax.nn.softmax(scores, axis=-1), 0.0)


def heads_first(
    q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[B,T,N,H], [B,S,K,H], [B,S,K,H] → [B,N,T,H], [B,K,S,H], [B,K,S,H]."""
    return q_BTNH.swapaxes(1, 2), k_BSKH.swapaxes(1, 2), v_BSKH.swapaxes(1, 2)


def check_scores(
    check: Check,
    *,
    mask: jax.Array | None = None,
    bias: jax.Array | None = None,
    relative: Relative | None = None,
    scale: float | None = None,
    soft_cap: float = 0.0,
    dropout_rate: float = 0.0,
    key: jax.Array | None = None,
) -> None:
    """Checks what acts on scores, after the arrays that give B, N, T, S and K their sizes."""
    check.heads()
    check.mask(mask)
    check.bias(bias)
    check.dropout(dropout_rate, key, rows=check.size("B"))
    check.not_negative(soft_cap=soft_cap)
    if scale is not None:
        check.positive(scale=scale)
    if relative is not None:
        check.instance(Relative, relative=relative)
        check.function_of("(q, k) → [B,N,T,S]", **{"relative.scores": relative.scores})
        if relative.values is not None:
            check.function_of("weights → [B,N,T,H]", **{"relative.values": relative.values})


def check_one_sequence(check: Check) -> None:
    """Checks that the queries T and the keys S, known to ``check``, are those of one sequence."""
    T, S = check.size("T"), check.size("S")
    if T != S:
        raise check.error(
            f"it is self-attention, got {T} queries and {S} keys: use attend between two sequences "
            f"({check.sizes['T'][1]} and {check.sizes['S'][1]})"
        )
