"""End to end: a small Transformer learns to copy and to reverse, and beam search decodes it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tfm import decoding, embeddings, transformer
from tfm import params as parameters
from tfm.decoding import Decode

BOS, EOS, FIRST, VOCAB, LONGEST = 2, 3, 4, 12, 6
ARCH = transformer.Architecture(
    source_vocab=VOCAB, target_vocab=VOCAB, d_model=48, heads=4, kv_heads=2, d_ff=96,
    encoder_layers=1, decoder_layers=1, dropout=0.0, tie="all",
)  # fmt: skip


def examples(rng, count, task):
    """Sentences of 1–6 symbols, and what the task makes of them, as a batch with labels."""
    lengths = rng.integers(1, LONGEST + 1, (count, 1))
    symbols = rng.integers(FIRST, VOCAB, (count, LONGEST))
    at = np.arange(LONGEST + 1)
    order = at[None] if task == "copy" else np.maximum(lengths - 1 - at, 0)
    padded = np.pad(symbols, ((0, 0), (0, 1)))

    def with_eos(order):
        tokens = np.take_along_axis(padded, np.broadcast_to(order, padded.shape), axis=1)
        return np.where(at < lengths, tokens, np.where(at == lengths, EOS, 0)).astype(np.int32)

    return transformer.single_sentences(with_eos(at[None]), with_eos(order), BOS)


UPDATES = 300
OPTIMIZER = optax.adam(optax.warmup_cosine_decay_schedule(0.0, 5e-3, 50, UPDATES))


@functools.partial(jax.jit, donate_argnums=(0, 1))
def update(params, state, batch):
    def loss(params):
        hidden = transformer.forward(params, ARCH, batch)
        logits = embeddings.logits(hidden, transformer.output_table(params, ARCH))
        each = optax.softmax_cross_entropy_with_integer_labels(logits, batch.target)
        return (each * batch.target_segments).sum() / batch.target_segments.sum()

    change, state = OPTIMIZER.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, change), state


def train(task):
    params = parameters.init(jax.random.key(0), transformer.declare(ARCH))
    rng, state = np.random.default_rng(1), OPTIMIZER.init(params)
    for _ in range(UPDATES):
        params, state = update(params, state, examples(rng, 64, task))
    return params


@functools.partial(jax.jit, static_argnames="decode")
def translate(params, batch, decode):
    params = transformer.inference_params(params, ARCH)
    memory = transformer.encode(params, ARCH, *batch[:3])
    longest = {"max_length": LONGEST + 1}
    cache = transformer.init_cache(
        params, ARCH, memory, batch.source_segments, hypotheses=decode.hypotheses, **longest
    )

    def step(tokens, parents, cache):
        logits, cache = transformer.decode_step(params, ARCH, cache, tokens, parents)
        return logits, jax.nn.logsumexp(logits, axis=-1), cache

    limits = jnp.full(len(batch.source), LONGEST + 1)
    found = decoding.search(step, cache, limits, decode, **longest, bos=BOS, eos=EOS)
    return found.tokens[:, 0]


@pytest.mark.parametrize("task", ["copy", "reverse"])
def test_a_task_is_learned_to_the_last_symbol(task):
    params = train(task)
    unseen = examples(np.random.default_rng(2), 500, task)
    exact = np.all(translate(params, unseen, Decode(beam_size=4)) == unseen.target, axis=1)
    assert exact.mean() >= 0.98
