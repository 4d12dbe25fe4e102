"""``tfm translate --alignment``: pairs for every line, whatever it holds."""

import pytest

import tfm
from tfm import inspect

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_pairs_are_those_of_the_trace(tiny_run):
    model = tfm.load(tiny_run)
    texts = ["abc de", "fa bag", " ", "hed cab af"]
    translations = model.translate(texts)
    found = inspect.align(model, texts, translations)
    for text, translation, a in zip(texts, translations, found, strict=True):
        assert "".join(a.source).replace("▁", " ").strip() == text.strip()
        assert "".join(a.target).replace("▁", " ").strip() == translation
        assert str(a) == " ".join(f"{s}-{t}" for s, t in a.pairs)
    assert found[2] == ((), (), ())
    traced = inspect.trace(model, texts[0])
    assert traced.target.text == translations[0]
    assert [list(pair) for pair in found[0].pairs] == traced.aligned_A2.tolist() != []
    assert inspect.align(model, texts[3:], translations[3:]) == found[3:]  # whatever is beside it


def test_a_line_in_parts_counts_on(tiny_run):
    model = tfm.load(tiny_run)
    long = " ".join(["abc de fab"] * 6)  # three times what the model takes
    a = inspect.align(model, [long], model.translate([long]))[0]
    assert "".join(a.source).replace("▁", "") == long.replace(" ", "")
    assert max(s for s, _ in a.pairs) > 32
    assert max(s for s, _ in a.pairs) < len(a.source)
    assert max(t for _, t in a.pairs) < len(a.target)
    assert [t for _, t in a.pairs] == sorted(t for _, t in a.pairs)


def test_the_command_gives_four_columns_a_line(command, tiny_run):
    lines = ["abc de", "", "ab"]
    content = "\n".join(lines).encode()
    code, plain, err = command("translate", "--model", tiny_run, stdin=content)
    assert code == 0, err
    code, out, err = command("translate", "--model", tiny_run, "--alignment", stdin=content)
    assert code == 0, err
    rows = [row.split("\t") for row in out.decode().split("\n")[:-1]]
    assert [row[0] for row in rows] == plain.decode().split("\n")[:-1]
    assert rows[1] == ["", "", "", ""]
    for _, pairs, source, target in (rows[0], rows[2]):
        for s, t in (map(int, pair.split("-")) for pair in pairs.split()):
            assert s < len(source.split()) and t < len(target.split())


def test_alignment_is_of_one_translation(command, tiny_run):
    options = ("--alignment", "--n-best", "2", "--beam-size", "2")
    code, _, err = command("translate", "--model", tiny_run, *options, stdin=b"a")
    assert code == 1 and "--n-best" in err
