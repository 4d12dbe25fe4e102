"""Glossaries and other constraints of texts, from the file to the translation."""

import pytest

from tfm.translator import Glossary, TextConstraints, glossary, text_constraints

pytestmark = pytest.mark.usefixtures("quick_compile")

TEXTS = ["abc", "fed cab", "hh", "", "bad", "deaf head ab", "a", "cab"]


def test_a_term_is_found_between_word_borders_the_longest_first(tmp_path):
    path = tmp_path / "terms.tsv"
    path.write_text(
        "cat\tKatze\tKatzen\n\nblack cat\tPanther\nUS\tUSA\n猫\tcat\n小猫\tkitten\ntfm\nC++\tC++\n"
    )
    terms = glossary.read(path)
    required = lambda text: terms(text).required  # noqa: E731
    cat, panther = ("Katze", "Katzen"), ("Panther",)
    assert required("The Cat sat.") == (cat,)
    assert required("a black  cat and a cat, cat") == (panther, cat)
    assert required("catalogue concat cats cat_a") == ()
    assert required("let us go to the US") == (("USA",),)
    assert required("我有一只小猫和猫") == (("kitten", "Kitten"), ("cat", "Cat"))
    assert required("养cat吗") == (cat,)
    assert required("run TFM, with C++!") == (("TFM",), ("C++",))  # copied as they stand
    assert required("") == ()


def test_the_same_term_again_adds_forms(tmp_path):
    path = tmp_path / "terms.tsv"
    path.write_bytes("a\tx\na\ty\n".encode("utf-8-sig"))
    assert glossary.read(path).terms == {"a": ("x", "y")}
    path.write_text("a\tb\n\tc\n")
    with pytest.raises(ValueError, match="line 2: an empty term"):
        glossary.read(path)
    with pytest.raises(FileNotFoundError):
        glossary.read(tmp_path / "none.tsv")


def test_what_a_text_does_not_meet():
    wish = TextConstraints(required=(("cat", "Cat"), ("猫",)), forbidden=("dog",))
    assert wish.unmet("Cat, 小猫们") == ()
    assert wish.unmet("catalogue 猫") == ("cat",)
    assert wish.unmet("a cat a dog") == ("猫", "dog")
    assert TextConstraints().unmet("anything") == ()


def test_a_phrase_is_spelt_with_and_without_a_space(letters):
    decoded = [
        (letters.decode(ids), inside)
        for ids, inside in text_constraints.segmentations(letters, "abc")
    ]
    assert decoded[-1] == ("abc", False)
    assert text_constraints.segmentations(letters, "xyz") == []  # it has letters a to h alone
    assert text_constraints.segmentations(letters, " ") == []


def test_constraints_have_few_shapes(letters):
    shapes = {
        text_constraints.encode(
            TextConstraints(required=(("a" * n, "b" * n),) * p), letters
        ).shape
        for n in range(2, 8)
        for p in range(1, 5)
    }  # fmt: skip
    assert len(shapes) <= 3 * 2
    assert not any(text_constraints.encode(TextConstraints(), letters).shape)


@pytest.fixture(scope="module")
def model(untrained):
    """It writes letters at random, and at most 16 of them."""
    return untrained(decode={"beam_size": 4, "max_length_factor": 0.0, "max_length_offset": 16})


TERMS = Glossary({"ab": ("deaf",), "fed": ("head cab",), "hh": ("hh",), "bad": ("xyz",)})


@pytest.mark.parametrize("settings", [{}, {"strategy": "diverse", "groups": 2}], ids=str)
def test_terms_are_in_the_translations_of_the_lines_that_hold_them(model, settings):
    found = model.n_best(TEXTS, 2, constraints=TERMS, **settings)
    assert "deaf" in found[5][0].text.lower().split()
    assert "head cab" in found[1][0].text
    assert "hh" in found[2][0].text.split()
    plain = model.n_best(TEXTS, 2, **settings)
    for i in (0, 3, 6, 7):  # no term in these lines: as if there were no glossary
        assert found[i] == plain[i]
    if not settings:
        assert model.translate(TEXTS, constraints=TERMS, batch_size=1) == [b[0].text for b in found]


def test_what_is_not_met_is_reported_for_its_text(model, caplog):
    found = model.n_best(TEXTS, 1, constraints=TERMS)
    assert [best[0].unmet for best in found] == [(), (), (), (), ("xyz",), (), (), ()]
    assert found[4][0].text == model.translate(["bad"])[0]  # no piece for x: nothing can be done
    (record,) = [r for r in caplog.records if "constraints" in r.getMessage()]
    assert "1 of 4 texts" in record.getMessage() and "bad: xyz" in record.getMessage()


def test_an_impossible_phrase_does_not_make_a_sentence_run_on(model):
    """A phrase longer than the limit: the translation is that without it."""
    long = TextConstraints(required=(("abcdefghabcdefghabc",),))
    ((translation,),) = model.n_best(["cab"], 1, constraints=[long])
    assert translation.unmet == ("abcdefghabcdefghabc",)
    assert translation.text == model.translate(["cab"])[0]


def test_prefixes_and_forbidden_phrases(model):
    wishes = [TextConstraints(prefix="dad f"), TextConstraints(forbidden=("a", "h")), None]
    found = model.n_best(["abc", "fed", "bad"], 1, constraints=wishes)
    assert found[0][0].text.startswith("dad f")
    assert "a" not in found[1][0].text and not found[1][0].unmet
    assert found[2] == model.n_best(["bad"], 1)[0]
    soft = model.n_best(["abc"], 1, constraints=wishes[:1], prefix_bias=1e-6)[0][0]
    assert soft.text == model.translate(["abc"])[0]
    with pytest.raises(ValueError, match="2 constraints for 1 texts"):
        model.n_best(["a"], 1, constraints=[None, None])
    with pytest.raises(ValueError, match=r"constraints of text 1: .* in \d parts"):
        model.n_best(["abc def abc def abc"], 1, constraints=[TextConstraints(required=(("a",),))])
    with pytest.raises(ValueError, match=r"prefix of the translation of a: 18 tokens, where 16"):
        model.n_best(["a"], 1, constraints=[TextConstraints(prefix="abcdefghabcdefgha")])


def test_draws_cannot_be_made_to_hold_terms(model):
    for settings in ({"strategy": "sample"}, {"strategy": "mbr"}):
        with pytest.raises(ValueError, match="phrases that must appear, as of a glossary, need"):
            model.translate(["a", "fed"], constraints=TERMS, **settings)


def test_a_glossary_on_the_command_line(tiny_run, tmp_path, command):
    terms = tmp_path / "terms.tsv"
    terms.write_text("abc\tHEAD\nhh\t猫\n")
    code, out, err = command(
        "translate", "--model", tiny_run, "--glossary", terms, stdin=b"abc\nbad\n\nhh\n"
    )
    lines = out.decode().split("\n")
    assert code == 0 and len(lines) == 5 and "HEAD" in lines[0]
    assert "line 4: lacks 猫" in err and "line 1" not in err
    code, out, err = command("translate", "--model", tiny_run, "--glossary", tmp_path / "no")
    assert code != 0 and "no such file" in err.lower()
