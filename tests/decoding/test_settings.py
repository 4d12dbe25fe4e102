"""Every setting and constraint of a beam against the enumeration of all sentences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from automaton import BOS, EOS, Automaton, found
from search_reference import Rules, all_distinct, diverse_groups, ranked

from tfm import decoding
from tfm.decoding import Attended, Constraints, Decode, transforms

pytestmark = pytest.mark.usefixtures("quick_compile")

LIMITS = [4, 4, 3, 1]
WIDE = 1 + 3 + 9 + 27  # as many as there are sentences


class Attending(Automaton):
    """An automaton that attends to two source tokens."""

    def weights(self, h):
        e = np.exp(h[..., :2] - h[..., 2:4])
        return e / e.sum(axis=-1, keepdims=True)

    def attention(self, b, tokens):
        """The attention [len+1,2] with which each next token is written, in sentence b."""
        h, out = self.start[b], []
        for token in (BOS, *tokens):
            h = np.tanh(h @ self.A + self.E[token])
            out.append(self.weights(h))
        return np.array(out)

    def attended_step(self, tokens, parents, state):
        logits, log_z, h = self.step(tokens, parents, state.state)
        e = jnp.exp(h[..., :2] - h[..., 2:4])
        return logits, log_z, Attended(h, e / e.sum(axis=-1, keepdims=True), state.mask)

    def attended_state(self, hypotheses):
        B = len(self.start)
        return Attended(
            self.state(hypotheses), jnp.zeros((B, hypotheses, 2)), jnp.ones((B, 2), bool)
        )


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def search(model, decode, longest, limits, constraints=Constraints()):  # noqa: B008
    covers = decode.coverage_penalty > 0
    R, B = decode.hypotheses, len(limits)
    return decoding.search(
        model.attended_step if covers else model.step,
        model.attended_state(R) if covers else model.state(R),
        limits, decode, max_length=longest, bos=BOS, eos=EOS, constraints=constraints,
        keys_B=jax.random.split(jax.random.key(0), B),
    )  # fmt: skip


def padded(rows, *shape):
    out = np.zeros(shape, np.int32)
    for i, row in enumerate(rows):
        if isinstance(row, tuple) and row and isinstance(row[0], tuple):
            row = padded(row, *shape[1:])
            out[i, : len(row)] = row
        else:
            out[i, ..., : len(row)] = row
    return out


def constraints(rules, batch, joins=()):
    """The arrays of one sentence's rules, the same for all."""
    make = {}
    if rules.required:
        make["required"] = padded([(phrase,) for phrase in rules.required], 3, 2, 3)
    if rules.forbidden:
        make["forbidden"] = padded(rules.forbidden, 2, 3)
    if rules.prefix:
        make["prefix"] = padded([rules.prefix], 1, 3)[0]
    arrays = {name: jnp.asarray(np.stack([x] * batch)) for name, x in make.items()}
    if rules.joins:
        arrays["joins"] = jnp.isin(jnp.arange(4), jnp.array(rules.joins))
    return Constraints(**arrays)


