"""Ring attention: rows cut over devices, exact, with no device ever holding a whole row's keys."""

import jax
import jax.numpy as jnp
from jax import lax

from tfm import masks
from tfm.attention.dot_product import queries_a_key_head

Met = tuple[jax.Array, jax.Array, jax.Array]  # Σ weights · v [B,N,T,H], Σ weights, top [B,N,T]


def ring(
    q_BNTH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    query_segments_BT: jax.Array,
    key_segments_BS: jax.Array,
    *,
    axis: str,
    causal: bool = False,
    soft_cap: float = 0.0,
) -> jax.Array:
    """``attend`` for one device's part of the queries and keys of its rows: [B,N,T,H].

    Each device keeps its queries and passes its keys and values on to the next, until all have
    met (Liu, Zaharia & Abbeel 2023). The softmax is kept as a sum and its largest score so far
    (Milakov & Gimelshein 2018), float32. The backward pass computes the scores of a block again.

    Args:
      q_BNTH, k_BKSH, v_BKSH: parts of equal size on every device, in the order of the axis.
      query_segments_BT, key_segments_BS: 0 = padding; a query sees keys of its own segment.
      axis: of the mesh, over which T and S are cut; this function runs within ``jax.shard_map``.
      causal: hide the future.
      soft_cap: as in ``attend``.
    """
    (B, N, T, H), (K, S) = q_BNTH.shape, k_BKSH.shape[1:3]
    groups = queries_a_key_head(N, K)
    devices, here = lax.axis_size(axis), lax.axis_index(axis)
    places_T = here * T + jnp.arange(T)
    q_BKRH = q_BNTH.reshape(B, K, groups * T, H)

    @jax.checkpoint
    def meet(met: Met, k: jax.Array, v: jax.Array, segments_BS: jax.Array, home: jax.Array) -> Met:
        """Adds what the queries find among the keys that device ``home`` sent on its way."""
        sum_BNTH, sum_BNT, top_BNT = met
        scores = jnp.einsum("bkrh,bksh->bkrs", q_BKRH, k, preferred_element_type=jnp.float32)
        scores = scores.reshape(B, N, T, S) * H**-0.5
        if soft_cap:
            scores = soft_cap * jnp.tanh(scores / soft_cap)
        mask = masks.segment(query_segments_BT, segments_BS)
        if causal:
            places_S = home * S + jnp.arange(S)
            mask &= (places_T[:, None] >= places_S[None, :])[None, None]
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
        new_top_BNT = lax.stop_gradient(jnp.maximum(top_BNT, scores.max(-1)))
        weights = jnp.where(mask, jnp.exp(scores - new_top_BNT[..., None]), 0.0)
        found = jnp.einsum(
            "bkrs,bksh->bkrh",
            weights.astype(v.dtype).reshape(B, K, groups * T, S),
            v,
            preferred_element_type=jnp.float32,
        )
        shrink_BNT = jnp.exp(top_BNT - new_top_BNT)
        return (
            sum_BNTH * shrink_BNT[..., None] + found.reshape(B, N, T, H),
            sum_BNT * shrink_BNT + weights.sum(-1),
            new_top_BNT,
        )

    nothing = jnp.zeros((B, N, T), jnp.float32)
    met = jnp.zeros((B, N, T, H), jnp.float32), nothing, nothing + jnp.finfo(jnp.float32).min
    visitors = k_BKSH, v_BKSH, key_segments_BS
    onwards = [(i, (i + 1) % devices) for i in range(devices)]
    for hops in range(devices):
        met = meet(met, *visitors, (here - hops) % devices)
        if hops < devices - 1:
            visitors = jax.tree.map(lambda x: lax.ppermute(x, axis, onwards), visitors)
    sum_BNTH, sum_BNT, _ = met
    total_BNT1 = jnp.where(sum_BNT > 0, sum_BNT, 1.0)[..., None]
    return (sum_BNTH / total_BNT1).astype(q_BNTH.dtype)
