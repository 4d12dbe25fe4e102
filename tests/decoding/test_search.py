"""Search opened: its state stepped by hand, and transforms between the model and search."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from automaton import BOS, EOS, VOCAB, Automaton, found

from tfm import decoding
from tfm.decoding import STRATEGIES, Decode, transforms, types

pytestmark = pytest.mark.usefixtures("quick_compile")

B, LONGEST = 4, 7
LIMITS = jnp.array([7, 5, 7, 1])
DECODES = [
    Decode(beam_size=3, length_penalty=0.6),
    Decode(beam_size=1),
    Decode(strategy="sample", samples=4, temperature=1.3),
]
OPTIONS = {"bos": BOS, "eos": EOS}


def name(decode):
    return f"{decode.strategy}-{decode.hypotheses}"


def keys():
    return jax.random.split(jax.random.key(0), B)


def start(model, decode):
    return STRATEGIES[decode.strategy].start(
        model.state(decode.hypotheses), LIMITS, decode, max_length=LONGEST, keys_B=keys()
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def search(model, decode, transforms=()):
    return decoding.search(
        model.step, model.state(decode.hypotheses), LIMITS, decode, max_length=LONGEST,
        keys_B=keys(), transforms=transforms, **OPTIONS,
    )  # fmt: skip


def same(one, other):
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_array_equal(one.lengths, other.lengths)
    np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


@pytest.mark.parametrize("decode", DECODES, ids=name)
def test_stepped_by_hand_it_finds_what_search_finds(decode):
    strategy, model = STRATEGIES[decode.strategy], Automaton(0, batch=B)
    advance = jax.jit(lambda state: strategy.advance(model.step, state, decode, **OPTIONS))
    state, steps = start(model, decode), 0
    while strategy.running(state).any():
        state, steps = advance(state), steps + 1
    assert 1 < steps <= LONGEST and int(state.step.max()) == steps
    same(strategy.finish(state), search(model, decode))
    same(strategy.finish(advance(state)), search(model, decode))  # what is done does not change


@pytest.mark.parametrize("decode", DECODES, ids=name)
def test_run_goes_on_from_any_state(decode):
    """From the start, or from a state that was advanced before."""
    strategy, model = STRATEGIES[decode.strategy], Automaton(1, batch=B)
    state, expected = start(model, decode), search(model, decode)
    run = jax.jit(lambda state: decoding.run(model.step, state, decode, **OPTIONS))
    same(run(state), expected)
    for _ in range(2):
        state = strategy.advance(model.step, state, decode, **OPTIONS)
    same(run(state), expected)


@pytest.mark.parametrize("decode", DECODES, ids=name)
def test_sentences_at_different_positions_share_a_batch(decode):
    """Two sentences that began earlier than the others: each one finds what it finds alone."""
    strategy, model = STRATEGIES[decode.strategy], Automaton(11, batch=B)
    advance = jax.jit(
        lambda state: strategy.advance(
            model.step, state, decode, transforms=(no_token_twice_in_a_row,), **OPTIONS
        )
    )
    fresh = state = start(model, decode)
    early = jnp.array([True, False, True, False])
    for _ in range(2):
        state = advance(state)

    def choose(a, b):
        return jnp.where(early.reshape(B, *[1] * (a.ndim - 1)), a, b)

    key_data = lambda s: s._replace(keys=jax.random.key_data(s.keys)) if "keys" in s._fields else s  # noqa: E731
    mixed = jax.tree.map(choose, key_data(state), key_data(fresh))
    if "keys" in mixed._fields:
        mixed = mixed._replace(keys=keys())
    assert set(np.asarray(mixed.step).tolist()) == {0, 2}
    while strategy.running(mixed).any():
        mixed = advance(mixed)
    same(strategy.finish(mixed), search(model, decode, (no_token_twice_in_a_row,)))


def test_a_state_can_be_looked_into_at_every_step():
    """Live hypotheses of a beam: distinct, best first, with the model's own log-probabilities."""
    decode, model = DECODES[0], Automaton(2, batch=B)
    strategy, state = STRATEGIES[decode.strategy], start(model, DECODES[0])
    for step in range(1, 5):
        state = strategy.advance(model.step, state, decode, **OPTIONS)
        live = np.asarray(state.tokens[0, :, :step]).tolist()
        assert len(set(map(tuple, live))) == decode.beam_size
        log_probs = np.asarray(state.log_probs[0])
        assert np.all(np.diff(log_probs) <= 0)
        for tokens, log_prob in zip(live, log_probs, strict=True):
            np.testing.assert_allclose(log_prob, model.log_prob(0, tokens), atol=2e-5)


