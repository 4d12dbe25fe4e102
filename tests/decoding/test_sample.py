import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from automaton import BOS, EOS, Automaton, found

from tfm import decoding
from tfm.decoding import Decode, transforms

pytestmark = pytest.mark.usefixtures("quick_compile")


def keys_of(seed, sentences):
    """A random key for each sentence, which does not depend on the others."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.asarray(sentences))


def draw(model, limits, *, seed=0, sentences=None, transforms=(), **settings):
    """Samples of the sentences (numbers of the model's; all by default), keyed by their number."""
    decode = Decode(strategy="sample", **settings)
    sentences = np.arange(len(limits)) if sentences is None else np.asarray(sentences)

    @jax.jit
    def run(state, limits, keys):
        return decoding.search(
            model.step, state, limits, decode, max_length=6, bos=BOS, eos=EOS, keys_B=keys,
            transforms=transforms,
        )  # fmt: skip

    return run(model.state(decode.samples)[sentences], jnp.array(limits), keys_of(seed, sentences))


def test_one_candidate_is_a_chain_of_likeliest_tokens():
    model, limits = Automaton(0, batch=12), [6, 5, 4, 3, 2, 1] * 2
    hypotheses = draw(model, limits, top_k=1)
    for b, limit in enumerate(limits):
        tokens, log_prob, score = found(hypotheses, b)[0]
        assert tokens == model.greedy(b, limit)
        np.testing.assert_allclose(log_prob, model.log_prob(b, tokens), atol=1e-5)
        assert score == log_prob


def test_sentences_are_drawn_as_often_as_they_are_likely():
    model, n = Automaton(1, batch=1, sharpness=0.7), 4000
    hypotheses = draw(model, [3], samples=n)
    counts = collections.Counter(tokens for tokens, _, _ in found(hypotheses, 0))
    # At its limit a sentence is ended: its last token is not drawn.
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
    hypotheses = draw(model, limits, samples=50, seed=1)
    for b, limit in enumerate(limits):
        drawn = found(hypotheses, b)
        assert len(drawn) == 50
        for tokens, log_prob, _ in drawn:
            assert len(tokens) <= limit and tokens.index(EOS) == len(tokens) - 1
            np.testing.assert_allclose(log_prob, model.log_prob(b, tokens), atol=2e-5)
        assert len({tokens for tokens, _, _ in drawn}) > 5


def test_a_low_temperature_and_one_candidate_are_greedy():
    model, limits = Automaton(3, batch=4), [6] * 4
    cold, one = draw(model, limits, temperature=1e-4), draw(model, limits, top_k=1)
    np.testing.assert_array_equal(cold.tokens, one.tokens)
    assert [found(one, b)[0][0] for b in range(4)] == [model.greedy(b, 6) for b in range(4)]


def test_a_high_temperature_is_uniform():
    model, n = Automaton(3, batch=1), 4000
    hot = draw(model, [6], samples=n, temperature=1e4)
    first = np.bincount(np.asarray(hot.tokens)[0, :, 0], minlength=4)
    assert np.abs(first / n - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / n)


def test_top_k_draws_among_the_likeliest_in_their_proportions():
    model, n = Automaton(4, batch=1, sharpness=0.5), 4000
    hypotheses = draw(model, [6], samples=n, top_k=2)
    for tokens, _, _ in found(hypotheses, 0):
        allowed = model.step_log_probs(0, tokens[:-1]).argsort(axis=-1)[:, -2:]
        free = len(tokens) if len(tokens) < 6 else 5
        assert all(tokens[i] in allowed[i] for i in range(free))
    first = np.exp(model.step_log_probs(0, ())[0])
    a, b = first.argsort()[-2:]
    share = (np.asarray(hypotheses.tokens)[0, :, 0] == a).mean()
    assert abs(share - first[a] / (first[a] + first[b])) < 4 * np.sqrt(0.25 / n)


def test_samples_follow_from_the_key():
    model, limits = Automaton(5, batch=2, sharpness=0.5), [6, 6]
    one, same, other = (draw(model, limits, samples=20, seed=i).tokens for i in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)


def test_samples_do_not_depend_on_the_batch_or_its_order():
    model, limits = Automaton(6, batch=5, sharpness=0.5), np.array([6, 3, 6, 5, 1])
    together = draw(model, limits, samples=8)
    for sentences in ([4, 3, 2, 1, 0], [2], [1, 3], [0, 0, 2]):
        other = draw(model, limits[sentences], sentences=sentences, samples=8)
        np.testing.assert_array_equal(other.tokens, together.tokens[np.array(sentences)])
        np.testing.assert_allclose(
            other.log_probs, together.log_probs[np.array(sentences)], atol=1e-5
        )


def test_a_sample_does_not_depend_on_how_many_are_drawn():
    model, limits = Automaton(7, batch=3, sharpness=0.5), [6, 6, 4]
    many = draw(model, limits, samples=9)
    for samples in (1, 4):
        few = draw(model, limits, samples=samples)
        np.testing.assert_array_equal(few.tokens, many.tokens[:, :samples])
    assert len({tokens for tokens, _, _ in found(many, 0)}) > 4  # they differ among themselves


def test_a_low_temperature_does_not_change_what_is_reported():
    """Log-probabilities are the model's own: forced scores at temperature 1."""
    model, limits = Automaton(8, batch=2, sharpness=0.5), [6, 6]
    hypotheses = draw(model, limits, samples=20, temperature=0.3, top_k=3)
    for b in range(2):
        for tokens, log_prob, score in found(hypotheses, b):
            np.testing.assert_allclose(log_prob, model.log_prob(b, tokens), atol=2e-5)
            assert score == log_prob


def test_min_p_draws_among_tokens_likely_enough_in_their_proportions():
    model, n = Automaton(4, batch=1, sharpness=0.5), 4000
    first = np.exp(model.step_log_probs(0, ())[0])
    share = float(0.9 * np.sort(first)[-2] / first.max())  # two tokens are likely enough at first
    hypotheses = draw(model, [6], samples=n, min_p=share)
    for tokens, log_prob, _ in found(hypotheses, 0):
        log_probs = model.step_log_probs(0, tokens[:-1])
        free = len(tokens) if len(tokens) < 6 else 5  # at its limit a sentence is ended
        ratios = log_probs[range(free), tokens[:free]] - log_probs[:free].max(axis=-1)
        assert np.exp(ratios).min() >= share * (1 - 1e-6)
        np.testing.assert_allclose(log_prob, model.log_prob(0, tokens), atol=2e-5)
    kept = first * (first >= share * first.max())
    assert (kept > 0).sum() == 2
    counts = np.bincount(np.asarray(hypotheses.tokens)[0, :, 0], minlength=4)
    expected = n * kept / kept.sum()
    assert (counts[kept == 0] == 0).all()
    chi2 = ((counts - expected)[kept > 0] ** 2 / expected[kept > 0]).sum()
    assert chi2 < 12  # 1 degree of freedom: 0.05 % lie above


def test_min_p_keeps_the_likeliest_and_its_equals():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.15, 0.1], [0.25, 0.25, 0.25, 0.25]]))
    kept = np.isfinite(transforms.min_p(logits, 0.3))
    assert kept.tolist() == [[True, True, True, False], [True] * 4]
    assert np.isfinite(transforms.min_p(logits, 1.0)).tolist() == [[True, *[False] * 3], [True] * 4]
