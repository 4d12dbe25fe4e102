"""Ring attention: rows sharded over devices, exact, and no device holds all keys of a row."""

import jax
import jax.numpy as jnp
from jax import lax

from tfm import masks
from tfm.shapes import Check

# Of an online softmax: Σ exp(s - max) v [B,N,T,H], Σ exp(s - max) [B,N,T], max s [B,N,T].
Partial = tuple[jax.Array, jax.Array, jax.Array]


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
    """``attend`` for one device's shard of the queries and keys: [B,N,T,H].

    Each device keeps its queries and passes keys and values around the ring of devices, so that
    all queries meet all keys (Liu, Zaharia & Abbeel 2023). The softmax is computed online, from
    running sums and the largest score so far (Milakov & Gimelshein 2018), in float32. The backward
    pass computes the scores of each block again.

    Args:
      q_BNTH, k_BKSH, v_BKSH: shards of equal size, in the order of the mesh axis.
      query_segments_BT, key_segments_BS: 0 = padding; a query sees keys of its own segment.
      axis: of the mesh, over which T and S are sharded; call within ``jax.shard_map``.
      causal: hide later keys.
      soft_cap: as in ``attend``.

    Raises:
      ValueError: an argument of another rank, dtype or shape; no such axis.
    """
    check = Check("ring")
    check.floats(q_BNTH=q_BNTH, k_BKSH=k_BKSH, v_BKSH=v_BKSH)
    check.ints("BT", query_segments_BT=query_segments_BT)
    check.ints(key_segments_BS=key_segments_BS)
    check.heads()
    check.not_negative(soft_cap=soft_cap)
    if causal and check.size("T") != check.size("S"):
        raise check.error(
            f"causal needs as many queries as keys on a device, got {check.size('T')} and "
            f"{check.size('S')}"
        )
    check.instance(str, axis=axis)
    try:
        lax.axis_size(axis)
    except NameError as error:
        raise check.error(
            f"axis is {axis!r}; it must be a mesh axis of the jax.shard_map around the call"
        ) from error
    (B, N, T, H), (K, S) = q_BNTH.shape, k_BKSH.shape[1:3]
    groups = N // K
    devices, here = lax.axis_size(axis), lax.axis_index(axis)
    positions_T = here * T + jnp.arange(T)
    q_BKRH = q_BNTH.reshape(B, K, groups * T, H)

    @jax.checkpoint
    def add_block(
        partial: Partial, k: jax.Array, v: jax.Array, segments_BS: jax.Array, owner: jax.Array
    ) -> Partial:
        """Adds the keys and values that belong to device ``owner`` to the running sums."""
        sum_BNTH, sum_BNT, max_BNT = partial
        scores = jnp.einsum("bkrh,bksh->bkrs", q_BKRH, k, preferred_element_type=jnp.float32)
        scores = scores.reshape(B, N, T, S) * H**-0.5
        if soft_cap:
            scores = soft_cap * jnp.tanh(scores / soft_cap)
        mask = masks.segment(query_segments_BT, segments_BS)
        if causal:
            positions_S = owner * S + jnp.arange(S)
            mask &= (positions_T[:, None] >= positions_S[None, :])[None, None]
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
        new_max_BNT = lax.stop_gradient(jnp.maximum(max_BNT, scores.max(-1)))
        weights = jnp.where(mask, jnp.exp(scores - new_max_BNT[..., None]), 0.0)
        values = jnp.einsum(
            "bkrs,bksh->bkrh",
            weights.astype(v.dtype).reshape(B, K, groups * T, S),
            v,
            preferred_element_type=jnp.float32,
        )
        rescale_BNT = jnp.exp(max_BNT - new_max_BNT)
        return (
            sum_BNTH * rescale_BNT[..., None] + values.reshape(B, N, T, H),
            sum_BNT * rescale_BNT + weights.sum(-1),
            new_max_BNT,
        )

    zeros = jnp.zeros((B, N, T), jnp.float32)
    partial = jnp.zeros((B, N, T, H), jnp.float32), zeros, zeros + jnp.finfo(jnp.float32).min
    block = k_BKSH, v_BKSH, key_segments_BS
    to_next = [(i, (i + 1) % devices) for i in range(devices)]
    for hops in range(devices):
        partial = add_block(partial, *block, (here - hops) % devices)
        if hops < devices - 1:
            block = jax.tree.map(lambda x: lax.ppermute(x, axis, to_next), block)
    sum_BNTH, sum_BNT, _ = partial
    total_BNT1 = jnp.where(sum_BNT > 0, sum_BNT, 1.0)[..., None]
    return (sum_BNTH / total_BNT1).astype(q_BNTH.dtype)
