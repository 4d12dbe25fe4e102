import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from automaton import BOS, EOS, VOCAB, Automaton, found

from tfm import transformer
from tfm.decoding import beam, sample

pytestmark = pytest.mark.usefixtures("quick_compile")

EXHAUSTIVE = 1 + 3 + 9 + 27  # sentences of up to 4 tokens with 3 words


def searcher(model, beam_size, max_length=4, length_norm="gnmt"):
    @jax.jit
    def run(limits, alpha=1.0, state=None):
        return beam.search(
            model.step,
            model.state(beam_size) if state is None else state,
            limits,
            beam_size=beam_size,
            max_length=max_length,
            bos=BOS,
            eos=EOS,
            length_norm=length_norm,
            length_penalty=alpha,
        )

    return run


def normalised(log_prob, length, norm, alpha):
    return log_prob / {"power": length, "gnmt": (5 + length) / 6}[norm] ** alpha


@pytest.mark.parametrize("norm", ["power", "gnmt"])
def test_a_wide_beam_ranks_every_sentence_as_counting_them_out_does(norm):
    model, limits = Automaton(0, batch=6, sharpness=0.7), [4, 4, 4, 4, 3, 1]
    run = searcher(model, EXHAUSTIVE, length_norm=norm)
    best = set()
    for alpha in (0.0, 0.6, 1.0, 2.0):
        hypotheses = run(jnp.array(limits), alpha)
        for b, limit in enumerate(limits):
            expected = [
                (normalised(log_prob, len(tokens), norm, alpha), tokens)
                for tokens, log_prob in model.sentences(b, limit)
            ]
            expected.sort(reverse=True)
            got = found(hypotheses, b)
            assert [tokens for tokens, _, _ in got] == [tokens for _, tokens in expected]
            np.testing.assert_allclose([s for *_, s in got], [s for s, _ in expected], atol=1e-5)
            best.add((b, got[0][0]))
    assert len(best) > len(limits)  # the penalty decides


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_the_forced_scores_of_what_was_found(seed):
    """A narrow beam reorders its hypotheses often: a state out of step would show here."""
    model, limits = Automaton(seed, batch=4), [8, 8, 5, 2]
    hypotheses = searcher(model, 3, max_length=8)(jnp.array(limits), 0.7)
    for b, limit in enumerate(limits):
        got = found(hypotheses, b)
        assert len(got) == 3
        for tokens, log_prob, score in got:
            assert len(tokens) <= limit and tokens.index(EOS) == len(tokens) - 1
            np.testing.assert_allclose(log_prob, model.log_prob(b, tokens), atol=2e-5)
            np.testing.assert_allclose(
                score, normalised(log_prob, len(tokens), "gnmt", 0.7), atol=2e-5
            )
        assert len({tokens for tokens, _, _ in got}) == 3
        scores = [score for *_, score in got]
        assert scores == sorted(scores, reverse=True)


def test_a_wider_beam_finds_what_a_greedy_choice_misses():
    model, limits = Automaton(0, batch=48), jnp.full(48, 6)
    narrow, wide = (searcher(model, r, max_length=6)(limits, 0.0) for r in (1, 8))
    gain = np.asarray(wide.log_probs[:, 0] - narrow.log_probs[:, 0])
    assert (gain > 1e-3).sum() >= 5


def test_what_cannot_be_found_is_marked():
    """A limit of one leaves a single sentence: the empty one."""
    hypotheses = searcher(Automaton(0, batch=1), 3)(jnp.array([1]))
    assert np.asarray(hypotheses.lengths).tolist() == [[1, 0, 0]]
    assert np.all(np.isneginf(hypotheses.scores[0, 1:]))
    assert np.all(np.isneginf(hypotheses.log_probs[0, 1:]))
    assert np.all(hypotheses.tokens[0, 1:] == 0)


@pytest.mark.parametrize("seed", range(2))
def test_a_beam_of_one_is_greedy(seed):
    model, limits = Automaton(seed, batch=16), list(range(1, 9)) * 2
    one = searcher(model, 1, max_length=8)(jnp.array(limits))
    alone = sample.sample(
        model.step, model.state(1), jnp.array(limits), max_length=8, bos=BOS, eos=EOS
    )
    np.testing.assert_array_equal(one.tokens, alone.tokens)
    np.testing.assert_allclose(one.log_probs, alone.log_probs, atol=1e-5)
    for b, limit in enumerate(limits):
        assert found(one, b)[0][0] == model.greedy(b, limit)


