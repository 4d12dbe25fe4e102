"""Random sets of settings and constraints on hostile lines: a line out for each line in, the same
in any batch, with the log-probability that it has when it is forced.
"""

import dataclasses

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tfm import decoding
from tfm.decoding import Decode
from tfm.translator import TextConstraints, buckets, programs

pytestmark = pytest.mark.usefixtures("quick_compile")

PHASES = (Phase.generate,)  # shrinking would compile for hours

LINES = [
    "abc", "", "fed cab", "  \t", "🙂 中文 ﷽", "a" * 30, "\u2581b", "hh", "<b>a</b>", "bad\r",
    "abc", "0" * 9, "é" + "\u0301" * 5, "deaf head", "h", "A.", "…", "b" * 14, "fa fa", "dad", "e",
]  # fmt: skip

BEAMS = {
    "beam_size": st.sampled_from([2, 4]),
    "length_penalty": st.sampled_from([0.0, 0.6, 2.0]),
    "coverage_penalty": st.sampled_from([0.0, 0.2]),
    "early_stopping": st.sampled_from(["first", "best", "never"]),
}
DRAWS = {
    "samples": st.sampled_from([2, 4]),
    "temperature": st.sampled_from([1.0, 0.7]),
    "top_k": st.sampled_from([0, 5]),
    "top_p": st.sampled_from([1.0, 0.8]),
    "epsilon": st.sampled_from([0.0, 0.02]),
    "min_p": st.sampled_from([0.0, 0.05]),
}
ANY = {
    "repetition_penalty": st.sampled_from([1.0, 1.4]),
    "no_repeat_ngram": st.sampled_from([0, 1, 2]),
    "suppress": st.sampled_from([(), (5,), (4, 6)]),
    "unk": st.booleans(),
    "min_length": st.sampled_from([0, 3]),
    "prefix_bias": st.sampled_from([0.0, 1.5]),
}
OF = {
    "beam": BEAMS,
    "diverse": BEAMS | {"groups": st.sampled_from([1, 2])},
    "sample": DRAWS,
    "mbr": {"mbr_utility": st.sampled_from(["chrf", "bleu"]), "samples": st.just(3)},
}


@st.composite
def option_sets(draw):
    """Settings, and the constraints of every line."""
    strategy = draw(st.sampled_from(sorted(OF)))
    chosen = {name: draw(values) for name, values in (OF[strategy] | ANY).items()}
    required = strategy in ("beam", "diverse") and draw(st.booleans())
    wish = TextConstraints(
        required=(("ab",), ("deaf", "dad")) if required else (),
        forbidden=draw(st.sampled_from([(), ("h", "ca")])),
        prefix=draw(st.sampled_from(["", "fe"])),
    )
    return {"strategy": strategy, "max_length_offset": 4} | chosen, wish


@pytest.fixture(scope="module")
def model(untrained):
    return untrained(decode={"max_length_factor": 1.0})


def check(model, chosen, wish, lines=LINES, sizes=(1, 7)):
    decode = model.decode_settings(**chosen)
    n = decode.hypotheses
    constraints = lambda line: wish if len(line) % 2 else TextConstraints()  # noqa: E731
    found = model.n_best(lines, n, constraints=constraints, **chosen)
    assert len(found) == len(lines)
    for line, best in zip(lines, found, strict=True):
        assert 1 <= len(best) <= n and all("\n" not in t.text for t in best)
        assert line.strip() or best[0].text == ""
        for part in best[0].parts if len(best[0].parts) == 1 else ():
            assert best[0].unmet == constraints(part[0]).unmet(best[0].text)
    for size in sizes:
        again = model.n_best(lines, n, constraints=constraints, batch_size=size, **chosen)
        for one, other in zip(found, again, strict=True):
            assert [t.text for t in one] == [t.text for t in other]
    forced(model, decode, wish)


def forced(model, decode, wish):
    """Search over ids, whose log-probabilities are compared with forced scores."""
    from tfm.translator import text_constraints

    source = buckets.pad([model.source.encode(text) for text in ("abc", "fed", "deaf")], 3, 8)
    own = text_constraints.encode(wish, model.target)
    arrays = text_constraints.stack([own] * 3, 3, text_constraints.word_borders(model.target))
    seeds, options = np.arange(3, dtype=np.uint32), {"arch": model.arch}
    found = programs.search(model.params, source, seeds, arrays, decode=decode, **options)
    R = decode.hypotheses
    tokens, lengths = np.asarray(found.tokens).reshape(3 * R, -1), np.ravel(found.lengths)
    written = np.arange(tokens.shape[1]) < lengths[:, None]
    assert wish.required or lengths.max() > 0  # phrases may be impossible with other settings
    assert not np.isin(tokens[written], (0, 2) if decode.unk else (0, 1, 2)).any()
    scores = programs.score(model.params, np.repeat(source, R, axis=0), tokens, **options)
    there = lengths > 0
    np.testing.assert_allclose(
        np.ravel(found.log_probs)[there], scores.sum(axis=1)[there], rtol=1e-3
    )


@settings(max_examples=1, deadline=None, derandomize=True, database=None, phases=PHASES)
@given(option_sets())
def test_any_settings(model, chosen):
    few = [line for line in LINES if len(line) < 7 and (len(line) % 2 or not line.strip())]
    check(model, *chosen, few, (1,))  # of one shape: the others cost a compilation each


@pytest.mark.slow
@settings(max_examples=4, deadline=None, derandomize=True, database=None, phases=PHASES)
@given(option_sets())
def test_more_settings(model, chosen):
    check(model, *chosen)


def test_every_setting_is_drawn():
    """A new field of ``Decode`` has its place here."""
    fixed = {
        "strategy", "length_norm", "diversity", "seed", "mbr_over", "ensemble_average",
        "max_length", "max_length_factor", "max_length_offset", "batch_size", "guard",
    }  # fmt: skip
    drawn = {name for strategy in OF.values() for name in strategy} | set(ANY)
    assert drawn | fixed == {field.name for field in dataclasses.fields(Decode)}
    assert set(OF) | {"greedy"} > set(decoding.STRATEGIES)
