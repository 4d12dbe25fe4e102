"""``AttentionContext``: what the attentions of each kind know besides their inputs."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from tfm import masks, positions, transformer
from tfm.transformer import Architecture

pytestmark = pytest.mark.usefixtures("quick_compile")

ARCH = Architecture(
    source_vocab=9, target_vocab=9, d_model=16, heads=4, encoder_layers=1, decoder_layers=1
)
SEGMENTS = jnp.array([[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 0, 0]])
POSITIONS = jnp.array([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 0, 0]])
T = 6


def architecture(**changes):
    return dataclasses.replace(ARCH, **changes)


@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_sees_its_own_sentence(causal):
    context = transformer.self_context({}, ARCH, SEGMENTS, POSITIONS, causal=causal)
    assert (context.kind, context.causal) == ("self", causal)
    expected = masks.segment(SEGMENTS, SEGMENTS)
    expected = expected & masks.causal(T) if causal else expected
    np.testing.assert_array_equal(context.mask, expected)
    assert context.bias is context.rotate is context.slot is context.parents is None
    np.testing.assert_array_equal(context.segments[0], SEGMENTS)
    np.testing.assert_array_equal(context.distances.values_M, np.arange(2 * T) - (T - 1))


def test_cross_attention_sees_the_source_sentence_and_has_no_positions():
    source = SEGMENTS[:, :5]
    for scheme in ("rotary", "t5", "shaw", "alibi"):
        context = transformer.cross_context(architecture(positions=scheme), SEGMENTS, source)
        assert context.kind == "cross" and not context.causal
        np.testing.assert_array_equal(context.mask, masks.segment(SEGMENTS, source))
        assert context.bias is context.rotate is context.distances is None


def test_the_side_decides_the_direction_of_a_bias(draw):
    """T5's buckets are of both directions in the encoder, of the past in the decoder."""
    arch = architecture(positions="t5:buckets=8,max_distance=6")
    params, distances = draw(transformer.declare(arch)), positions.consecutive(T, T)
    for side, causal in (("encoder", False), ("decoder", True)):
        context = transformer.self_context(params[side], arch, SEGMENTS, POSITIONS, causal=causal)
        expected = positions.t5_bias(
            params[side]["positions"], distances, max_distance=6, bidirectional=not causal
        )
        np.testing.assert_allclose(context.bias, expected, rtol=1e-6)


def test_a_rotation_is_at_the_positions_within_sentences(rng):
    arch = architecture(positions="rotary:base=500")
    context = transformer.self_context({}, arch, SEGMENTS, POSITIONS, causal=True)
    x = jnp.asarray(rng.normal(size=(2, 4, T, 4)), jnp.float32)
    expected = positions.rotate(x, POSITIONS[:, None], base=500.0)
    np.testing.assert_array_equal(context.rotate(x), expected)


def test_local_attention_has_a_block_s_distances_unless_its_scores_are_kept():
    arch = architecture(attention="local", window=2, positions="alibi")
    block = transformer.self_context({}, arch, SEGMENTS, POSITIONS, causal=False)
    assert block.bias.shape == (1, 4, 2, 6)  # a block of 2 queries, 3 blocks of keys
    np.testing.assert_array_equal(block.mask, masks.segment(SEGMENTS, SEGMENTS))
    rows = transformer.self_context({}, arch, SEGMENTS, POSITIONS, causal=False, keep_scores=True)
    assert rows.keep_scores and rows.bias.shape == (1, 4, T, T)
    expected = masks.segment(SEGMENTS, SEGMENTS) & masks.window(T, T, 2)
    np.testing.assert_array_equal(rows.mask, expected)


@pytest.mark.parametrize("attention", ["softmax", "local"])
def test_a_step_sees_the_slots_that_its_hypotheses_descend_from(attention):
    """Four steps of two hypotheses; local attention sees only those within its window."""
    arch = architecture(attention=attention, window=1, positions="alibi")
    R, slots, slot = 2, 8, jnp.array(2)
    mask = jnp.ones((3, 1, R, slots), bool).at[..., 6:].set(False)
    parents = jnp.zeros((3, R), jnp.int32)
    away, step = jnp.arange(slots) // R - 2, jnp.full(3, 2)
    context = transformer.step_context({}, arch, mask, away, step, slot, parents)
    assert (context.kind, context.causal, context.kernel) == ("step", True, "xla")
    assert context.segments is None
    np.testing.assert_array_equal(context.parents, parents)
    distances = np.arange(slots) // R - 2
    near = np.asarray(mask) & (distances >= -1) if attention == "local" else mask
    np.testing.assert_array_equal(context.mask, near)
    np.testing.assert_allclose(
        context.bias[0, :, 0], -np.outer(positions.alibi_slopes(4), np.abs(distances))
    )
