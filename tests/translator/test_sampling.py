"""Translator with ``decode.strategy`` "sample": seeded, and the same in any batch."""

import dataclasses
import logging

import numpy as np
import pytest

from tfm.decoding import Decode
from tfm.translator import buckets, programs

pytestmark = pytest.mark.usefixtures("quick_compile")

TEXTS = ["abc", "fed cab", "hh", "", "bad", "abc", "deaf head ab"]
SAMPLE = {"strategy": "sample"}


@pytest.fixture(scope="module")
def model(untrained):
    return untrained(decode={"strategy": "sample", "samples": 3, "seed": 5})


@pytest.fixture(scope="module")
def samples(model):
    return model.n_best(TEXTS, 3)


def texts_of(found):
    return [[t.text for t in each] for each in found]


def test_a_text_has_as_many_samples_as_are_asked_for(model, samples):
    assert [len(each) for each in samples] == [3, 3, 3, 1, 3, 3, 3]
    assert all(len({t.text for t in each}) > 1 for each in samples if len(each) > 1)
    assert samples[3][0].text == ""
    assert model.translate(TEXTS) == [each[0].text for each in samples]
    two = model.n_best(TEXTS, 2)
    assert texts_of(two) == [each[:2] for each in texts_of(samples)]
    with pytest.raises(ValueError, match="n-best 4: must be from 1 to the number of samples, 3"):
        model.n_best(TEXTS, 4)
    assert len(model.n_best(["abc"], 4, samples=4)[0]) == 4
    with pytest.raises(ValueError, match=r"n-best 2: .* the number of samples, 1"):
        model.n_best(TEXTS, 2, samples=1)


def test_a_run_that_searches_can_sample(untrained):
    """The strategy is a setting of the call."""
    model = untrained()
    beam = model.translate(TEXTS[:3])
    sampled = model.translate(TEXTS[:3], strategy="sample", seed=3)
    assert sampled != beam and model.translate(TEXTS[:3], strategy="sample", seed=3) == sampled
    assert model.translate(TEXTS[:3], strategy="sample", top_k=1) == model.translate(
        TEXTS[:3], beam_size=1
    )


def test_the_seed_decides(model, samples):
    assert texts_of(model.n_best(TEXTS, 3, seed=5)) == texts_of(samples)
    other = model.n_best(TEXTS, 3, seed=6)
    assert all(a != b for a, b in zip(other, samples, strict=True) if a[0].text)


def test_samples_do_not_depend_on_batch_size_order_or_neighbours(model, samples):
    assert texts_of(model.n_best(TEXTS, 3, batch_size=1)) == texts_of(samples)
    assert texts_of(model.n_best(TEXTS[::-1], 3)) == texts_of(samples)[::-1]
    assert texts_of(model.n_best(TEXTS[1:2] + TEXTS[4:5], 3)) == texts_of([samples[1], samples[4]])
    assert samples[0] == samples[5]  # the same text


def test_a_sample_does_not_depend_on_how_many_are_drawn(model, samples):
    for count in (1, 2, 5):
        found = model.n_best(TEXTS, count, samples=count)
        for few, many in zip(texts_of(found), texts_of(samples), strict=True):
            assert few[:3] == many[: len(few)]


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5, "top_k": 4}])
def test_log_probabilities_are_forced_scores(model, settings):
    """At temperature 1 and without top-k, whatever the tokens were drawn with."""
    decode = Decode("sample", samples=8, max_length_factor=1.0, max_length_offset=4, **settings)
    source = buckets.pad([model.source.encode(text) for text in ("abc", "fed cab", "bad")], 3, 16)
    options = {"arch": model.arch, "execution": model.execution}
    seeds = np.arange(3, dtype=np.uint32)
    found = programs.search(model.params, source, seeds, decode=decode, **options)
    tokens = np.asarray(found.tokens).reshape(24, -1)
    forced = programs.score(model.params, np.repeat(source, 8, axis=0), tokens, **options).sum(
        axis=1
    )
    assert not np.isin(
        tokens[np.arange(tokens.shape[1]) < np.ravel(found.lengths)[:, None]], (0, 1, 2)
    ).any()
    np.testing.assert_allclose(np.ravel(found.log_probs), forced, rtol=1e-4)


def test_a_text_in_parts_joins_the_kth_samples_of_its_parts(model, caplog):
    words = " ".join(["abc de fa"] * 4)
    with caplog.at_level(logging.WARNING, "tfm"):
        ((first, second, third),) = model.n_best([words], 3)
    assert "parts" in caplog.records[0].getMessage()
    alone = model.n_best(model.parts(words), 3)
    assert len(alone) > 1
    for k, joined in enumerate((first, second, third)):
        assert joined.text == " ".join(each[k].text for each in alone)
        assert [target for _, target in joined.parts] == [each[k].text for each in alone]
        np.testing.assert_allclose(joined.log_prob, sum(each[k].log_prob for each in alone))


def test_settings_are_those_of_decode(model):
    with pytest.raises(TypeError, match="temprature"):
        model.translate(["a"], temprature=1.0)
    assert dataclasses.replace(model.experiment.decode, samples=7).hypotheses == 7
