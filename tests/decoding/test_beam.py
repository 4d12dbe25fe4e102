import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from automaton import BOS, EOS, VOCAB, Automaton, found

from tfm import decoding, transformer
from tfm.decoding import Decode, candidates

pytestmark = pytest.mark.usefixtures("quick_compile")

EXHAUSTIVE = 1 + 3 + 9 + 27  # sentences of up to 4 tokens with 3 words


def searcher(model, beam_size, max_length=4, length_norm="gnmt"):
    @functools.partial(jax.jit, static_argnames="alpha")
    def run(limits, alpha=1.0, state=None):
        return decoding.search(
            model.step,
            model.state(beam_size) if state is None else state,
            limits,
            Decode(beam_size=beam_size, length_norm=length_norm, length_penalty=alpha),
            max_length=max_length,
            bos=BOS,
            eos=EOS,
        )

    return run


def normalised(log_prob, length, norm, alpha):
    return log_prob / {"power": length, "gnmt": (5 + length) / 6}[norm] ** alpha


@pytest.mark.parametrize("norm", ["power", "gnmt"])
def test_a_wide_beam_ranks_all_sentences_as_enumeration_does(norm):
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
    assert len(best) > len(limits)  # the best sentence depends on the penalty


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_the_forced_scores_of_what_was_found(seed):
    """A narrow beam reorders its hypotheses often: a state that does not follow would show here."""
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


def test_hypotheses_that_do_not_exist_are_marked():
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
    greedy = decoding.search(
        model.step,
        model.state(1),
        jnp.array(limits),
        Decode(strategy="sample", top_k=1),
        max_length=8,
        bos=BOS,
        eos=EOS,
        keys_B=jax.random.split(jax.random.key(0), 16),
    )
    np.testing.assert_array_equal(one.tokens, greedy.tokens)
    np.testing.assert_allclose(one.log_probs, greedy.log_probs, atol=1e-5)
    for b, limit in enumerate(limits):
        assert found(one, b)[0][0] == model.greedy(b, limit)


def test_neighbours_do_not_matter():
    """A sentence that is done early does not change while others run, though it might improve."""
    model, limits = Automaton(5, batch=16), jnp.array([8] * 12 + [3, 5, 1, 7])
    run, state = searcher(model, 3, max_length=8), model.state(3)
    together = run(limits, 2.0, state)
    for b in range(16):
        alone = run(limits[b : b + 1], 2.0, state[b : b + 1])
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[b])
        np.testing.assert_allclose(alone.scores[0], together.scores[b], atol=1e-6)


def test_a_vocabulary_may_be_smaller_than_two_beams():
    assert VOCAB < 2 * 3
    hypotheses = searcher(Automaton(1, batch=2), 3)(jnp.array([4, 4]))
    assert np.all(hypotheses.lengths > 0)


@pytest.fixture
def translate(draw, sentences, rng):
    """The Transformer with random weights behind the step callback."""
    arch = transformer.Architecture(
        source_vocab=11, target_vocab=11, d_model=16, heads=4, kv_heads=2, d_ff=24,
        encoder_layers=1, decoder_layers=2, dropout=0.0,
    )  # fmt: skip
    params = draw(transformer.declare(arch), seed=3)
    source = [jnp.asarray(x) for x in sentences(rng, [(7, 5), (3, 4), (5, 2)])[:3]]

    @functools.partial(jax.jit, static_argnums=0)
    def run(decode):
        memory = transformer.encode(params, arch, *source)
        fast = transformer.inference_params(params, arch)
        cache = transformer.init_cache(
            fast, arch, memory, source[1], hypotheses=decode.hypotheses, max_length=6
        )

        def step(tokens, parents, cache):
            logits, cache = transformer.decode_step(fast, arch, cache, tokens, parents)
            return logits, jax.nn.logsumexp(logits, axis=-1), cache

        keys, limits = jax.random.split(jax.random.key(0), 3), jnp.array([6, 5, 6])
        return decoding.search(step, cache, limits, decode, max_length=6, bos=2, eos=3, keys_B=keys)

    @jax.jit
    def forced(tokens, lengths):
        """Forced scores [B,R] of ``tokens`` [B,R,T]; the decoder reads all rows at once."""
        B, R, T = tokens.shape
        rows = tokens.reshape(B * R, T)
        memory = jnp.repeat(transformer.encode(params, arch, *source), R, axis=0)
        start = jnp.pad(rows[:, :-1], ((0, 0), (1, 0)), constant_values=2)
        positions = jnp.broadcast_to(jnp.arange(T), rows.shape)
        real = (positions < lengths.reshape(-1, 1)).astype(jnp.int32)
        segments = jnp.repeat(source[1], R, axis=0)
        hidden = transformer.decode(params, arch, memory, segments, start, real, positions)
        log_probs = jax.nn.log_softmax(hidden @ transformer.output_table(params, arch).T)
        chosen = jnp.take_along_axis(log_probs, rows[:, :, None], axis=2)[..., 0]
        return (chosen * real).sum(axis=1).reshape(B, R)

    return run, forced


