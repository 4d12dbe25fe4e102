"""``tfm compare``: what it says of systems whose differences are known."""

import json
import random

import pytest
import report_page

from tfm import comparison, evaluation

RNG = random.Random(0)
WORDS = [f"{a}{b}" for a in "bcdfgklmnprst" for b in ("ado", "eno", "ilu", "oma")]
REFERENCES = [" ".join(RNG.choices(WORDS, k=RNG.randint(3, 14))) for _ in range(200)]
SOURCES = [reference.upper() for reference in REFERENCES]


def spoilt(share, seed):
    """The references with a share of their words replaced."""
    rng = random.Random(seed)
    return [
        " ".join(rng.choice(WORDS) if rng.random() < share else w for w in line.split())
        for line in REFERENCES
    ]


OUTPUTS = {"base": spoilt(0.3, 1), "same": spoilt(0.3, 2), "better": spoilt(0.05, 3)}


def compared():
    return comparison.compare(SOURCES, REFERENCES, OUTPUTS, "en", resamples=300, examples=5)


@pytest.fixture(scope="module")
def found():
    return compared()


def test_scores_are_those_of_evaluate_and_chance_is_told_from_difference(found):
    for system, lines in zip(found.systems, OUTPUTS.values(), strict=True):
        assert system.bleu == pytest.approx(evaluation.bleu(lines, REFERENCES, "en").value)
        assert system.chrf == pytest.approx(evaluation.chrf(lines, REFERENCES).value)
        assert 0 < system.interval < 10
    base, same, better = found.systems
    assert base.p_bleu is None and same.p_bleu > 0.02 > 0.005 > better.p_bleu
    assert same.p_chrf > 0.02 > 0.005 > better.p_chrf
    assert (
        comparison.compare(SOURCES, REFERENCES, OUTPUTS, "en", resamples=300, examples=5) == found
    )


def test_lengths_part_the_test_set(found):
    assert sum(bucket.size for bucket in found.lengths) == 200
    for bucket in found.lengths:
        low, _, high = bucket.label.partition("-")
        own = [i for i, r in enumerate(REFERENCES)
               if int(low) <= len(r.split()) <= int(high or low)]  # fmt: skip
        assert len(own) == bucket.size
        value = evaluation.bleu(
            [OUTPUTS["same"][i] for i in own], [REFERENCES[i] for i in own], "en"
        )
        assert bucket.values[1] == pytest.approx(value.value)


def test_rare_words_are_counted_one_by_one():
    references = ["a a b", "c d d", "a e"]
    outputs = {"x": ["a b b", "c d", "e e"], "y": ["", "", "a"]}
    words = comparison.compare(references, references, outputs, "en", resamples=100).words
    once, more = words  # b, c, e occur once; a three times, d twice
    assert (once.label, once.size, once.values) == ("1", 3, (100.0, 0.0))
    assert (more.label, more.size, more.values) == ("2-4", 5, (40.0, 20.0))


def test_examples_are_the_largest_differences_both_ways(found):
    for sign, examples in zip((1, -1), found.examples, strict=True):
        gains = [sign * (e.scores[-1] - e.scores[0]) for e in examples]
        assert len(gains) == 5 and min(gains) > 0 and gains == sorted(gains, reverse=True)
        for e in examples:
            i = SOURCES.index(e.source)
            assert (e.reference, e.outputs) == (
                REFERENCES[i], tuple(lines[i] for lines in OUTPUTS.values())
            )  # fmt: skip


def test_the_page_stands_alone_and_escapes_text(found):
    first = found.examples[0][0]._replace(source="<script>alert(1)</script> & more")
    page = comparison.html(found._replace(examples=((first,), ())))
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page and "None." in page
    report_page.assert_alone(report_page.Page(page), page)
    text = comparison.text(found)
    assert "better" in text and "Where better is behind base" in text
    assert json.loads(json.dumps(comparison.as_data(found)))["systems"][2]["name"] == "better"


@pytest.mark.parametrize(
    ("outputs", "message"),
    [({"a": REFERENCES}, "1 system; two or more"),
     ({"a": REFERENCES, "b": REFERENCES[1:]}, "b has 199 lines and the references have 200")],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(outputs, message):
    with pytest.raises(ValueError, match=message):
        comparison.compare(SOURCES, REFERENCES, outputs, "en")


@pytest.mark.usefixtures("quick_compile")
def test_the_command_compares_runs_and_files(command, tiny_run, tmp_path):
    lines = ["ab cd", "fed", "", "bad cab"]
    (tmp_path / "source").write_text("\n".join(lines) + "\n")
    (tmp_path / "reference").write_text("\n".join(lines).upper() + "\n")
    (tmp_path / "others").write_text("AB\nF\n\nBAD\n")
    files = ("--source", tmp_path / "source", "--reference", tmp_path / "reference")
    systems = (tmp_path / "others", tiny_run)
    page = tmp_path / "page.html"
    code, out, _ = command(
        "compare", *systems, *files, "--resamples", 100, "--json", "--page", page
    )
    data = json.loads(out)
    assert code == 0 and [s["name"] for s in data["systems"]] == ["others", "run"]
    assert data["better"] and data["better"][0]["source"] in lines
    assert "<h1>others · run</h1>" in page.read_text()
    code, out, err = command("compare", systems[0], systems[0], *files)
    assert code == 1 and "--target-language: name it" in err
