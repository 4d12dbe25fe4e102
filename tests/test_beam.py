import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from automaton import BOS, EOS, VOCAB, Automaton, found

from tfm import incremental, transformer
from tfm.decoding import beam, sample

pytestmark = pytest.mark.usefixtures("quick_compile")

EXHAUSTIVE = 1 + 3 + 9 + 27  # sentences of up to 4 tokens with 3 words


def searcher(model, beam_size, max_length=4, length_norm="gnmt"):
    @jax.jit
    def run(limits, alpha=1.0, rows=slice(None)):
        return beam.search(
            model.step,
            model.state(beam_size),
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
    model, limits = Automaton(0, batch=3), [4, 3, 1]
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
    improved = 0
    for seed in range(6):
        model = Automaton(seed, batch=8)
        limits = jnp.full(8, 6)
        narrow, wide = (searcher(model, r, max_length=6)(limits, 0.0) for r in (1, 8))
        gain = np.asarray(wide.log_probs[:, 0] - narrow.log_probs[:, 0])
        improved += int((gain > 1e-3).sum())
    assert improved >= 5


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
    """A sentence that is done early waits unchanged for the others."""
    limits = jnp.array([3, 8, 5, 1])
    model = Automaton(5, batch=4)
    together = searcher(model, 3, max_length=8)(limits)
    for b in range(4):
        one = Automaton(5, batch=4)
        one.start = one.start[b : b + 1]
        alone = searcher(one, 3, max_length=8)(limits[b : b + 1])
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[b])
        np.testing.assert_allclose(alone.scores[0], together.scores[b], atol=1e-6)


def test_a_vocabulary_smaller_than_two_beams_will_do():
    assert 2 * 3 > VOCAB
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
        params = incremental.for_decoding(weights, c)
        cache = incremental.init_cache(
            params, c, memory, source[1], hypotheses=hypotheses, max_length=6
        )
        step = lambda tokens, parents, cache: incremental.decode_step(  # noqa: E731
            params, c, cache, tokens, parents
        )
        return search(step, cache, jnp.array([6, 5, 6]), max_length=6, bos=2, eos=3)

    def forced(tokens, b):
        tokens = jnp.asarray(tokens)[None]
        places = jnp.arange(tokens.shape[1])[None]
        start = jnp.concatenate([jnp.array([[2]]), tokens[:, :-1]], axis=1)
        memory = transformer.encode(weights, c, *(x[b : b + 1] for x in source))
        hidden = transformer.decode(
            weights, c, memory, source[1][b : b + 1], start, jnp.ones_like(start), places
        )
        log_probs = jax.nn.log_softmax(hidden[0] @ transformer.output_table(weights, c).T)
        return float(log_probs[jnp.arange(tokens.shape[1]), tokens[0]].sum())

    return run, forced


def test_the_transformer_searches_as_an_automaton_does(translate):
    run, forced = translate
    alone = run(sample.sample, 1)
    one = run(functools.partial(beam.search, beam_size=1), 1)
    np.testing.assert_array_equal(one.tokens, alone.tokens)
    np.testing.assert_allclose(one.log_probs, alone.log_probs, atol=1e-5)

    three = run(functools.partial(beam.search, beam_size=3), 3)
    assert np.all(three.lengths > 0)
    for b in range(3):
        for tokens, log_prob, _ in found(three, b):
            np.testing.assert_allclose(log_prob, forced(tokens, b), atol=1e-4)