SETTINGS = {
    "min-length": ({"min_length": 3}, Rules()),
    "no-repeat-1": ({"no_repeat_ngram": 1}, Rules()),
    "no-repeat-2": ({"no_repeat_ngram": 2}, Rules()),
    "repetition": ({"repetition_penalty": 1.7}, Rules()),
    "suppress": ({"suppress": (1,)}, Rules()),
    "coverage": ({"coverage_penalty": 0.8}, Rules()),
    "prefix": ({}, Rules(prefix=(2, 1))),
    "prefix-overrides": ({"suppress": (2,), "no_repeat_ngram": 1}, Rules(prefix=(2, 2))),
    "soft-prefix": ({"prefix_bias": 1.5}, Rules(prefix=(2, 1))),
    "forbidden": ({}, Rules(forbidden=((1,), (2, 2)))),
    "phrase": ({}, Rules(required=((1, 2),))),
    "phrases-that-share": ({}, Rules(required=((1, 2), (2, 1)))),
    "word": ({}, Rules(required=((1,),), joins=(2,))),
    "all": (
        {"min_length": 3, "repetition_penalty": 1.3, "no_repeat_ngram": 2, "coverage_penalty": 0.3},
        Rules(required=((2,),), forbidden=((1, 1),), prefix=(1,)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_a_wide_beam_ranks_as_enumeration_does(case):
    settings, rules = SETTINGS[case]
    decode = Decode(beam_size=WIDE, length_penalty=0.7, early_stopping="never", **settings)
    model = Attending(3, batch=len(LIMITS), sharpness=0.7)
    hypotheses = search(model, decode, 4, jnp.array(LIMITS), constraints(rules, len(LIMITS)))
    for b, limit in enumerate(LIMITS):
        expected = ranked(model, b, limit, decode, rules)
        got = found(hypotheses, b)
        if not expected:  # the phrases do not fit: the sentence ends without them
            assert got and not any(ranked(model, b, limit, decode, rules))
            continue
        assert [tokens for tokens, _, _ in got] == [tokens for *_, tokens in expected]
        np.testing.assert_allclose([s for *_, s in got], [s for s, *_ in expected], atol=2e-5)
        np.testing.assert_allclose([p for _, p, _ in got], [p for _, p, _ in expected], atol=2e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"length_penalty": 0.0}, {"length_penalty": 1.0, "length_norm": "power"},
        {"length_penalty": 2.5}, {"length_penalty": -1.0}, {"coverage_penalty": 0.5},
        {"prefix_bias": 2.0},
    ],
    ids=str,
)  # fmt: skip
def test_early_stopping_best_is_exact(settings):
    """It finds what a search to the limit finds, in fewer steps."""
    B, R, T = 24, 3, 12
    model, limits = Attending(4, batch=B, sharpness=1.0), jnp.full(B, T)
    prefix = constraints(Rules(prefix=(2, 1)), B) if "prefix_bias" in settings else Constraints()
    results = {
        rule: search(model, Decode(beam_size=R, early_stopping=rule, **settings), T, limits, prefix)
        for rule in ("first", "best", "never")
    }
    for name in ("tokens", "lengths", "scores"):
        best, never = (getattr(results[rule], name) for rule in ("best", "never"))
        np.testing.assert_array_equal(best, never)
    if settings.get("length_penalty", 0) > 1:
        assert np.any(results["first"].tokens != results["never"].tokens)


def test_early_stopping_best_stops_early():
    model, decode = Automaton(4, batch=4), Decode(beam_size=3, early_stopping="best")
    strategy = decoding.STRATEGIES["beam"]
    state = strategy.start(model.state(3), jnp.full(4, 40), decode, max_length=40)
    advance = jax.jit(lambda s: strategy.advance(model.step, s, decode, bos=BOS, eos=EOS))
    while strategy.running(state).any():
        state = advance(state)
    assert int(state.step.max()) < 40


@pytest.mark.parametrize("diversity", [0.0, 0.7])
def test_diverse_beams_are_those_of_a_loop(diversity):
    decode = Decode(
        strategy="diverse", beam_size=6, groups=3, diversity=diversity, length_penalty=0.6
    )
    model, limits = Attending(1, batch=6, sharpness=0.8), [6, 5, 6, 4, 2, 1]
    hypotheses = search(model, decode, 6, jnp.array(limits))
    several = 0
    for b, limit in enumerate(limits):
        expected = sorted({x for group in diverse_groups(model, b, limit, decode) for x in group})
        got = found(hypotheses, b)
        assert all_distinct([tokens for tokens, *_ in got])
        assert [tokens for tokens, *_ in got] == [tokens for _, tokens in expected[::-1]]
        np.testing.assert_allclose([s for *_, s in got], [s for s, _ in expected[::-1]], atol=2e-5)
        for tokens, log_prob, _ in got:
            np.testing.assert_allclose(log_prob, model.log_prob(b, tokens), atol=2e-5)
        several += len(got) > 2
    assert (several > 0) == (diversity > 0)  # without diversity all groups are the same


def test_one_group_is_a_beam():
    model, limits = Attending(2, batch=8), jnp.arange(1, 9)
    one = search(model, Decode(strategy="diverse", beam_size=3, coverage_penalty=0.2), 8, limits)
    beam = search(model, Decode(beam_size=3, coverage_penalty=0.2), 8, limits)
    for a, b in zip(one, beam, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("strategy", ["sample", "diverse"])
@pytest.mark.parametrize("case", ["no-repeat-2", "soft-prefix", "word", "all"])
def test_settings_hold_in_every_strategy(strategy, case):
    settings, rules = SETTINGS[case]
    B, T = 5, 6
    if strategy == "sample":
        settings = {k: v for k, v in settings.items() if k != "coverage_penalty"}
        rules = dataclasses.replace(rules, required=())
    size = {"sample": {"samples": 4, "top_p": 0.9, "epsilon": 0.02}}.get(strategy, {"beam_size": 4})
    groups = {"groups": 2} if strategy == "diverse" else {}
    decode = Decode(strategy=strategy, **size, **groups, **settings)
    model, limits = Attending(5, batch=B, sharpness=0.7), jnp.array([6, 5, 6, 4, 6])
    hypotheses = search(model, decode, T, limits, constraints(rules, B))
    for b in range(B):
        got = found(hypotheses, b)
        allowed = {t for *_, t in ranked(model, b, int(limits[b]), decode, rules)}
        assert got and {tokens for tokens, *_ in got} <= allowed
        for tokens, log_prob, _ in got:
            np.testing.assert_allclose(log_prob, model.log_prob(b, tokens), atol=2e-5)


def test_a_required_phrase_is_found_by_a_narrow_beam():
    """Five tokens of two phrases and a beam of 4, where plain search would write none of them."""
    model, B, T = Automaton(8, batch=16), 16, 14
    arrays = constraints(Rules(required=((1, 1, 2), (2, 2))), B)
    hypotheses = search(model, Decode(beam_size=4), T, jnp.full(B, T), arrays)
    plain = search(model, Decode(beam_size=4), T, jnp.full(B, T))
    text = lambda h, b: "".join(map(str, found(h, b)[0][0]))  # noqa: E731
    assert all("112" in text(hypotheses, b) and "22" in text(hypotheses, b) for b in range(B))
    assert sum("112" in text(plain, b) for b in range(B)) < B // 2


def test_what_does_not_fit_ends_with_as_much_as_it_can():
    model = Automaton(8, batch=2)
    arrays = constraints(Rules(required=((1, 2, 1), (2, 2, 2))), 2)
    hypotheses = search(model, Decode(beam_size=8), 5, jnp.array([5, 5]), arrays)
    for b in range(2):
        for tokens, log_prob, _ in found(hypotheses, b):
            text = "".join(map(str, tokens))
            assert "121" in text or "222" in text
            np.testing.assert_allclose(log_prob, model.log_prob(b, tokens), atol=2e-5)


def test_samples_cannot_be_made_to_hold_phrases():
    with pytest.raises(ValueError, match="phrases that must appear need strategy beam or diverse"):
        search(
            Attending(0, batch=1), Decode(strategy="sample"), 4, jnp.array([4]),
            constraints(Rules(required=((1,),)), 1),
        )  # fmt: skip


def test_top_p_keeps_the_fewest_likeliest(rng):
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05], [0.05, 0.1, 0.25, 0.6]]))
    kept = lambda p: np.isfinite(transforms.top_p(logits, p)).tolist()  # noqa: E731
    assert kept(0.5) == [[True, False, False, False], [False, False, False, True]]
    assert kept(0.7) == [[True, True, False, False], [False, False, True, True]]
    assert kept(0.96) == [[True] * 4] * 2
    many = rng.normal(size=(20, 50)).astype(np.float32) * 3
    for row, keep in zip(many, np.isfinite(transforms.top_p(jnp.asarray(many), 0.8)), strict=True):
        p = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        order = np.argsort(-p)
        count = int((np.cumsum(p[order]) < 0.8).sum()) + 1
        assert set(np.flatnonzero(keep)) == set(order[:count])