def no_transform(logits_BRV, tokens_BRT, step_B):
    return logits_BRV


def without_token_2(logits_BRV, tokens_BRT, step_B):
    return logits_BRV.at[..., 2].set(-jnp.inf)


def no_token_twice_in_a_row(logits_BRV, tokens_BRT, step_B):
    """Reads what was written: only the first ``step`` tokens count."""
    last_BR = types.newest(tokens_BRT, step_B, EOS)  # and no empty sentence
    banned = jax.nn.one_hot(last_BR, VOCAB, dtype=bool)
    return jnp.where(banned & (last_BR != EOS)[..., None], -jnp.inf, logits_BRV)


def towards_token_1(logits_BRV, tokens_BRT, step_B):
    return logits_BRV.at[..., 1].add(1.5)


@pytest.mark.parametrize("decode", DECODES, ids=name)
def test_a_transform_that_changes_nothing_changes_nothing(decode):
    model = Automaton(3, batch=B)
    same(search(model, decode, (no_transform,)), search(model, decode))


@pytest.mark.parametrize("decode", DECODES, ids=name)
@pytest.mark.parametrize(
    "transform", [without_token_2, no_token_twice_in_a_row, towards_token_1, "all"],
    ids=lambda t: getattr(t, "__name__", t),
)  # fmt: skip
def test_a_transform_changes_what_is_found_and_never_what_is_reported_of_it(decode, transform):
    """The log-probability stays that of the model, as if the sentence were forced."""
    chain = (without_token_2, towards_token_1, no_token_twice_in_a_row)
    chain = chain if transform == "all" else (transform,)
    model, changed = Automaton(0, batch=B, sharpness=0.7), False
    hypotheses, plain = search(model, decode, chain), search(model, decode)
    for b in range(B):
        sentences = found(hypotheses, b)
        assert sentences
        changed |= [s[0] for s in sentences] != [s[0] for s in found(plain, b)]
        for tokens, log_prob, _ in sentences:
            np.testing.assert_allclose(log_prob, model.log_prob(b, tokens), atol=2e-5)
            if without_token_2 in chain:
                assert 2 not in tokens
            if no_token_twice_in_a_row in chain:
                assert all(a != b for a, b in itertools.pairwise(tokens))
    assert changed


def test_a_beam_under_a_mask_finds_the_best_of_what_the_mask_allows():
    """Its scores are the model's: to exclude a token makes no other likelier."""
    decode = Decode(beam_size=20, length_penalty=0.7, length_norm="power")
    model = Automaton(5, batch=B, sharpness=0.7)
    hypotheses = decoding.search(
        model.step, model.state(20), jnp.full(B, 4), decode, max_length=4,
        transforms=(without_token_2,), **OPTIONS,
    )  # fmt: skip
    for b in range(B):
        allowed = [
            (log_prob / len(tokens) ** 0.7, tokens)
            for tokens, log_prob in model.sentences(b, 4)
            if 2 not in tokens
        ]
        got = found(hypotheses, b)
        assert len(allowed) == len(got) == 15
        assert [tokens for tokens, _, _ in got] == [t for _, t in sorted(allowed, reverse=True)]
        np.testing.assert_allclose(
            [score for *_, score in got], sorted((s for s, _ in allowed), reverse=True), atol=1e-5
        )


def test_a_sampler_under_a_mask_draws_from_the_rest_in_proportion():
    model, n = Automaton(6, batch=1, sharpness=0.7), 4000
    hypotheses = decoding.search(
        model.step, model.state(n), jnp.array([6]), Decode(strategy="sample", samples=n),
        max_length=6, keys_B=keys()[:1], transforms=(without_token_2,), **OPTIONS,
    )  # fmt: skip
    first = np.exp(model.step_log_probs(0, ())[0])
    first[2] = 0.0
    counts = np.bincount(np.asarray(hypotheses.tokens)[0, :, 0], minlength=VOCAB)
    share = first / first.sum()
    assert np.abs(counts / n - share).max() < 4 * np.sqrt(0.25 / n)