def test_the_transformer_is_searched_as_the_automaton_is(translate):
    run, forced = translate
    greedy = run(Decode(strategy="sample", top_k=1))
    one = run(Decode(beam_size=1))
    np.testing.assert_array_equal(one.tokens, greedy.tokens)
    np.testing.assert_allclose(one.log_probs, greedy.log_probs, atol=1e-5)

    for decode in (Decode(beam_size=3), Decode(strategy="sample", samples=3, temperature=2.0)):
        three = run(decode)
        assert np.all(three.lengths > 0)
        expected = forced(three.tokens, three.lengths)
        np.testing.assert_allclose(three.log_probs, expected, atol=1e-4)


@pytest.mark.parametrize(("size", "k"), [(5, 4), (64, 2), (1000, 8), (1001, 8), (8000, 10)])
def test_top_k_by_groups_is_exact(rng, size, k):
    x = rng.permutation(3 * 2 * size).reshape(3, 2, size).astype(np.float32)  # no two are equal
    values, index = candidates.top_k(jnp.asarray(x), k)
    order = np.argsort(-x, axis=-1)[..., :k]
    np.testing.assert_array_equal(index, order)
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, axis=-1))


def test_top_k_by_groups_finds_equal_entries_once_each(rng):
    x = rng.integers(0, 5, (4, 999)).astype(np.float32)
    values, index = map(np.asarray, candidates.top_k(jnp.asarray(x), 6))
    np.testing.assert_array_equal(values, -np.sort(-x, axis=-1)[:, :6])
    np.testing.assert_array_equal(np.take_along_axis(x, index, axis=-1), values)
    assert all(len(set(row)) == 6 for row in index.tolist())


def test_top_k_by_groups_never_returns_an_id_outside_the_vocabulary(rng):
    """Where fewer than k entries are finite, the rest is -inf at ids within the vocabulary.

    995 entries: the last group of 32 has 3 of them, and padding of -inf.
    """
    size, k = 995, 8
    x = np.full((size + 1, size), -np.inf, np.float32)
    np.fill_diagonal(x, 0.0)  # one finite entry anywhere, and in the last row none
    x[: size - 2, -2:] = rng.normal(size=(size - 2, 2))  # or three, two of them in the last group
    values, index = map(np.asarray, candidates.top_k(jnp.asarray(x), k))
    assert np.all((index >= 0) & (index < size))
    np.testing.assert_array_equal(values, -np.sort(-x, axis=-1)[:, :k])
    there, finite = np.take_along_axis(x, index, axis=-1), np.isfinite(values)
    np.testing.assert_array_equal(there[finite], values[finite])


def test_a_search_with_few_possible_tokens_stays_within_the_vocabulary():
    """Two of 995 tokens are possible, for a beam of 4; a model is asked about no other token."""
    V, eos, word = 995, 993, 994

    def step(tokens, parents, state):
        logits = jnp.full((*tokens.shape, V), -jnp.inf)
        logits = logits.at[..., jnp.array([eos, word])].set(0.0)
        logits = jnp.where((tokens < V)[..., None], logits, jnp.nan)  # as a gather beyond a table
        return logits, jax.nn.logsumexp(logits, axis=-1), state

    found = decoding.search(
        step, None, jnp.array([4, 4]), Decode(beam_size=4), max_length=4, bos=2, eos=eos
    )
    tokens, lengths = np.asarray(found.tokens), np.asarray(found.lengths)
    for b in range(2):
        sentences = {tuple(t[:n].tolist()) for t, n in zip(tokens[b], lengths[b], strict=True)}
        assert sentences == {(*[word] * n, eos) for n in range(4)}
    np.testing.assert_allclose(found.log_probs, lengths * -np.log(2), rtol=1e-6)
