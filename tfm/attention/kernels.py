"""What computes softmax attention: XLA from our formula, or a fused kernel that keeps no scores.

``cudnn`` is cuDNN's flash attention through ``jax.nn.dot_product_attention``, ``splash`` the Pallas
kernel for TPUs that comes with JAX. ``choose`` says which one runs on a device at a shape, and why.
"""

from collections.abc import Collection
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from tfm import masks
from tfm.shapes import Check
from tfm.values import Values, kind_of

Implementation = Literal["auto", "xla", "cudnn", "splash"]

LONG = 512
"""Number of keys from which ``auto`` takes a kernel; XLA fuses shorter rows well. Not measured."""

_KERNELS = {
    "cudnn": ("gpu", {"bias"}),
    "splash": ("tpu", {"soft_cap"}),
}
_NEEDS = {
    "bias": "takes no bias on the scores",
    "relative": "takes no score that depends on query and distance",
    "soft_cap": "has no soft cap",
    "dropout": "has no dropout on the weights",
}


def unable(kernel: str, needs: Collection[str]) -> str | None:
    """Why a kernel cannot compute what attention needs, on any device; ``None`` if it can."""
    check = Values("unable")
    check.choice(_KERNELS, kernel=kernel)
    check.choices(_NEEDS, needs=needs)
    able = _KERNELS[kernel][1]
    missing = [reason for need, reason in _NEEDS.items() if need in needs and need not in able]
    return f"{kernel} {missing[0]}" if missing else None


def choose(
    asked: Implementation,
    *,
    needs: Collection[str] = (),
    platform: str,
    dtype: jnp.dtype,
    head_dim: int,
    queries: int,
    keys: int,
) -> tuple[str, str]:
    """The implementation that runs, and a clause that says why.

    Args:
      asked: ``auto`` takes the platform's kernel where it is able and faster, else ``xla``.
      needs: what attention needs besides softmax(q kᵀ) v under a mask of segments and causality,
        any of "bias", "relative", "soft_cap", "dropout".
      platform: "cpu", "gpu" or "tpu".

    Raises:
      ValueError: a kernel was asked for by name, and cannot run here; the message says why.
    """
    check = Values("choose")
    check.choice(get_args(Implementation), asked=asked)
    check.counts(head_dim=head_dim, queries=queries, keys=keys)
    check.choices(_NEEDS, needs=needs)
    check.instance(str, platform=platform)
    if kind_of(dtype) != "float":
        raise check.error(f"dtype is {dtype}; it must be a float dtype")
    if asked == "xla":
        return "xla", "as asked"
    kernels = [asked] if asked != "auto" else [k for k in _KERNELS if _KERNELS[k][0] == platform]
    if not kernels:
        return "xla", f"there is no kernel for the {platform}"
    (kernel,) = kernels
    obstacle = unable(kernel, needs) or _obstacle(
        kernel, platform, jnp.dtype(dtype), head_dim, queries, keys
    )
    if asked == kernel and obstacle:
        raise ValueError(f"implementation={asked!r}: {obstacle}; set it to 'auto' or 'xla'")
    if asked == kernel:
        return kernel, "as asked"
    if obstacle:
        return "xla", obstacle
    if keys < LONG:
        return "xla", f"rows of {keys} keys are short; {kernel} is used from {LONG}"
    return kernel, f"{keys} keys on the {platform}"


def _obstacle(
    kernel: str,
    platform: str,
    dtype: np.dtype,
    head_dim: int,
    queries: int,
    keys: int,
) -> str | None:
    """Why a kernel cannot run on this device or at this shape."""
    home = _KERNELS[kernel][0]
    if platform != home:
        return f"{kernel} runs on a {home}, this is a {platform}"
    if kernel == "cudnn" and dtype not in (jnp.bfloat16, jnp.float16):
        return f"cudnn computes in bfloat16 or float16, not {dtype}"
    if kernel == "cudnn" and (head_dim % 8 or head_dim > 128):
        return f"cudnn takes head widths that are multiples of 8 up to 128, not {head_dim}"
    if kernel == "cudnn" and (queries % 2 or keys % 2):
        return f"cudnn takes even lengths, not {queries} and {keys}"
    if kernel == "splash" and (queries % 128 or keys % 128):
        return f"splash takes lengths that are multiples of 128, not {queries} and {keys}"
    return None


