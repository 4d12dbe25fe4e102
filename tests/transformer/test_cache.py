"""Stepwise decoding with a KV cache equals teacher forcing (contract 4)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import embeddings, transformer
from tfm.transformer import Execution

pytestmark = pytest.mark.usefixtures("quick_compile")

B, R, T, S, V, D = 2, 3, 5, 4, 9, 16
CASES = [
    {"kv_heads": 4, "norm_placement": "pre", "norm": "layer"},
    {"kv_heads": 2, "norm_placement": "post", "norm": "layer"},
    {"kv_heads": 1, "norm_placement": "pre", "norm": "rms", "activation": "swiglu", "bias": False},
    {"kv_heads": 1, "norm_placement": "deepnorm", "qk_norm": True, "soft_cap": 2.0},
    {"positions": f"learned:max_length={T}", "attention": "local", "window": 1},
    {"positions": "none", "attention": "linear", "kv_heads": 2},
    {"positions": "shaw:clip=2", "kv_heads": 2},
    {"positions": "t5:buckets=4,max_distance=3"},
    {"positions": "alibi", "attention": "additive", "cross_attention": "additive"},
    {"positions": "rotary", "attention": "local", "window": 2},
    {"positions": "rotary", "attention": "linear"},
    {"positions": "rotary:interleaved=True,scaling=2.0", "kv_heads": 1},
    {"positions": "transformer_xl", "kv_heads": 2},
]
"""Some of what test_matrix.py combines, here with hypotheses that descend from any other."""


def architecture(**changes):
    sizes = {
        "source_vocab": V, "target_vocab": V, "d_model": D, "heads": 4, "d_ff": 24,
        "encoder_layers": 1, "decoder_layers": 2,
    }  # fmt: skip
    return transformer.Architecture(**sizes | changes)


def same(f):
    return f


def step_through(params, arch, memory, valid, tokens, parents, jit=same, execution=Execution()):
    """Logits [T,B,R,V] of R hypotheses that take ``tokens[t]`` and descend from ``parents[t]``."""
    params = transformer.inference_params(params, arch, execution)
    cache = transformer.init_cache(params, arch, memory, valid, hypotheses=R, max_length=T)
    step, logits = jit(functools.partial(transformer.decode_step, execution=execution)), []
    for t in range(T):
        newest, cache = step(params, arch, cache, jnp.asarray(tokens[t]), jnp.asarray(parents[t]))
        logits.append(newest)
    assert int(cache.cursor) == T and (cache.step == T).all()
    return np.stack(logits)


def histories(tokens, parents):
    """What each hypothesis has read at each step: [T,B,R,T], 0 where nothing is read yet."""
    current, out = np.zeros((B, R, T), np.int32), []
    for t in range(T):
        current = np.take_along_axis(current, parents[t][:, :, None], axis=1)
        current[:, :, t] = tokens[t]
        out.append(current)
    return np.stack(out)


def teacher_force(params, arch, memory, valid, read, jit=same, execution=Execution()):
    """Logits [T,B,R,V] at the newest token of each history, every one decoded from its start."""
    rows = read.reshape(-1, T)
    steps = np.repeat(np.arange(T), B * R)
    segments = (np.arange(T)[None] <= steps[:, None]).astype(np.int32)
    positions = np.broadcast_to(np.arange(T), rows.shape)
    repeat = lambda x: jnp.tile(jnp.repeat(x, R, axis=0), (T,) + (1,) * (x.ndim - 1))  # noqa: E731
    target = map(jnp.asarray, (rows, segments, positions))
    hidden = jit(functools.partial(transformer.decode, execution=execution))(
        params, arch, repeat(memory), repeat(valid), *target
    )
    newest = hidden[jnp.arange(len(rows)), jnp.asarray(steps)]
    logits = embeddings.logits(newest, transformer.output_table(params, arch))
    return np.asarray(logits).reshape(T, B, R, V)


def inputs(rng):
    memory = jnp.asarray(rng.normal(size=(B, S, D)), jnp.float32)
    valid = jnp.array([[1] * S, [1, 1] + [0] * (S - 2)])
    tokens = rng.integers(0, V, (T, B, R)).astype(np.int32)
    parents = rng.integers(0, R, (T, B, R)).astype(np.int32)
    return memory, valid, tokens, parents


@pytest.mark.parametrize("changes", CASES, ids=lambda c: "-".join(map(str, c.values())))
def test_stepwise_equals_teacher_forcing_for_every_history(rng, draw, changes):
    arch = architecture(**changes)
    params = draw(transformer.declare(arch))
    memory, valid, tokens, parents = inputs(rng)
    expected = teacher_force(params, arch, memory, valid, histories(tokens, parents))
    got = step_through(params, arch, memory, valid, tokens, parents)
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
    # The histories matter: hypotheses that each continue themselves give other numbers.
    straight = np.broadcast_to(np.arange(R), parents.shape)
    other = teacher_force(params, arch, memory, valid, histories(tokens, straight))
    assert np.abs(other - expected).max() > 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("changes", CASES, ids=lambda c: "-".join(map(str, c.values())))
def test_a_sentence_may_begin_while_another_is_under_way(rng, draw, changes):
    """The second sentence begins again after three steps: the ring of slots is then at its end."""
    arch = architecture(**changes)
    params = transformer.inference_params(draw(transformer.declare(arch)), arch)
    memory, valid, tokens, parents = inputs(rng)
    start = transformer.init_cache(params, arch, memory, valid, hypotheses=R, max_length=T)
    step = jax.jit(functools.partial(transformer.decode_step, arch=arch))
    move = lambda cache, t: step(  # noqa: E731
        params, cache=cache, tokens_BR=jnp.asarray(tokens[t]), parents_BR=jnp.asarray(parents[t])
    )
    fresh, cache = [], start
    for t in range(T):
        logits, cache = move(cache, t)
        fresh.append(logits)
    cache = start
    for t in range(3):
        _, cache = move(cache, (t + 2) % T)
    if arch.attention == "linear":  # which keeps a state in place of slots
        zero = lambda x: x.at[1].set(0)  # noqa: E731
        cache = cache.replace(self_attention=jax.tree.map(zero, cache.self_attention))
    cache = cache.replace(step=cache.step.at[1].set(0))
    for t in range(T):
        cache = cache.replace(step=jnp.minimum(cache.step, T - 1).at[1].set(t))
        logits, cache = move(cache, t)
        np.testing.assert_allclose(logits[1], fresh[t][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tie", ["none", "source-target", "source-output", "all"])
def test_every_tie_reads_the_right_tables(rng, draw, tie):
    arch = architecture(tie=tie)
    params = draw(transformer.declare(arch))
    memory, valid, tokens, parents = inputs(rng)
    expected = teacher_force(params, arch, memory, valid, histories(tokens, parents))
    got = step_through(params, arch, memory, valid, tokens, parents)
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def test_bfloat16_stays_close_to_teacher_forcing(rng, draw):
    arch, execution = architecture(), Execution(dtype="bfloat16")
    params = draw(transformer.declare(arch))
    memory, valid, tokens, parents = inputs(rng)
    memory, jit = memory.astype(jnp.bfloat16), functools.partial(jax.jit, static_argnums=1)
    expected = teacher_force(
        params, arch, memory, valid, histories(tokens, parents), jit, execution
    )
    got = step_through(params, arch, memory, valid, tokens, parents, jit, execution)
    assert np.abs(got - expected).max() <= 0.05 * np.abs(expected).max()


def test_a_sentence_decodes_the_same_beside_others(rng, draw):
    arch = architecture()
    params = draw(transformer.declare(arch))
    memory, valid, tokens, parents = inputs(rng)
    both = step_through(params, arch, memory, valid, tokens, parents)
    alone = step_through(params, arch, memory[1:], valid[1:], tokens[:, 1:], parents[:, 1:])
    np.testing.assert_allclose(alone[:, 0], both[:, 1], atol=2e-5)


def test_a_step_is_one_compiled_program(rng, draw):
    arch = architecture()
    params = transformer.inference_params(draw(transformer.declare(arch)), arch)
    memory, valid, tokens, parents = inputs(rng)
    cache = transformer.init_cache(params, arch, memory, valid, hypotheses=R, max_length=T)
    step = jax.jit(lambda *args: transformer.decode_step(params, arch, *args))
    for t in range(T):
        _, cache = step(cache, tokens[t], parents[t])
    assert step._cache_size() == 1


def test_the_cache_of_linear_attention_does_not_grow_with_the_target(draw):
    arch = architecture(attention="linear")
    params = transformer.inference_params(draw(transformer.declare(arch)), arch)

    def kept(length):
        memory, valid = jnp.zeros((B, S, D)), jnp.ones((B, S), jnp.int32)
        cache = transformer.init_cache(params, arch, memory, valid, hypotheses=R, max_length=length)
        return sum(x.size for x in jax.tree.leaves(cache.self_attention))

    assert kept(5) == kept(500) == 2 * B * R * 4 * (4 * 4 + 4)


def test_more_steps_than_learned_positions_are_an_error(rng, draw):
    arch = architecture(positions=f"learned:max_length={T}")
    params = transformer.inference_params(draw(transformer.declare(arch)), arch)
    memory, valid, _, _ = inputs(rng)
    with pytest.raises(ValueError, match="6 decoding steps, but the model has 5 learned positions"):
        transformer.init_cache(params, arch, memory, valid, hypotheses=R, max_length=T + 1)