def test_epsilon_keeps_the_likeliest_always():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25]]))
    kept = lambda e: np.isfinite(transforms.epsilon(logits, e)).tolist()  # noqa: E731
    assert kept(0.1) == [[True, True, True, False], [True] * 4]
    assert kept(0.4) == [[True, False, False, False], [True] * 4]


@pytest.mark.parametrize("settings", [{"top_p": 0.7}, {"epsilon": 0.12}], ids=str)
def test_what_is_drawn_has_the_frequencies_of_what_is_kept(settings):
    model, n = Attending(6, batch=1, sharpness=0.5), 4000
    decode = Decode(strategy="sample", samples=n, **settings)
    hypotheses = search(model, decode, 6, jnp.array([6]))
    first = model.step_log_probs(0, ())[0]
    keep = {"top_p": transforms.top_p, "epsilon": transforms.epsilon}[next(iter(settings))]
    kept = np.exp(first) * np.isfinite(keep(jnp.asarray(first), next(iter(settings.values()))))
    expected = n * kept / kept.sum()
    counts = np.bincount(np.asarray(hypotheses.tokens)[0, :, 0], minlength=4)
    assert 2 <= (kept > 0).sum() < 4 and (counts[kept == 0] == 0).all()
    chi2 = ((counts - expected)[kept > 0] ** 2 / expected[kept > 0]).sum()
    assert chi2 < 15.2  # 2 degrees of freedom: 0.05 % lie above


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "diverse", "beam_size": 5, "groups": 2}, "groups 2: must divide"),
        ({"min_length": 9, "max_length": 4}, "min_length 9: must not be above"),
        ({"top_p": 0.9}, "top_p 0.9: acts in strategy sample or mbr, not in beam"),
        ({"strategy": "sample", "beam_size": 2}, "beam_size 2: acts in strategy"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        decoding.check(Decode(**settings), settings)


def test_a_run_may_hold_settings_of_several_strategies():
    decoding.check(Decode(strategy="sample", beam_size=2), ("strategy",))
    decoding.check(Decode(strategy="mbr", samples=9, beam_size=2), ("samples", "beam_size"))
