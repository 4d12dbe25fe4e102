"""Weights that give no probability: an empty translation, one warning, and no effect on others."""

import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("quick_compile")

TEXTS = ["abc", "hab", "fed cab", "bah", "cab", "deaf head"]
WITH_H = [i for i, text in enumerate(TEXTS) if "h" in text]
DECODES = [{}, {"strategy": "sample", "samples": 2}]


def name(decode):
    return decode.get("strategy", "beam")


def with_nan_for(model, letter):
    """The model with NaN for the embedding of one source letter."""
    piece = model.source.encode(letter)[-2]
    table = model.params["tables"]["source"].at[piece].set(jnp.nan)
    return model.with_params(model.params | {"tables": model.params["tables"] | {"source": table}})


@pytest.fixture(scope="module")
def model(untrained):
    return untrained()


@pytest.mark.parametrize("decode", DECODES, ids=name)
def test_a_text_without_a_translation_does_not_affect_the_others(model, caplog, decode):
    expected = model.n_best(TEXTS, 1, **decode)
    damaged = with_nan_for(model, "h")
    with caplog.at_level(logging.WARNING, "tfm"):
        found = damaged.n_best(TEXTS, 2, **decode)
    for i, text in enumerate(TEXTS):
        if i in WITH_H:
            (only,) = found[i]
            assert (only.text, only.log_prob, only.score) == ("", -math.inf, -math.inf)
            assert only.parts == ((text, ""),)
        else:
            assert found[i][0].text == expected[i][0].text
            np.testing.assert_allclose(found[i][0].log_prob, expected[i][0].log_prob, rtol=1e-5)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"no translation found for {len(WITH_H)} of {len(TEXTS)} texts")
    assert message.endswith("Left empty: " + " / ".join(TEXTS[i] for i in WITH_H))


@pytest.mark.parametrize("decode", DECODES, ids=name)
def test_weights_of_nan_translate_nothing_and_say_so(model, caplog, decode):
    damaged = model.with_params(jax.tree.map(lambda x: x * jnp.nan, model.params))
    with caplog.at_level(logging.WARNING, "tfm"):
        assert damaged.translate(TEXTS, **decode) == [""] * len(TEXTS)
    (message,) = [record.getMessage() for record in caplog.records]  # one, not one a text
    assert "weights" in message and message.endswith(" / ...")


def test_a_part_without_a_translation_leaves_the_other_parts(model, caplog):
    """The text is long enough to be split; one part has the damaged letter."""
    text = "abc de fab ca. hab de abc. fab cab de."
    damaged = with_nan_for(model, "h")
    parts = damaged.parts(text)
    bad = [i for i, part in enumerate(parts) if "h" in part]
    assert len(parts) > 2 and len(bad) == 1
    with caplog.at_level(logging.WARNING, "tfm"):
        ((found,),) = damaged.n_best([text], 1)
    expected = [t if i not in bad else "" for i, t in enumerate(model.translate(parts))]
    assert [target for _, target in found.parts] == expected
    assert found.log_prob == -math.inf
    assert sum("no translation found" in r.getMessage() for r in caplog.records) == 1


def test_an_unknown_number_is_not_a_score(model):
    (value,) = with_nan_for(model, "h").score(["hab"], ["abc"])
    assert math.isnan(value)
