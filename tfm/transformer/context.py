"""What an attention needs to know besides its inputs: mask, positions, and what computes it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tfm import masks, positions
from tfm.attention.local import block_distances, fold_blocks
from tfm.params import Tree
from tfm.positions import Distances, Rotation
from tfm.shapes import Check
from tfm.sharding import NO_MESH, Layout
from tfm.transformer import arguments, kernels
from tfm.transformer.config import Architecture, Execution
from tfm.transformer.kernels import Kernel, Kind


class AttentionContext(NamedTuple):
    """What the attentions of one kind share in all layers of a side.

    Attributes:
      kind: "self" attention within whole, perhaps packed, rows; "cross" attention from target to
        source; "step", self-attention of one decoding step to a KV cache.
      mask: bool [B,1,T,S], True = may attend.
      causal: whether the mask hides later keys.
      segments: of queries [B,T] and of keys [B,S]; a step has none.
      distances: from queries to keys; in local attention, within a block. Cross-attention has none.
      bias: of the position scheme: [1 or B,N,T,S], or within a block.
      rotate: the rotation of the position scheme, of queries or keys [B,N,T,H].
      kernel: what computes softmax attention.
      keep_scores: whether to return scores and weights, which costs their memory and time.
      slot: of a step: where it is written in the KV cache, in steps.
      parents: [B,R] of a step: which hypothesis of the step before each one continues.
    """

    kind: Kind
    mask: jax.Array
    causal: bool = False
    segments: tuple[jax.Array, jax.Array] | None = None
    distances: Distances | None = None
    bias: jax.Array | None = None
    rotate: Rotation | None = None
    kernel: Kernel = "xla"
    keep_scores: bool = False
    slot: jax.Array | None = None
    parents: jax.Array | None = None


def self_context(
    side_params: Tree,
    arch: Architecture,
    segments_BT: jax.Array,
    positions_BT: jax.Array,
    *,
    causal: bool,
    training: bool = False,
    keep_scores: bool = False,
    execution: Execution = Execution(),
    layout: Layout = NO_MESH,
) -> AttentionContext:
    """Self-attention over whole, perhaps packed, rows.

    Args:
      side_params: parameters of the encoder or the decoder, for positions that its layers share.
      segments_BT: number of each token's sentence in its row; 0 is padding.
      positions_BT: position of each token in its sentence.
      training: with dropout.
      keep_scores: return scores and weights, which no kernel forms; local attention then computes
        them for whole rows, under a mask.
    """
    check = arguments.check_call("self_context", arch=arch, execution=execution, layout=layout)
    check.ints(segments_BT=segments_BT, positions_BT=positions_BT)
    arguments.check_shared(check, side_params, arch, "side_params")
    length = segments_BT.shape[1]
    mask = masks.segment(segments_BT, segments_BT)
    if causal:
        mask = mask & masks.causal(length)
    distances, query_positions_BT = positions.consecutive(length, length), positions_BT
    if arch.attention == "local" and keep_scores:
        mask = mask & masks.window(length, length, arch.window)
    elif arch.attention == "local":
        distances = block_distances(length, arch.window, causal)
        query_positions_BT = fold_blocks(positions_BT, arch.window)
    kernel: Kernel = "xla"
    if not keep_scores:
        kernel, _ = kernels.choose(
            arch, execution, "self", length, length, training=training, layout=layout
        )
    return AttentionContext(
        kind="self",
        mask=mask,
        causal=causal,
        segments=(segments_BT, segments_BT),
        distances=distances,
        bias=_bias(side_params, arch, distances, query_positions_BT, bidirectional=not causal),
        rotate=arch.positions.rotation(positions_BT),
        kernel=kernel,
        keep_scores=keep_scores,
    )


def cross_context(
    arch: Architecture,
    target_segments_BT: jax.Array,
    source_segments_BS: jax.Array,
    *,
    training: bool = False,
    keep_scores: bool = False,
    execution: Execution = Execution(),
    layout: Layout = NO_MESH,
) -> AttentionContext:
    """Cross-attention over whole rows; it has no positions."""
    check = arguments.check_call("cross_context", arch=arch, execution=execution, layout=layout)
    check.ints(target_segments_BT=target_segments_BT, source_segments_BS=source_segments_BS)
    kernel: Kernel = "xla"
    if not keep_scores:
        lengths = target_segments_BT.shape[1], source_segments_BS.shape[1]
        kernel, _ = kernels.choose(
            arch, execution, "cross", *lengths, training=training, layout=layout
        )
    return AttentionContext(
        kind="cross",
        mask=masks.segment(target_segments_BT, source_segments_BS),
        segments=(target_segments_BT, source_segments_BS),
        kernel=kernel,
        keep_scores=keep_scores,
    )


def step_context(
    side_params: Tree,
    arch: Architecture,
    mask: jax.Array,
    distances_S: jax.Array,
    step_B: jax.Array,
    slot: jax.Array,
    parents_BR: jax.Array,
) -> AttentionContext:
    """Self-attention of a decoding step: R hypotheses at one position attend to a KV cache.

    Args:
      side_params: parameters of the decoder.
      mask: [B,1,R,S], which slots of the cache each hypothesis descends from.
      distances_S: the position of every slot of the cache, less that of the newest tokens.
      step_B: how many steps a sentence took before, which is the position of its newest tokens.
      slot: where the step is written in the cache, in steps.
      parents_BR: which hypothesis of the step before each one continues.
    """
    check = arguments.check_call("step_context", arch=arch)
    check.ints(parents_BR=parents_BR, distances_S=distances_S, step_B=step_B)
    check.ints("", slot=slot)
    check.sizes["N"] = 1, "all heads"
    check.bools("BNRS", mask=mask)
    check.within(check.size("R"), "the hypotheses", parents_BR=parents_BR)
    arguments.check_shared(check, side_params, arch, "side_params")
    positions_B1 = step_B[:, None]
    distances = positions.from_one_position(distances_S, jnp.zeros((), jnp.int32))
    if arch.attention == "local":
        mask = mask & (distances.values_M >= -arch.window)[None, None, None]
    return AttentionContext(
        kind="step",
        mask=mask,
        causal=True,
        distances=distances,
        bias=_bias(side_params, arch, distances, positions_B1, bidirectional=False),
        rotate=arch.positions.rotation(positions_B1),
        slot=slot,
        parents=parents_BR,
    )


def cached_cross_context(mask: jax.Array) -> AttentionContext:
    """Cross-attention of a decoding step to the cached keys and values; mask [B,1,1,S]."""
    return AttentionContext(kind="cross", mask=mask)


def check_context(
    check: Check, context: AttentionContext | None, kinds: tuple[Kind, ...], name: str = "context"
) -> None:
    """The context of an attention of one of these kinds; the check knows B, N and T."""
    check.instance(AttentionContext, **{name: context})
    if context.kind not in kinds:
        raise check.error(
            f"{name} is of kind {context.kind!r}; it must be of kind {' or '.join(kinds)}"
        )
    check.mask(context.mask, name=f"{name}.mask")


def _bias(
    side_params: Tree,
    arch: Architecture,
    distances: Distances,
    positions_BT: jax.Array,
    bidirectional: bool,
) -> jax.Array | None:
    return arch.positions.bias(
        side_params.get("positions"),
        distances,
        positions_BT,
        heads=arch.heads,
        bidirectional=bidirectional,
    )
