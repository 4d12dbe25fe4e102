import numpy as np
import pytest
import tiny

from tfm import inspect

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def model(untrained):
    return untrained()


@pytest.mark.slow
def test_alignment_and_probabilities_are_those_of_the_report(model):
    trace = inspect.trace(model, "ab ce")
    (found,) = inspect.annotate(model, [("ab ce", trace.target.text)])
    assert found.alignment.source == trace.source.pieces[:-1]
    if found.alignment.target == trace.target.pieces[:-1]:  # the text is split as it was written
        expected = np.exp(trace.output.log_probs_T[:-1])
        np.testing.assert_allclose(found.probabilities, expected, rtol=1e-4)
        assert found.alignment.pairs == tuple(map(tuple, trace.aligned_A2.tolist()))


def test_it_depends_on_no_neighbour_and_agrees_with_align_and_score(model):
    texts = tiny.sentences(11, seed=3, words=(1, 3), letters=(1, 3))
    pairs = [*zip(texts, model.translate(texts), strict=True), ("", "ab"), ("ab", " ")]
    together = inspect.annotate(model, pairs)
    for pair, found in zip(pairs, together, strict=True):
        (alone,) = inspect.annotate(model, [pair])
        assert alone.alignment == found.alignment
        np.testing.assert_allclose(alone.probabilities, found.probabilities, rtol=1e-4)
    assert inspect.annotate(model, [("ab " * 9, "ab")]) == [inspect.annotation.Annotation()]
    assert together[-1] == together[-2] == inspect.annotation.Annotation()
    assert [a.alignment for a in together] == inspect.align(model, [[pair] for pair in pairs])
    short = [(s, t) for s, t in pairs if t.strip() and len(model.target.encode(t)) <= 16]
    scores = model.score(*zip(*short, strict=True))
    for score, found in zip(scores, inspect.annotate(model, short), strict=True):
        assert np.log(found.probabilities).sum() >= score - 1e-4  # which has the end's too


def test_all_is_compiled_beforehand(untrained):
    model = untrained(seed=9, d_model=8)
    lengths = list(inspect.annotation.warm_up(model))
    assert lengths == [8, 16]
    size = inspect.annotation._program._cache_size()
    texts = ["a", "abcd efgh abc", "ab " * 5]
    inspect.annotate(model, [(s, t) for s in texts for t in texts])
    assert inspect.annotation._program._cache_size() == size
