"""Linear attention: the softmax's kernel replaced by a product of features (Katharopoulos 2020).

Σ φ(q)·φ(k) v = φ(q) · Σ φ(k) vᵀ: all earlier keys and values are summed up in one matrix, of a size
that does not grow with length. φ(x) = elu(x) + 1 is positive, so the weights are too.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tfm.attention.dot_product import check_one_sequence, heads_first
from tfm.positions import Rotation
from tfm.shapes import Check


def features(x: jax.Array) -> jax.Array:
    """φ(x) = elu(x) + 1 (Katharopoulos 2020, eq. 7), in float32."""
    Check("features").floats("...", x=x)
    return jax.nn.elu(x.astype(jnp.float32)) + 1.0


def linear(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    *,
    segments_BT: jax.Array | None = None,
    causal: bool = False,
    rotate: Rotation | None = None,
    chunk: int = 64,
) -> jax.Array:
    """Σ (φ(q)·φ(k)) v / Σ φ(q)·φ(k) over the keys of the segment, or those up to the query.

    It forms neither scores nor weights, so it takes no mask, bias, scale, soft cap or dropout. To
    see the weights, pass ``jnp.eye(T)`` as the values of every head: their width may be any.

    Args:
      segments_BT: 0 = padding, which gives zeros; ``None`` is one sentence a row.
      causal: hide later keys (eq. 9).
      rotate: rotary positions, [B,N,T,H] → the same shape; applied to the features of the numerator
        only, so that the denominator stays positive (Su 2021, eq. 19).
      chunk: positions computed at a time; time and memory are linear in T · chunk.

    Returns:
      [B,T,N,H] in q's dtype.

    Raises:
      ValueError: an argument of another rank, dtype or shape; queries and keys differ in number.
    """
    check = Check("linear")
    check.floats(q_BTNH=q_BTNH)
    check.floats("BSKH", k_BTKH=k_BTKH)
    check.floats("BSKV", v_BTKH=v_BTKH)
    if segments_BT is None:
        segments_BT = jnp.ones(q_BTNH.shape[:2], jnp.int32)
    _check_linear(check, segments_BT, rotate, chunk)
    out_BNTH = linear_heads_first(
        *heads_first(q_BTNH, k_BTKH, v_BTKH),
        segments_BT,
        causal=causal,
        rotate=rotate,
        chunk=chunk,
    )
    return out_BNTH.swapaxes(1, 2)


def linear_heads_first(
    q_BNTH: jax.Array,
    k_BKTH: jax.Array,
    v_BKTH: jax.Array,
    segments_BT: jax.Array,
    *,
    causal: bool = False,
    rotate: Rotation | None = None,
    chunk: int = 64,
) -> jax.Array:
    """``linear`` for arrays with heads before time: [B,N,T,H]."""
    check = Check("linear_heads_first")
    check.floats(q_BNTH=q_BNTH)
    check.floats("BKSH", k_BKTH=k_BKTH)
    check.floats("BKSV", v_BKTH=v_BKTH)
    _check_linear(check, segments_BT, rotate, chunk)
    real_BT1 = (segments_BT != 0)[:, None, :, None]
    q, k = features(q_BNTH), jnp.where(real_BT1, features(k_BKTH), 0.0)
    v = v_BKTH.astype(jnp.float32)
    ones = jnp.ones((*v.shape[:3], 1), jnp.float32)

    def total(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        past = _causal_sums(q, k, v, segments_BT, inclusive=True, chunk=chunk)
        if causal:
            return past
        q, k, v, segments = (
            jnp.flip(x, axis) for x, axis in ((q, 2), (k, 2), (v, 2), (segments_BT, 1))
        )
        future = _causal_sums(q, k, v, segments, inclusive=False, chunk=chunk)
        return past + jnp.flip(future, 2)

    if rotate is None:  # one pass gives numerator and denominator
        both = total(q, k, jnp.concatenate([v, ones], axis=-1))
        numerator, denominator = both[..., :-1], both[..., -1:]
    else:
        numerator, denominator = total(rotate(q), rotate(k), v), total(q, k, ones)
    return _ratio(numerator, denominator).astype(q_BNTH.dtype)


def _check_linear(
    check: Check, segments_BT: jax.Array, rotate: Rotation | None, chunk: int
) -> None:
    check.heads()
    check_one_sequence(check)
    check.ints(segments_BT=segments_BT)
    check.counts(chunk=chunk)
    if rotate is not None:
        check.function_of("[B,N,T,H] → the same shape", rotate=rotate)


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """Zero, with zero gradients, where there was no key."""
    any_key = denominator > 0
    return jnp.where(any_key, numerator / jnp.where(any_key, denominator, 1.0), 0.0)


def _causal_sums(
    q_BNTH: jax.Array,
    k_BKTH: jax.Array,
    v_BKTV: jax.Array,
    segments_BT: jax.Array,
    *,
    inclusive: bool,
    chunk: int,
) -> jax.Array:
    """Σ_j (q_i · k_j) v_j over the keys j < i (inclusive: j ≤ i) of i's segment: [B,N,T,V].

    A scan over chunks: keys of the chunk enter by masked scores, keys before it by the state
    Σ k vᵀ, which is reset where the segment changes.
    """
    (B, N, T, H), K = q_BNTH.shape, k_BKTH.shape[1]
    G, V = N // K, v_BKTV.shape[-1]
    size = min(chunk, T)
    count = -(-T // size)
    past = jnp.tri(size, k=0 if inclusive else -1, dtype=bool)[None]

    def split(x: jax.Array, axis: int) -> jax.Array:
        """T → [count, size], count first."""
        x = jnp.pad(x, [(0, count * size - T) if i == axis else (0, 0) for i in range(x.ndim)])
        x = x.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    def step(carry: tuple, inputs: tuple) -> tuple:
        (state_BKHV, segment_B), (q, k, v, segments) = carry, inputs
        same = (segments[:, :, None] == segments[:, None, :]) & past
        scores = jnp.einsum("bkgth,bksh->bkgts", q, k) * same[:, None, None]
        continues = (segments == segment_B[:, None])[:, None, None, :, None]
        sums = jnp.einsum("bkgts,bksv->bkgtv", scores, v)
        sums += jnp.einsum("bkgth,bkhv->bkgtv", q, state_BKHV) * continues
        last_B = segments[:, -1]
        carried = (last_B == segment_B)[:, None, None, None]
        k = k * (segments == last_B[:, None])[:, None, :, None]
        state_BKHV = jnp.where(carried, state_BKHV, 0.0) + jnp.einsum("bksh,bksv->bkhv", k, v)
        return (state_BKHV, last_B), sums

    start = jnp.zeros((B, K, H, V), jnp.float32), jnp.full((B,), -1, segments_BT.dtype)
    q = q_BNTH.reshape(B, K, G, T, H)
    chunks = split(q, 3), split(k_BKTH, 2), split(v_BKTV, 2), split(segments_BT, 1)
    sums: jax.Array
    _, sums = jax.lax.scan(step, start, chunks)  # [count,B,K,G,size,V]
    return jnp.moveaxis(sums, 0, 3).reshape(B, N, count * size, V)[:, :, :T]


class State(NamedTuple):
    """All that linear attention keeps of earlier tokens, for R hypotheses: a constant-size cache.

    Attributes:
      kv: Σ φ(k) vᵀ [B,K,R,H,H], of rotated features if positions are rotary.
      k: Σ φ(k) [B,K,R,H].
    """

    kv: jax.Array
    k: jax.Array


def empty_state(batch: int, kv_heads: int, hypotheses: int, head_dim: int) -> State:
    """The state before the first step: zeros, float32."""
    Check("empty_state").counts(
        batch=batch, kv_heads=kv_heads, hypotheses=hypotheses, head_dim=head_dim
    )
    kv = jnp.zeros((batch, kv_heads, hypotheses, head_dim, head_dim), jnp.float32)
    return State(kv, kv[..., 0])


def reorder_state(state: State, parents_BR: jax.Array) -> State:
    """Gives every hypothesis the state of its parent."""
    check = _check_state("reorder_state", state)
    check.ints(parents_BR=parents_BR)
    check.within(check.size("R"), "the hypotheses", parents_BR=parents_BR)
    parents = parents_BR[:, None, :, None]
    return State(
        kv=jnp.take_along_axis(state.kv, parents[..., None], axis=2),
        k=jnp.take_along_axis(state.k, parents, axis=2),
    )


def update_state(
    state: State, k_BKRH: jax.Array, v_BKRH: jax.Array, rotate: Rotation | None = None
) -> State:
    """Adds one token to every hypothesis (Katharopoulos 2020, eqs. 18 and 19)."""
    check = _check_state("update_state", state, rotate)
    check.floats(k_BKRH=k_BKRH, v_BKRH=v_BKRH)
    k = features(k_BKRH)
    rotated = k if rotate is None else rotate(k)
    return State(
        kv=state.kv + rotated[..., :, None] * v_BKRH.astype(jnp.float32)[..., None, :],
        k=state.k + k,
    )


def attend_state(state: State, q_BNRH: jax.Array, rotate: Rotation | None = None) -> jax.Array:
    """The output for one query of every hypothesis (Katharopoulos 2020, eq. 20): [B,N,R,H]."""
    check = _check_state("attend_state", state, rotate)
    check.floats(q_BNRH=q_BNRH)
    check.heads()
    (B, N, R, H), K = q_BNRH.shape, state.k.shape[1]
    q = features(q_BNRH)
    q_BKGRH, rotated_BKGRH = (
        x.reshape(B, K, N // K, R, H) for x in (q, q if rotate is None else rotate(q))
    )
    numerator = jnp.einsum("bkgrh,bkrhv->bkgrv", rotated_BKGRH, state.kv)
    denominator = jnp.einsum("bkgrh,bkrh->bkgr", q_BKGRH, state.k)[..., None]
    return _ratio(numerator, denominator).reshape(B, N, R, H).astype(q_BNRH.dtype)


def _check_state(function: str, state: State, rotate: Rotation | None = None) -> Check:
    check = Check(function)
    check.instance(State, state=state)
    check.floats("BKRH", **{"state.k": state.k})
    H, name = check.sizes["H"]
    check.sizes["V"] = H, name
    check.floats("BKRHV", **{"state.kv": state.kv})
    if rotate is not None:
        check.function_of("[B,N,R,H] → the same shape", rotate=rotate)
    return check
