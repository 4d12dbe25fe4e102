"""The whole way in small: a Transformer learns to copy and to reverse, and search reads it out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tfm import embeddings, params, transformer
from tfm.decoding import beam

BOS, EOS, FIRST, VOCAB, LONGEST = 2, 3, 4, 12, 6
CONFIG = transformer.Config(
    source_vocab=VOCAB, target_vocab=VOCAB, d_model=48, heads=4, kv_heads=2, d_ff=96,
    encoder_layers=1, decoder_layers=1, dropout=0.0, tie="all",
)  # fmt: skip


def examples(rng, count, task):
    """Sentences of 1–6 symbols, and what the task makes of them, as a batch with labels."""
    lengths = rng.integers(1, LONGEST + 1, (count, 1))
    symbols = rng.integers(FIRST, VOCAB, (count, LONGEST))
    at = np.arange(LONGEST + 1)
    places = np.broadcast_to(at, (count, LONGEST + 1)).astype(np.int32)
    real = (at <= lengths).astype(np.int32)
    order = at[None] if task == "copy" else np.maximum(lengths - 1 - at, 0)
    padded = np.pad(symbols, ((0, 0), (0, 1)))

    def with_eos(order):
        tokens = np.take_along_axis(padded, np.broadcast_to(order, places.shape), axis=1)
        return np.where(at < lengths, tokens, np.where(at == lengths, EOS, 0)).astype(np.int32)

    source, target = with_eos(at[None]), with_eos(order)
    start = np.where(real, np.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=BOS), 0)
    return {
        "source": source, "source_segments": real, "source_positions": places, "target": target,
        "target_input": start, "target_segments": real, "target_positions": places,
    }  # fmt: skip


UPDATES = 300
OPTIMIZER = optax.adam(optax.warmup_cosine_decay_schedule(0.0, 5e-3, 50, UPDATES))


@functools.partial(jax.jit, donate_argnums=(0, 1))
def update(weights, state, batch):
    def loss(weights):
        hidden = transformer.forward(weights, CONFIG, batch)
        logits = embeddings.logits(hidden, transformer.output_table(weights, CONFIG))
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch["target"])
        return (each * batch["target_segments"]).sum() / batch["target_segments"].sum()

    change, state = OPTIMIZER.update(jax.grad(loss)(weights), state)
    return optax.apply_updates(weights, change), state


def train(task):
    weights = params.init(jax.random.key(0), transformer.declare(CONFIG))
    rng, state = np.random.default_rng(1), OPTIMIZER.init(weights)
    for _ in range(UPDATES):
        weights, state = update(weights, state, examples(rng, 64, task))
    return weights


@functools.partial(jax.jit, static_argnames="beam_size")
def translate(weights, batch, beam_size):
    source = (batch["source"], batch["source_segments"], batch["source_positions"])
    memory = transformer.encode(weights, CONFIG, *source)
    frozen = transformer.for_decoding(weights, CONFIG)
    cache = transformer.init_cache(
        frozen, CONFIG, memory, source[1], hypotheses=beam_size, max_length=LONGEST + 1
    )
    return beam.search(
        lambda tokens, parents, cache: transformer.decode_step(
            frozen, CONFIG, cache, tokens, parents
        ),
        cache,
        jnp.full(len(source[0]), LONGEST + 1),
        beam_size=beam_size,
        max_length=LONGEST + 1,
        bos=BOS,
        eos=EOS,
    ).tokens[:, 0]


@pytest.mark.parametrize("task", ["copy", "reverse"])
def test_a_task_is_learned_to_the_last_symbol(task):
    weights = train(task)
    unseen = examples(np.random.default_rng(2), 500, task)
    exact = np.all(translate(weights, unseen, beam_size=4) == unseen["target"], axis=1)
    assert exact.mean() >= 0.98