def test_neighbours_do_not_matter():
    """A sentence that is done early waits unchanged for the others, though it might still gain."""
    model, limits = Automaton(5, batch=16), jnp.array([8] * 12 + [3, 5, 1, 7])
    run, state = searcher(model, 3, max_length=8), model.state(3)
    together = run(limits, 2.0, state)
    for b in range(16):
        alone = run(limits[b : b + 1], 2.0, state[b : b + 1])
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[b])
        np.testing.assert_allclose(alone.scores[0], together.scores[b], atol=1e-6)


def test_a_vocabulary_smaller_than_two_beams_will_do():
    assert VOCAB < 2 * 3
    hypotheses = searcher(Automaton(1, batch=2), 3)(jnp.array([4, 4]))
    assert np.all(hypotheses.lengths > 0)


@pytest.fixture
def translate(draw, sentences, rng):
    """The real Transformer with random weights behind search's callback."""
    c = transformer.Config(
        source_vocab=11, target_vocab=11, d_model=16, heads=4, kv_heads=2, d_ff=24,
        encoder_layers=1, decoder_layers=2, dropout=0.0,
    )  # fmt: skip
    weights = draw(transformer.declare(c), seed=3)
    batch = sentences(rng, [(7, 5), (3, 4), (5, 2)])
    source = [jnp.asarray(batch[f"source{x}"]) for x in ("", "_segments", "_positions")]

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def run(search, hypotheses):
        memory = transformer.encode(weights, c, *source)
        params = transformer.for_decoding(weights, c)
        cache = transformer.init_cache(
            params, c, memory, source[1], hypotheses=hypotheses, max_length=6
        )
        step = lambda tokens, parents, cache: transformer.decode_step(  # noqa: E731
            params, c, cache, tokens, parents
        )
        return search(step, cache, jnp.array([6, 5, 6]), max_length=6, bos=2, eos=3)

    @jax.jit
    def forced(tokens, lengths):
        """Forced scores [B,R] of ``tokens`` [B,R,T]; the decoder reads all rows at once."""
        B, R, T = tokens.shape
        rows = tokens.reshape(B * R, T)
        memory = jnp.repeat(transformer.encode(weights, c, *source), R, axis=0)
        start = jnp.pad(rows[:, :-1], ((0, 0), (1, 0)), constant_values=2)
        places = jnp.broadcast_to(jnp.arange(T), rows.shape)
        real = (places < lengths.reshape(-1, 1)).astype(jnp.int32)
        segments = jnp.repeat(source[1], R, axis=0)
        hidden = transformer.decode(weights, c, memory, segments, start, real, places)
        log_probs = jax.nn.log_softmax(hidden @ transformer.output_table(weights, c).T)
        chosen = jnp.take_along_axis(log_probs, rows[:, :, None], axis=2)[..., 0]
        return (chosen * real).sum(axis=1).reshape(B, R)

    return run, forced


def test_the_transformer_searches_as_an_automaton_does(translate):
    run, forced = translate
    alone = run(sample.sample, 1)
    one = run(functools.partial(beam.search, beam_size=1), 1)
    np.testing.assert_array_equal(one.tokens, alone.tokens)
    np.testing.assert_allclose(one.log_probs, alone.log_probs, atol=1e-5)

    three = run(functools.partial(beam.search, beam_size=3), 3)
    assert np.all(three.lengths > 0)
    expected = forced(three.tokens, three.lengths)
    np.testing.assert_allclose(three.log_probs, expected, atol=1e-4)


@pytest.mark.parametrize(("size", "k"), [(5, 4), (64, 2), (1000, 8), (1001, 8), (8000, 10)])
def test_top_k_by_groups_is_exact(rng, size, k):
    x = rng.permutation(3 * 2 * size).reshape(3, 2, size).astype(np.float32)  # no two are equal
    values, index = beam.top_k(jnp.asarray(x), k)
    order = np.argsort(-x, axis=-1)[..., :k]
    np.testing.assert_array_equal(index, order)
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, axis=-1))


def test_top_k_by_groups_finds_equal_entries_once_each(rng):
    x = rng.integers(0, 5, (4, 999)).astype(np.float32)
    values, index = map(np.asarray, beam.top_k(jnp.asarray(x), 6))
    np.testing.assert_array_equal(values, -np.sort(-x, axis=-1)[:, :6])
    np.testing.assert_array_equal(np.take_along_axis(x, index, axis=-1), values)
    assert all(len(set(row)) == 6 for row in index.tolist())
