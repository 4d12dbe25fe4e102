"""Every position scheme with every attention and norm placement: it works, or is refused."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import embeddings, transformer

pytestmark = pytest.mark.usefixtures("quick_compile")

WIDTH = 12  # of every row, packed or not
POSITIONS = {
    "sinusoidal": "sinusoidal",
    "learned": f"learned:max_length={WIDTH}",
    "none": "none",
    "shaw": "shaw:clip=3",
    "t5": "t5:buckets=8,max_distance=6",
    "alibi": "alibi",
    "rotary": "rotary",
    "interleaved": "rotary:interleaved=True",
    "transformer_xl": "transformer_xl",
    "fire": "fire:hidden=8,threshold=4",
}
ATTENTION = {
    "multi-head": {},
    "grouped": {"kv_heads": 2},
    "multi-query": {"kv_heads": 1},
    "local": {"attention": "local", "window": 2},
    "linear": {"attention": "linear"},
    "additive": {"attention": "additive", "cross_attention": "additive"},
}
PLACEMENTS = ("pre", "post", "deepnorm")
REFUSED = {
    "linear": ("shaw", "t5", "alibi", "transformer_xl", "fire"),
    "additive": ("shaw", "rotary", "interleaved", "transformer_xl"),
}
LEGAL = [
    cell
    for cell in itertools.product(POSITIONS, ATTENTION, PLACEMENTS)
    if cell[0] not in REFUSED.get(cell[1], ())
    # Neither shared keys nor a window changes the residual: two placements suffice for them.
    and not (cell[2] == "deepnorm" and cell[1] in ("grouped", "multi-query", "local"))
]
QUICK = {
    ("sinusoidal", "additive", "pre"),
    ("learned", "local", "post"),
    ("none", "linear", "post"),
    ("shaw", "grouped", "pre"),
    ("shaw", "local", "pre"),
    ("t5", "local", "pre"),
    ("t5", "additive", "deepnorm"),
    ("alibi", "multi-query", "post"),
    ("rotary", "linear", "pre"),
    ("interleaved", "multi-head", "deepnorm"),
    ("transformer_xl", "local", "pre"),
    ("fire", "local", "pre"),
    ("fire", "additive", "post"),
}
CELLS = [cell if cell in QUICK else pytest.param(*cell, marks=pytest.mark.slow) for cell in LEGAL]
V, STEPS = 11, 20
SOURCES, TARGETS = [6, 4], [[7, 5], [4, 6]]  # two sentences, two translations each


def architecture(positions, attention, placement):
    return transformer.Architecture(
        source_vocab=V, target_vocab=V, d_model=16, heads=4, d_ff=16, encoder_layers=1,
        decoder_layers=1, dropout=0.0, positions=POSITIONS[positions], norm_placement=placement,
        **ATTENTION[attention],
    )  # fmt: skip


def pairs(rng):
    """Four pairs, (source, target) ids; the two translations of a sentence follow each other."""
    sources = [rng.integers(1, V, n).astype(np.int32) for n in SOURCES]
    return [
        (source, rng.integers(1, V, n).astype(np.int32))
        for source, lengths in zip(sources, TARGETS, strict=True)
        for n in lengths
    ]


def batch_of(rows):
    """Rows of pairs → a batch: tokens, segments and positions of both sides, ``WIDTH`` wide."""
    arrays = []
    for side in (0, 1):
        columns = []
        for row in rows:
            sentences = [pair[side] for pair in row]
            lengths = [len(s) for s in sentences]
            segments = np.repeat(np.arange(1, len(row) + 1, dtype=np.int32), lengths)
            positions = np.concatenate([np.arange(n, dtype=np.int32) for n in [0, *lengths]])
            tokens = np.concatenate([np.zeros(0, np.int32), *sentences])
            padding = (0, WIDTH - sum(lengths))
            columns.append([np.pad(x, padding) for x in (tokens, segments, positions)])
        arrays += [jnp.asarray(np.stack(x)) for x in zip(*columns, strict=True)]
    return transformer.Batch(*arrays)


@functools.partial(jax.jit, static_argnums=1)
def train_step(params, arch, batch):
    """One step of sign descent on the task to copy its input → params, loss, memory, logits."""
    real = batch.target_segments > 0

    def loss(params):
        memory = transformer.encode(params, arch, *batch[:3])
        hidden = transformer.decode(params, arch, memory, batch.source_segments, *batch[3:6])
        logits = embeddings.logits(hidden, transformer.output_table(params, arch))
        chosen = jnp.take_along_axis(logits, batch.target_input[..., None], axis=-1)[..., 0]
        cost = jax.nn.logsumexp(logits, axis=-1) - chosen
        return jnp.where(real, cost, 0.0).sum() / real.sum(), (memory, logits)

    (value, outputs), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return jax.tree.map(lambda p, g: p - 0.01 * jnp.sign(g), params, grads), value, *outputs


def step_through(params, arch, batch, memory):
    """Logits [B,R,T,V] of two hypotheses, each of which continues the other at every step."""
    (B, T), R = batch.target_input[::2].shape, 2
    targets, valid = batch.target_input.reshape(B, R, T), batch.source_segments[::R]
    params = transformer.inference_params(params, arch)
    cache = transformer.init_cache(params, arch, memory[::R], valid, hypotheses=R, max_length=T)
    swap, steps = jnp.broadcast_to(jnp.array([1, 0]), (B, R)), []
    for t in range(max(map(max, TARGETS))):
        rows = (np.arange(R) + t) % R  # which target hypothesis r reads at step t
        logits, cache = transformer.decode_step(params, arch, cache, targets[:, rows, t], swap)
        steps.append(logits[:, rows])  # the permutation is its own inverse
    return np.stack(steps, axis=2)


@pytest.mark.parametrize(("positions", "attention", "placement"), CELLS)
def test_a_legal_cell_learns_decodes_and_packs(rng, draw, positions, attention, placement):
    arch = architecture(positions, attention, placement)
    four = pairs(rng)
    apart = batch_of([[pair] for pair in four])
    packed = batch_of([[four[0], four[2]], [four[3], four[1]], [], []])
    params, losses = draw(transformer.declare(arch)), []
    for _ in range(STEPS):
        params, loss, _, _ = train_step(params, arch, packed)
        losses.append(loss)
    _, loss, _, together = train_step(params, arch, packed)
    assert loss < 0.8 * losses[0]

    _, _, memory, alone = train_step(params, arch, apart)
    real = np.asarray(apart.target_segments) > 0
    alone, together = np.asarray(alone)[real], np.asarray(together)
    steps = step_through(params, arch, apart, memory)
    steps = steps.reshape(len(four), -1, V)[real[:, : steps.shape[2]]]
    assert np.abs(steps - alone).max() <= 1e-4 * np.abs(alone).max()

    n = [len(target) for _, target in four]
    unpacked = [together[0, : n[0]], together[1, n[3] : n[3] + n[1]],
                together[0, n[0] : n[0] + n[2]], together[1, : n[3]]]  # fmt: skip
    assert np.abs(np.concatenate(unpacked) - alone).max() <= 1e-4 * np.abs(alone).max()


@pytest.mark.parametrize(
    ("positions", "attention"), [(p, a) for a, schemes in REFUSED.items() for p in schemes]
)
def test_an_illegal_cell_is_refused_with_a_reason(positions, attention):
    reason = {"linear": "never forms the score", "additive": "a tanh of q \\+ k"}[attention]
    scheme = POSITIONS[positions].split(":")[0]
    for placement in PLACEMENTS:
        with pytest.raises(ValueError, match=f"{attention}.*{scheme}.*{reason}.*; use"):
            transformer.declare(architecture(positions, attention, placement))