def flash(
    q_BNTH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    query_segments_BT: jax.Array,
    key_segments_BS: jax.Array,
    *,
    causal: bool = False,
    bias: jax.Array | None = None,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """``attend`` by ``jax.nn.dot_product_attention``: [B,N,T,H].

    Rows without any visible key, for which it gives non-zero output, are set to zero.

    Args:
      bias: [1,N,T,S].
    """
    check = _check_arrays("flash", q_BNTH, k_BKSH, v_BKSH, query_segments_BT, key_segments_BS)
    check.bias(bias)
    check.choice(("cudnn", "xla"), implementation=implementation)
    mask = masks.segment(query_segments_BT, key_segments_BS)
    if causal:
        mask &= masks.causal(*mask.shape[2:])
    out_BTNH = jax.nn.dot_product_attention(
        q_BNTH.swapaxes(1, 2),
        k_BKSH.swapaxes(1, 2),
        v_BKSH.swapaxes(1, 2),
        bias=None if bias is None else bias.astype(q_BNTH.dtype),
        mask=mask,
        implementation=implementation,
    )
    return jnp.where(mask.any(axis=-1, keepdims=True), out_BTNH.swapaxes(1, 2), 0.0)


def splash(
    q_BNTH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    query_segments_BT: jax.Array,
    key_segments_BS: jax.Array,
    *,
    causal: bool = False,
    soft_cap: float = 0.0,
    interpret: bool = False,
) -> jax.Array:
    """``attend`` by the Pallas kernel: [B,N,T,H]; T and S multiples of 128.

    The kernel treats padding as a segment of its own; the rows of padding are set to zero.

    Args:
      interpret: run the kernel in Pallas's interpreter, on any device, slowly.
    """
    check = _check_arrays("splash", q_BNTH, k_BKSH, v_BKSH, query_segments_BT, key_segments_BS)
    check.not_negative(soft_cap=soft_cap)
    for letter in "TS":
        if not check.size(letter) or check.size(letter) % 128:
            raise check.error(f"{letter} is {check.size(letter)}; it must be a multiple of 128")
    from jax.experimental.pallas.ops.tpu import splash_attention as pallas

    (_, N, T, H), S = q_BNTH.shape, k_BKSH.shape[2]
    kind = pallas.CausalMask if causal else pallas.FullMask
    block_q, block_kv = (next(b for b in (512, 256, 128) if n % b == 0) for n in (T, S))
    kernel = pallas.make_splash_mha_single_device(
        pallas.MultiHeadMask([kind((T, S))] * N),
        block_sizes=pallas.BlockSizes(
            block_q=block_q,
            block_kv=block_kv,
            block_q_dkv=block_q,
            block_kv_dkv=block_kv,
            block_q_dq=block_q,
            block_kv_dq=block_kv,
        ),
        attn_logits_soft_cap=soft_cap or None,
        interpret=interpret,
    )
    ids = pallas.SegmentIds(query_segments_BT, key_segments_BS)
    out_BNTH = jax.vmap(kernel)(q_BNTH * H**-0.5, k_BKSH, v_BKSH, ids)
    seen_BT = (query_segments_BT[:, :, None] == key_segments_BS[:, None, :]).any(axis=-1)
    real_BT = (query_segments_BT != 0) & seen_BT
    return jnp.where(real_BT[:, None, :, None], out_BNTH, 0.0).astype(q_BNTH.dtype)


def _check_arrays(
    function: str,
    q_BNTH: jax.Array,
    k_BKSH: jax.Array,
    v_BKSH: jax.Array,
    query_segments_BT: jax.Array,
    key_segments_BS: jax.Array,
) -> Check:
    check = Check(function)
    check.floats(q_BNTH=q_BNTH, k_BKSH=k_BKSH, v_BKSH=v_BKSH)
    check.heads()
    check.ints(query_segments_BT=query_segments_BT, key_segments_BS=key_segments_BS)
    return check