@pytest.mark.parametrize("decode", DECODES, ids=name)
def test_at_its_limit_a_sentence_ends_whatever_transforms_say(decode):
    def never_eos(logits_BRV, tokens_BRT, step_B):
        return logits_BRV.at[..., EOS].set(-jnp.inf)

    model = Automaton(7, batch=B)
    hypotheses = search(model, decode, (never_eos,))
    for b, limit in enumerate(LIMITS.tolist()):
        for tokens, log_prob, _ in found(hypotheses, b):
            assert len(tokens) == limit and tokens[-1] == EOS
            np.testing.assert_allclose(log_prob, model.log_prob(b, tokens), atol=2e-5)


def test_an_ensemble_is_a_step_made_of_steps():
    """The mean of two models' log-probabilities, each with its own state."""
    one, two = Automaton(8, batch=B), Automaton(9, batch=B)

    def step(tokens, parents, states):
        log_probs, kept = [], []
        for model, state in zip((one, two), states, strict=True):
            logits, log_z, state = model.step(tokens, parents, state)
            log_probs.append(logits - log_z[..., None])
            kept.append(state)
        logits = sum(log_probs) / 2
        return logits, jax.nn.logsumexp(logits, axis=-1), tuple(kept)

    hypotheses = decoding.search(
        step, (one.state(3), two.state(3)), LIMITS, Decode(beam_size=3), max_length=LONGEST,
        **OPTIONS,
    )  # fmt: skip
    for b in range(B):
        for tokens, log_prob, _ in found(hypotheses, b):
            each = [m.step_log_probs(b, tokens[:-1]) for m in (one, two)]
            mean = sum(each) / 2
            mean -= np.log(np.exp(mean).sum(axis=-1, keepdims=True))
            forced = mean[np.arange(len(tokens)), list(tokens)].sum()
            np.testing.assert_allclose(log_prob, forced, atol=2e-5)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("decode", DECODES, ids=name)
def test_logits_that_allow_no_sentence_find_none_and_do_not_affect_other_sentences(decode, value):
    """NaN for every token, or an end of sentence that is impossible, in one sentence of a batch."""
    model = Automaton(10, batch=B)
    tokens = slice(None) if np.isnan(value) else EOS

    def step(tokens_BR, parents_BR, state):
        logits, _, state = model.step(tokens_BR, parents_BR, state)
        logits = logits.at[1, :, tokens].set(value)
        return logits, jax.nn.logsumexp(logits, axis=-1), state

    hypotheses = decoding.search(
        step, model.state(decode.hypotheses), LIMITS, decode, max_length=LONGEST, keys_B=keys(),
        **OPTIONS,
    )  # fmt: skip
    expected = search(model, decode)
    assert found(hypotheses, 1) == []
    assert np.all(np.isneginf(hypotheses.log_probs[1]))
    assert np.all(np.isneginf(hypotheses.scores[1]))
    assert np.all(hypotheses.tokens[1] == 0)
    for b in (0, 2, 3):
        assert [s[0] for s in found(hypotheses, b)] == [s[0] for s in found(expected, b)]


def test_transforms_of_logits(rng):
    logits = jnp.asarray(rng.normal(size=(2, 3, 9)), jnp.float32)
    np.testing.assert_allclose(transforms.temperature(logits, 0.5), 2 * logits)
    kept = np.isfinite(transforms.top_k(logits, 4))
    np.testing.assert_array_equal(kept.sum(axis=-1), 4)
    threshold = np.sort(np.asarray(logits), axis=-1)[..., -4:-3]
    np.testing.assert_array_equal(kept, logits >= threshold)
    equal = transforms.top_k(jnp.array([1.0, 3.0, 3.0, 2.0]), 1)
    np.testing.assert_array_equal(equal, [-np.inf, 3.0, 3.0, -np.inf])  # equals are all kept
    np.testing.assert_array_equal(transforms.top_k(logits, 10), logits)  # there are only 9
    assert transforms.sampling(Decode(strategy="sample")) == ()
    assert len(transforms.sampling(Decode(top_k=2, temperature=0.5))) == 2
