"""Linear attention: the softmax's kernel replaced by a product of features (Katharopoulos 2020).

Σ φ(q)·φ(k) v = φ(q) · Σ φ(k) vᵀ: what lies behind is summed up in one matrix, of a size that does
not grow with length. φ(x) = elu(x) + 1 is positive, so the weights are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.attention.dot_product import queries_a_key_head, refuse

Turn = Callable[[jax.Array], jax.Array]

_NO_SCORES = "it forms no scores; take attend"
_INSTEAD = {
    "mask": "pass segments_BT (0 = padding), and causal=True to hide the future",
    "bias": f"{_NO_SCORES}, or rotary positions as turn",
    "relative": f"{_NO_SCORES}, or rotary positions as turn",
    "scale": "it cancels out; leave it away",
    "soft_cap": _NO_SCORES,
    "dropout_rate": "it forms no weights; drop out its output instead",
    "key": "it has no dropout; drop out its output instead",
    "return_weights": "it forms none; pass jnp.eye(T) as the values of every head to see them",
}


def features(x: jax.Array) -> jax.Array:
    """φ(x) = elu(x) + 1 (Katharopoulos 2020, eq. 7), in float32."""
    return jax.nn.elu(x.astype(jnp.float32)) + 1.0


def linear(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    *,
    segments_BT: jax.Array | None = None,
    causal: bool = False,
    turn: Turn | None = None,
    chunk: int = 64,
    **settings: Any,
) -> jax.Array:
    """Σ (φ(q)·φ(k)) v / Σ φ(q)·φ(k) over the keys of the segment, or those up to the query.

    Args:
      segments_BT: 0 = padding, which gives zeros; ``None`` is one sentence a row.
      causal: see the past and oneself only (eq. 9).
      turn: rotary positions, applied to features above the line only, so that the weights' sum
        stays positive (Su 2021, eq. 19): heads first [B,N,T,H] → the same.
      chunk: places taken at once; time and memory are linear in T · chunk.

    Returns:
      [B,T,N,H] in q's dtype.

    Raises:
      ValueError: queries and keys of unequal number, or a setting of ``attend`` that is not above.
    """
    refuse("linear", settings, _INSTEAD)
    if q_BTNH.shape[1] != k_BTKH.shape[1]:
        raise ValueError(
            f"linear attention is of a row to itself, got {q_BTNH.shape[1]} queries and "
            f"{k_BTKH.shape[1]} keys: tell sentences of a row apart by segments_BT, and take "
            "attend from one text to another"
        )
    if segments_BT is None:
        segments_BT = jnp.ones(q_BTNH.shape[:2], jnp.int32)
    heads_first = (x.swapaxes(1, 2) for x in (q_BTNH, k_BTKH, v_BTKH))
    out_BNTH = linear_heads_first(*heads_first, segments_BT, causal=causal, turn=turn, chunk=chunk)
    return out_BNTH.swapaxes(1, 2)


def linear_heads_first(
    q_BNTH: jax.Array,
    k_BKTH: jax.Array,
    v_BKTH: jax.Array,
    segments_BT: jax.Array,
    *,
    causal: bool = False,
    turn: Turn | None = None,
    chunk: int = 64,
) -> jax.Array:
    """``linear`` for arrays with heads before time: [B,N,T,H]."""
    real_BT1 = (segments_BT != 0)[:, None, :, None]
    q, k = features(q_BNTH), jnp.where(real_BT1, features(k_BKTH), 0.0)
    v = v_BKTH.astype(jnp.float32)
    ones = jnp.ones((*v.shape[:3], 1), jnp.float32)

    def total(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        behind = _sums_behind(q, k, v, segments_BT, itself=True, chunk=chunk)
        if causal:
            return behind
        turned = (jnp.flip(x, 2) for x in (q, k, v))
        ahead = _sums_behind(*turned, jnp.flip(segments_BT, 1), itself=False, chunk=chunk)
        return behind + jnp.flip(ahead, 2)

    if turn is None:  # one pass for both sides of the line
        both = total(q, k, jnp.concatenate([v, ones], axis=-1))
        above, below = both[..., :-1], both[..., -1:]
    else:
        above, below = total(turn(q), turn(k), v), total(q, k, ones)
    return _ratio(above, below).astype(q_BNTH.dtype)


def _ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    """Zero where nothing was seen, gradients included."""
    seen = below > 0
    return jnp.where(seen, above / jnp.where(seen, below, 1.0), 0.0)


def _sums_behind(
    q_BNTH: jax.Array,
    k_BKTH: jax.Array,
    v_BKTV: jax.Array,
    segments_BT: jax.Array,
    *,
    itself: bool,
    chunk: int,
) -> jax.Array:
    """Σ_j (q_i · k_j) v_j over the keys j before i, or up to i, of i's segment: [B,N,T,V].

    Chunk by chunk: within the chunk by masked scores, before it by the state Σ k vᵀ that is carried
    along and starts anew where the segment changes.
    """
    (B, N, T, H), K = q_BNTH.shape, k_BKTH.shape[1]
    G, V = queries_a_key_head(N, K), v_BKTV.shape[-1]
    size = min(chunk, T)
    count = -(-T // size)
    past = jnp.tri(size, k=0 if itself else -1, dtype=bool)[None]

    def cut(x: jax.Array, axis: int) -> jax.Array:
        """T → [count, size], count first."""
        x = jnp.pad(x, [(0, count * size - T) if i == axis else (0, 0) for i in range(x.ndim)])
        x = x.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    def step(carry: tuple, inputs: tuple) -> tuple:
        (state_BKHV, segment_B), (q, k, v, segments) = carry, inputs
        same = (segments[:, :, None] == segments[:, None, :]) & past
        scores = jnp.einsum("bkgth,bksh->bkgts", q, k) * same[:, None, None]
        from_before = (segments == segment_B[:, None])[:, None, None, :, None]
        sums = jnp.einsum("bkgts,bksv->bkgtv", scores, v)
        sums += jnp.einsum("bkgth,bkhv->bkgtv", q, state_BKHV) * from_before
        last_B = segments[:, -1]
        goes_on = (last_B == segment_B)[:, None, None, None]
        k = k * (segments == last_B[:, None])[:, None, :, None]
        state_BKHV = jnp.where(goes_on, state_BKHV, 0.0) + jnp.einsum("bksh,bksv->bkhv", k, v)
        return (state_BKHV, last_B), sums

    start = jnp.zeros((B, K, H, V), jnp.float32), jnp.full((B,), -1, segments_BT.dtype)
    q = q_BNTH.reshape(B, K, G, T, H)
    chunks = cut(q, 3), cut(k_BKTH, 2), cut(v_BKTV, 2), cut(segments_BT, 1)
    _, sums = jax.lax.scan(step, start, chunks)  # [count,B,K,G,size,V]
    return jnp.moveaxis(sums, 0, 3).reshape(B, N, count * size, V)[:, :, :T]


class State(NamedTuple):
    """All that linear attention keeps of the past, for R hypotheses: a cache of constant size.

    Attributes:
      kv: Σ φ(k) vᵀ [B,K,R,H,H], of turned features if positions are rotary.
      k: Σ φ(k) [B,K,R,H].
    """

    kv: jax.Array
    k: jax.Array


def empty_state(batch: int, kv_heads: int, hypotheses: int, head_dim: int) -> State:
    """Before the first step: zeros, float32."""
    kv = jnp.zeros((batch, kv_heads, hypotheses, head_dim, head_dim), jnp.float32)
    return State(kv, kv[..., 0])


def follow(state: State, parents_BR: jax.Array) -> State:
    """The state of each hypothesis from that of its parent."""
    parents = parents_BR[:, None, :, None]
    return State(
        kv=jnp.take_along_axis(state.kv, parents[..., None], axis=2),
        k=jnp.take_along_axis(state.k, parents, axis=2),
    )


def add(state: State, k_BKRH: jax.Array, v_BKRH: jax.Array, turn: Turn | None = None) -> State:
    """One token more for every hypothesis (Katharopoulos 2020, eqs. 18 and 19)."""
    k = features(k_BKRH)
    turned = k if turn is None else turn(k)
    return State(
        kv=state.kv + turned[..., :, None] * v_BKRH.astype(jnp.float32)[..., None, :],
        k=state.k + k,
    )


def read(state: State, q_BNRH: jax.Array, turn: Turn | None = None) -> jax.Array:
    """What each hypothesis finds (Katharopoulos 2020, eq. 20): [B,N,R,H]."""
    (B, N, R, H), K = q_BNRH.shape, state.k.shape[1]
    q = features(q_BNRH)
    q_BKGRH, turned_BKGRH = (
        x.reshape(B, K, N // K, R, H) for x in (q, q if turn is None else turn(q))
    )
    above = jnp.einsum("bkgrh,bkrhv->bkgrv", turned_BKGRH, state.kv)
    below = jnp.einsum("bkgrh,bkrh->bkgr", q_BKGRH, state.k)[..., None]
    return _ratio(above, below).reshape(B, N, R, H).astype(q_BNRH.dtype)
