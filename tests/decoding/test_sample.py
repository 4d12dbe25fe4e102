import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from automaton import BOS, EOS, Automaton, found

from tfm.decoding.sample import sample

pytestmark = pytest.mark.usefixtures("quick_compile")


def draw(model, limits, **settings):
    samples = settings.get("samples", 1)
    return jax.jit(
        lambda limits: sample(
            model.step, model.state(samples), limits, max_length=6, bos=BOS, eos=EOS, **settings
        )
    )(jnp.array(limits))


def test_greedy_is_a_chain_of_likeliest_tokens():
    model, limits = Automaton(0, batch=12), [6, 5, 4, 3, 2, 1] * 2
    hypotheses = draw(model, limits)
    for b, limit in enumerate(limits):
        tokens, log_prob, score = found(hypotheses, b)[0]
        assert tokens == model.greedy(b, limit)
        np.testing.assert_allclose(log_prob, model.log_prob(b, tokens), atol=1e-5)
        assert score == log_prob


def test_sentences_are_drawn_as_often_as_they_are_likely():
    model, n = Automaton(1, batch=1, sharpness=0.7), 4000
    hypotheses = draw(model, [3], samples=n, key=jax.random.key(0))
    counts = collections.Counter(tokens for tokens, _, _ in found(hypotheses, 0))
    # At the limit a sentence is made to end: its last token is not drawn.
    expected = {}
    for tokens, log_prob in model.sentences(0, 3):
        forced = model.step_log_probs(0, tokens[:-1])[-1][EOS] if len(tokens) == 3 else 0.0
        expected[tokens] = np.exp(log_prob - forced)
    assert np.isclose(sum(expected.values()), 1.0)
    assert set(counts) <= set(expected)
    chi2 = sum((counts[t] - n * p) ** 2 / (n * p) for t, p in expected.items())
    assert chi2 < 35  # 12 degrees of freedom: 0.05 % lie above


def test_every_drawn_sentence_ends_and_carries_its_own_log_probability():
    model, limits = Automaton(2, batch=2, sharpness=0.7), [6, 4]
    hypotheses = draw(model, limits, samples=50, key=jax.random.key(1))
    for b, limit in enumerate(limits):
        drawn = found(hypotheses, b)
        assert len(drawn) == 50
        for tokens, log_prob, _ in drawn:
            assert len(tokens) <= limit and tokens.index(EOS) == len(tokens) - 1
            np.testing.assert_allclose(log_prob, model.log_prob(b, tokens), atol=2e-5)
        assert len({tokens for tokens, _, _ in drawn}) > 5


def test_a_low_temperature_and_one_candidate_are_greedy():
    model, limits = Automaton(3, batch=4), [6] * 4
    greedy = draw(model, limits)
    cold = draw(model, limits, key=jax.random.key(0), temperature=1e-4)
    one = draw(model, limits, key=jax.random.key(0), top_k=1)
    np.testing.assert_array_equal(cold.tokens, greedy.tokens)
    np.testing.assert_array_equal(one.tokens, greedy.tokens)


def test_a_high_temperature_is_uniform():
    model, n = Automaton(3, batch=1), 4000
    hot = draw(model, [6], samples=n, key=jax.random.key(0), temperature=1e4)
    first = np.bincount(np.asarray(hot.tokens)[0, :, 0], minlength=4)
    assert np.abs(first / n - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / n)


def test_top_k_draws_among_the_likeliest_in_their_proportions():
    model, n = Automaton(4, batch=1, sharpness=0.5), 4000
    hypotheses = draw(model, [6], samples=n, key=jax.random.key(0), top_k=2)
    for tokens, _, _ in found(hypotheses, 0):
        allowed = model.step_log_probs(0, tokens[:-1]).argsort(axis=-1)[:, -2:]
        free = len(tokens) if len(tokens) < 6 else 5
        assert all(tokens[i] in allowed[i] for i in range(free))
    first = np.exp(model.step_log_probs(0, ())[0])
    a, b = first.argsort()[-2:]
    share = (np.asarray(hypotheses.tokens)[0, :, 0] == a).mean()
    assert abs(share - first[a] / (first[a] + first[b])) < 4 * np.sqrt(0.25 / n)


def test_the_key_decides():
    model, limits = Automaton(5, batch=2, sharpness=0.5), [6, 6]
    one, same, other = (
        draw(model, limits, samples=20, key=jax.random.key(i)).tokens for i in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)
