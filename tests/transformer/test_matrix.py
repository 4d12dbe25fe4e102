"""Every position scheme with every attention and norm placement: it works whole, or is refused."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import embeddings, transformer

pytestmark = pytest.mark.usefixtures("quick_compile")

POSITIONS = (
    "sinusoidal", "learned", "none", "shaw", "t5", "alibi", "rotary", "rotary_interleaved",
    "transformer_xl",
)  # fmt: skip
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
    "linear": ("shaw", "t5", "alibi", "transformer_xl"),
    "additive": ("shaw", "rotary", "rotary_interleaved", "transformer_xl"),
}
LEGAL = [
    cell
    for cell in itertools.product(POSITIONS, ATTENTION, PLACEMENTS)
    if cell[0] not in REFUSED.get(cell[1], ())
    # Neither sharing keys nor a window touches the residual: two placements suffice for them.
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
    ("rotary_interleaved", "multi-head", "deepnorm"),
    ("transformer_xl", "local", "pre"),
}
CELLS = [cell if cell in QUICK else pytest.param(*cell, marks=pytest.mark.slow) for cell in LEGAL]
V, STEPS = 11, 20
SOURCES, TARGETS = [6, 4], [[7, 5], [4, 6]]  # two sentences, two translations each
WIDTH = 12  # of every row, packed or not


def config(positions, attention, placement):
    settings = {
        "source_vocab": V, "target_vocab": V, "d_model": 16, "heads": 4, "d_ff": 16,
        "encoder_layers": 1, "decoder_layers": 1, "dropout": 0.0, "max_length": WIDTH,
        "relative_clip": 3, "relative_buckets": 8, "relative_max_distance": 6,
    }  # fmt: skip
    return transformer.Config(
        positions=positions, norm_placement=placement, **settings | ATTENTION[attention]
    )


def pairs(rng):
    """Four pairs, (source, target) ids; the two translations of a sentence come together."""
    sources = [rng.integers(1, V, n).astype(np.int32) for n in SOURCES]
    return [
        (source, rng.integers(1, V, n).astype(np.int32))
        for source, lengths in zip(sources, TARGETS, strict=True)
        for n in lengths
    ]


def batch_of(rows):
    """Rows of pairs → a batch: tokens, segments and positions of both sides, ``WIDTH`` wide."""
    batch = {}
    for i, side in enumerate(("source", "target")):
        columns = {"": [], "_segments": [], "_positions": []}
        for row in rows:
            sentences = [pair[i] for pair in row]
            lengths = [len(s) for s in sentences]
            pad = (0, WIDTH - sum(lengths))
            numbers = np.repeat(np.arange(1, len(row) + 1, dtype=np.int32), lengths)
            places = np.concatenate([np.arange(n, dtype=np.int32) for n in [0, *lengths]])
            tokens = np.concatenate([np.zeros(0, np.int32), *sentences])
            for name, x in zip(columns, (tokens, numbers, places), strict=True):
                columns[name].append(np.pad(x, pad))
        for name, rows_of in columns.items():
            token = "target_input" if side == "target" and not name else f"{side}{name}"
            batch[token] = jnp.asarray(np.stack(rows_of))
    return batch


def part(batch, side):
    name = "target_input" if side == "target" else side
    return batch[name], batch[f"{side}_segments"], batch[f"{side}_positions"]


@functools.partial(jax.jit, static_argnums=1)
def train_step(weights, c, batch):
    """One step of sign descent on saying each token again → weights, loss, memory, logits."""
    real = batch["target_segments"] > 0

    def loss(weights):
        memory = transformer.encode(weights, c, *part(batch, "source"))
        segments = batch["source_segments"]
        hidden = transformer.decode(weights, c, memory, segments, *part(batch, "target"))
        scores = embeddings.logits(hidden, transformer.output_table(weights, c))
        chosen = jnp.take_along_axis(scores, batch["target_input"][..., None], axis=-1)[..., 0]
        cost = jax.nn.logsumexp(scores, axis=-1) - chosen
        return jnp.where(real, cost, 0.0).sum() / real.sum(), (memory, scores)

    (value, seen), grads = jax.value_and_grad(loss, has_aux=True)(weights)
    return jax.tree.map(lambda w, g: w - 0.01 * jnp.sign(g), weights, grads), value, *seen


def step_through(weights, c, batch, memory):
    """Logits [B,R,T,V] of hypotheses that change places at every step; nothing is compiled."""
    (B, T), R = batch["target_input"][::2].shape, 2
    targets, valid = batch["target_input"].reshape(B, R, T), batch["source_segments"][::R]
    weights = transformer.for_decoding(weights, c)
    cache = transformer.init_cache(weights, c, memory[::R], valid, hypotheses=R, max_length=T)
    swap, logits = jnp.broadcast_to(jnp.array([1, 0]), (B, R)), []
    for t in range(max(map(max, TARGETS))):
        reads = (np.arange(R) + t) % R  # who hypothesis r is at step t
        scores, cache = transformer.decode_step(weights, c, cache, targets[:, reads, t], swap)
        logits.append(scores[:, reads])  # its own inverse, for R = 2
    return np.stack(logits, axis=2)


@pytest.mark.parametrize(("positions", "attention", "placement"), CELLS)
def test_a_legal_cell_learns_decodes_and_packs(rng, draw, positions, attention, placement):
    c = config(positions, attention, placement)
    four = pairs(rng)
    apart = batch_of([[pair] for pair in four])
    packed = batch_of([[four[0], four[2]], [four[3], four[1]], [], []])
    weights, losses = draw(transformer.declare(c)), []
    for _ in range(STEPS):
        weights, loss, _, _ = train_step(weights, c, packed)
        losses.append(loss)
    _, loss, _, together = train_step(weights, c, packed)
    assert loss < 0.8 * losses[0]

    _, _, memory, alone = train_step(weights, c, apart)
    real = np.asarray(apart["target_segments"]) > 0
    alone, together = np.asarray(alone)[real], np.asarray(together)
    steps = step_through(weights, c, apart, memory)
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
    for placement in PLACEMENTS:
        with pytest.raises(ValueError, match=f"{attention}.*{positions}.*{reason}.*; take"):
            transformer.declare(config(positions, attention, placement))
