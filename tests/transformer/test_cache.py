"""Contract 4: stepwise decoding with a cache equals teacher forcing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import embeddings, transformer

pytestmark = pytest.mark.usefixtures("quick_compile")

B, R, T, S, V, D = 2, 3, 5, 4, 9, 16
CASES = [
    {"kv_heads": 4, "norm_placement": "pre", "norm": "layer"},
    {"kv_heads": 2, "norm_placement": "post", "norm": "layer"},
    {"kv_heads": 1, "norm_placement": "pre", "norm": "rms", "activation": "swiglu", "bias": False},
    {"kv_heads": 1, "norm_placement": "deepnorm", "qk_norm": True, "soft_cap": 2.0},
    {"positions": "learned", "attention": "local", "window": 1},
    {"positions": "none", "attention": "linear", "kv_heads": 2},
    {"positions": "shaw", "relative_clip": 2, "kv_heads": 2},
    {"positions": "t5", "relative_buckets": 4, "relative_max_distance": 3},
    {"positions": "alibi", "attention": "additive", "cross_attention": "additive"},
    {"positions": "rotary", "attention": "local", "window": 2},
    {"positions": "rotary", "attention": "linear"},
    {"positions": "rotary_interleaved", "rotary_scaling": 2.0, "kv_heads": 1},
    {"positions": "transformer_xl", "kv_heads": 2},
]
"""What test_matrix.py crosses, here with hypotheses that descend from any other."""


def config(**changes):
    settings = {
        "source_vocab": V, "target_vocab": V, "d_model": D, "heads": 4, "d_ff": 24,
        "encoder_layers": 1, "decoder_layers": 2, "max_length": T,
    }  # fmt: skip
    return transformer.Config(**settings | changes)


def step_through(params, c, memory, valid, tokens, parents, jit=lambda f: f):
    """Logits [T,B,R,V] of R hypotheses that take ``tokens[t]`` and descend from ``parents[t]``."""
    weights = transformer.for_decoding(params, c)
    cache = transformer.init_cache(weights, c, memory, valid, hypotheses=R, max_length=T)
    logits, decode_step = [], jit(transformer.decode_step)
    for t in range(T):
        step, cache = decode_step(
            weights, c, cache, jnp.asarray(tokens[t]), jnp.asarray(parents[t])
        )
        logits.append(step)
    assert int(cache.step) == T
    return np.stack(logits)


def histories(tokens, parents):
    """What each hypothesis has read at each step: [T,B,R,T], 0 where nothing is read yet."""
    current, out = np.zeros((B, R, T), np.int32), []
    for t in range(T):
        current = np.take_along_axis(current, parents[t][:, :, None], axis=1)
        current[:, :, t] = tokens[t]
        out.append(current)
    return np.stack(out)


def teacher_force(params, c, memory, valid, read, jit=lambda f: f):
    """Logits [T,B,R,V] at the newest token of each history, every one decoded from its start."""
    rows = read.reshape(-1, T)
    steps = np.repeat(np.arange(T), B * R)
    segments = (np.arange(T)[None] <= steps[:, None]).astype(np.int32)
    places = np.broadcast_to(np.arange(T), rows.shape)
    spread = lambda x: jnp.tile(jnp.repeat(x, R, axis=0), (T,) + (1,) * (x.ndim - 1))  # noqa: E731
    hidden = jit(transformer.decode)(
        params, c, spread(memory), spread(valid), *map(jnp.asarray, (rows, segments, places))
    )
    newest = hidden[jnp.arange(len(rows)), jnp.asarray(steps)]
    logits = embeddings.logits(newest, transformer.output_table(params, c))
    return np.asarray(logits).reshape(T, B, R, V)


def inputs(rng):
    memory = jnp.asarray(rng.normal(size=(B, S, D)), jnp.float32)
    valid = jnp.array([[1] * S, [1, 1] + [0] * (S - 2)])
    tokens = rng.integers(0, V, (T, B, R)).astype(np.int32)
    parents = rng.integers(0, R, (T, B, R)).astype(np.int32)
    return memory, valid, tokens, parents


@pytest.mark.parametrize("changes", CASES, ids=lambda c: "-".join(map(str, c.values())))
def test_stepwise_equals_teacher_forcing_for_every_history(rng, draw, changes):
    c = config(**changes)
    params = draw(transformer.declare(c))
    memory, valid, tokens, parents = inputs(rng)
    expected = teacher_force(params, c, memory, valid, histories(tokens, parents))
    got = step_through(params, c, memory, valid, tokens, parents)
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
    # The histories matter: those of straight descent would not pass for the drawn ones.
    straight = np.broadcast_to(np.arange(R), parents.shape)
    other = teacher_force(params, c, memory, valid, histories(tokens, straight))
    assert np.abs(other - expected).max() > 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("tie", ["none", "source-target", "source-output", "all"])
def test_every_tie_reads_the_right_tables(rng, draw, tie):
    c = config(tie=tie)
    params = draw(transformer.declare(c))
    memory, valid, tokens, parents = inputs(rng)
    expected = teacher_force(params, c, memory, valid, histories(tokens, parents))
    got = step_through(params, c, memory, valid, tokens, parents)
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def test_bfloat16_stays_close_to_teacher_forcing(rng, draw):
    c = config(dtype="bfloat16")
    params = draw(transformer.declare(c))
    memory, valid, tokens, parents = inputs(rng)
    memory, jit = memory.astype(jnp.bfloat16), functools.partial(jax.jit, static_argnums=1)
    expected = teacher_force(params, c, memory, valid, histories(tokens, parents), jit)
    got = step_through(params, c, memory, valid, tokens, parents, jit)
    assert np.abs(got - expected).max() <= 0.05 * np.abs(expected).max()


def test_a_sentence_decodes_the_same_beside_others(rng, draw):
    c = config()
    params = draw(transformer.declare(c))
    memory, valid, tokens, parents = inputs(rng)
    both = step_through(params, c, memory, valid, tokens, parents)
    alone = step_through(params, c, memory[1:], valid[1:], tokens[:, 1:], parents[:, 1:])
    np.testing.assert_allclose(alone[:, 0], both[:, 1], atol=2e-5)


def test_a_step_is_one_compiled_program(rng, draw):
    c = config()
    params = transformer.for_decoding(draw(transformer.declare(c)), c)
    memory, valid, tokens, parents = inputs(rng)
    cache = transformer.init_cache(params, c, memory, valid, hypotheses=R, max_length=T)
    step = jax.jit(lambda *args: transformer.decode_step(params, c, *args))
    for t in range(T):
        _, cache = step(cache, tokens[t], parents[t])
    assert step._cache_size() == 1


def test_linear_attention_keeps_as_much_for_a_long_target_as_for_a_short_one(draw):
    c = config(attention="linear")
    weights = transformer.for_decoding(draw(transformer.declare(c)), c)

    def kept(length):
        memory, valid = jnp.zeros((B, S, D)), jnp.ones((B, S), jnp.int32)
        cache = transformer.init_cache(weights, c, memory, valid, hypotheses=R, max_length=length)
        return sum(x.size for x in jax.tree.leaves(cache.own))

    assert kept(5) == kept(500) == 2 * B * R * 4 * (4 * 4 + 4)


def test_more_steps_than_learned_positions_are_an_error(rng, draw):
    c = config(positions="learned")
    weights = transformer.for_decoding(draw(transformer.declare(c)), c)
    memory, valid, _, _ = inputs(rng)
    with pytest.raises(ValueError, match="6 decoding steps, but the model has 5 learned positions"):
        transformer.init_cache(weights, c, memory, valid, hypotheses=R, max_length=T + 1)
