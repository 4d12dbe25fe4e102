"""Several models that translate together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import inspect
from tfm.decoding import Decode
from tfm.decoding.ensemble import average
from tfm.translator import Ensemble, buckets, programs

pytestmark = pytest.mark.usefixtures("quick_compile")

TEXTS = ["abc", "fed cab", "hh", "", "bad"]


@pytest.fixture(scope="module")
def models(untrained):
    decode = {"beam_size": 3, "max_length": 9}
    return [
        untrained(decode=decode),
        untrained(decode=decode, seed=1, d_model=24, heads=3, positions="rotary", decoder_layers=2),
    ]


@pytest.mark.parametrize("kind", ["probability", "log_probability"])
def test_a_model_with_itself_is_the_model(models, kind):
    alone = models[0].n_best(TEXTS, 3)
    twice = Ensemble(models[:1] * 2).n_best(TEXTS, 3, ensemble_average=kind)
    for one, two in zip(alone, twice, strict=True):
        assert [t.text for t in one] == [t.text for t in two]
        np.testing.assert_allclose([t.log_prob for t in one], [t.log_prob for t in two], rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"ensemble_average": "probability"},
        {"ensemble_average": "log_probability", "coverage_penalty": 0.3},
        {"ensemble_average": "probability", "strategy": "sample", "samples": 3},
    ],
    ids=str,
)
def test_log_probabilities_are_forced_scores(models, settings):
    both = Ensemble(models)
    decode = Decode(**{"beam_size": 3, "max_length": 9} | settings)
    source = buckets.pad([both.source.encode(text) for text in ("abc", "fed cab", "bad")], 3, 16)
    options = {"arch": both.arch, "execution": both.execution}
    seeds = np.arange(3, dtype=np.uint32)
    found = programs.search(both.params, source, seeds, decode=decode, **options)
    tokens = np.asarray(found.tokens).reshape(9, -1)
    sources, kind = np.repeat(source, 3, axis=0), decode.ensemble_average
    forced = programs.score(both.params, sources, tokens, kind=kind, **options)
    np.testing.assert_allclose(np.ravel(found.log_probs), forced.sum(axis=1), rtol=1e-4)
    alone = programs.score(
        models[0].params, sources, tokens, arch=models[0].arch, execution=both.execution
    )
    assert np.abs(forced - alone).max() > 0.1


def test_averages(rng):
    log_probs = jax.nn.log_softmax(jnp.asarray(rng.normal(size=(3, 4, 7)), jnp.float32))
    logits, log_z = average(log_probs, "probability")
    np.testing.assert_allclose(np.exp(logits), np.exp(log_probs).mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(log_z, 0.0)
    logits, log_z = average(log_probs, "log_probability")
    geometric = np.exp(log_probs).prod(axis=0) ** (1 / 3)
    expected = geometric / geometric.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(np.exp(logits - log_z[:, None]), expected, rtol=1e-5)


def test_what_is_not_an_ensemble_is_refused(models, untrained):
    class Other:
        digest = "other"

    stranger = untrained()
    stranger.source = Other()
    with pytest.raises(ValueError, match="model 2 of the ensemble has another source vocabulary"):
        Ensemble([models[0], stranger])
    with pytest.raises(ValueError, match="at least one"):
        Ensemble([])
    with pytest.raises(ValueError, match="not an ensemble"):
        inspect.trace(Ensemble(models), "abc")


def test_on_the_command_line(tiny_run, command):
    code, out, _ = command(
        "translate", "--model", tiny_run, "--ensemble", tiny_run, tiny_run, stdin=b"abc\nfed cab\n"
    )
    alone = command("translate", "--model", tiny_run, stdin=b"abc\nfed cab\n")
    assert code == 0 and out == alone[1]
