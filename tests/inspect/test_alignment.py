"""Word alignment of translations, and ``tfm translate --alignment``: pairs for every line."""

import numpy as np
import pytest
import tiny

import tfm
from tfm import inspect
from tfm.inspect import alignment
from tfm.inspect.activations import activations, batch

pytestmark = pytest.mark.usefixtures("quick_compile")

LONG = " ".join(["abc de fab"] * 6)  # three times what the model takes


def spelt(pieces):
    """The text that pieces are of."""
    return "".join(pieces).replace("▁", " ").strip()


def test_pairs_are_those_of_the_trace(tiny_run):
    model = tfm.load(tiny_run)
    texts = ["abc de", "fa bag", " ", "hed cab af"]
    translations = [best[0] for best in model.n_best(texts, 1)]
    found = inspect.align(model, [t.parts for t in translations])
    for text, translation, a in zip(texts, translations, found, strict=True):
        assert spelt(a.source) == text.strip()
        assert spelt(a.target) == translation.text
        assert str(a) == " ".join(f"{s}-{t}" for s, t in a.pairs)
    assert found[2] == ((), (), ())
    traced = inspect.trace(model, texts[0])
    assert traced.target.text == translations[0].text
    assert [list(pair) for pair in found[0].pairs] == traced.aligned_A2.tolist() != []
    assert inspect.align(model, [translations[3].parts]) == found[3:]  # whatever is beside it
    pair = ((texts[0], translations[0].text),)
    assert inspect.align(model, [pair]) == found[:1]  # any pair of texts


def test_pairs_of_a_line_in_parts_are_counted_through(tiny_run):
    model = tfm.load(tiny_run)
    ((translation,),) = model.n_best([LONG], 1)
    assert len(translation.parts) > 2
    (a,) = inspect.align(model, [translation.parts])
    assert "".join(a.source).replace("▁", "") == LONG.replace(" ", "")
    assert max(s for s, _ in a.pairs) > 32
    assert max(s for s, _ in a.pairs) < len(a.source)
    assert max(t for _, t in a.pairs) < len(a.target)
    assert [t for _, t in a.pairs] == sorted(t for _, t in a.pairs)
    alone = [inspect.align(model, [(part,)])[0] for part in translation.parts]
    assert a == sum(alone, inspect.alignment.Alignment())


def test_the_very_translation_is_aligned_whatever_it_was_decoded_with(untrained):
    """Of a line in parts too: nothing is translated again, with settings of the run or any."""
    model = untrained(decode={"beam_size": 1, "max_length_factor": 0.5})
    others = {"strategy": "sample", "seed": 3, "max_length_factor": 1.0}
    plain, other = (model.n_best([LONG], 1, **decode)[0][0] for decode in ({}, others))
    assert len(plain.parts) == len(other.parts) > 2 and plain.text != other.text
    for translation in (plain, other):
        (a,) = inspect.align(model, [translation.parts])
        expected = [
            piece
            for source, target in translation.parts
            if target.strip()
            for piece in model.target.id_to_piece(model.target.encode(target)[:-1])
        ]
        assert list(a.target) == expected


def test_a_part_without_translation_has_no_pairs(untrained):
    model = untrained()
    parts = (("abc", "DEF"), ("fed", ""), ("a", " "), ("", "ab"), ("bad", "AB"))
    (a,) = inspect.align(model, [parts])
    both = inspect.align(model, [parts[:1], parts[4:]])
    assert a == both[0] + both[1]
    assert inspect.align(model, [(), parts[1:2]]) == [((), (), ())] * 2
    assert inspect.align(model, []) == []


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


def test_the_command_aligns_what_it_prints(command, tiny_run):
    """With other settings than the run's, of a line that is translated in parts."""
    decode = ("--beam-size", 4, "--length-penalty", 0, "--max-length-factor", 0.5)
    code, out, err = command(
        "translate", "--model", tiny_run, "--alignment", *decode, stdin=LONG.encode()
    )
    assert code == 0, err
    translation, _, source, target = out.decode().rstrip("\n").split("\t")
    assert "".join(source.split()).replace("▁", "") == LONG.replace(" ", "")
    assert spelt(target.split()) == translation
    assert translation != tfm.load(tiny_run).translate([LONG])[0]


def test_methods_are_read_as_they_are_written(untrained):
    arch = untrained(decoder_layers=3, heads=2).arch
    every = alignment.methods(arch)
    assert len(set(every)) == len(every)
    for method in every:
        assert alignment.method(str(method), arch) == method
    assert alignment.method("", arch) == alignment.Method(2)
    for wrong in ("4", "1.3", "0", "x", "1+", "all:"):
        with pytest.raises(ValueError, match="alignment by"):
            alignment.method(wrong, arch)


def test_a_shifted_method_reads_the_next_row_and_the_rest_are_aligned_by_column():
    weights_TS = np.array([[0.6, 0.3, 0.1], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    assert alignment.pairs(weights_TS) == ((0, 0), (0, 1))
    assert alignment.pairs(weights_TS, rest=0.25) == ((0, 0), (1, 0), (0, 1))
    assert alignment.pairs(weights_TS, rest=0.35) == ((0, 0), (0, 1))


def test_methods_against_the_weights_of_the_trace(untrained):
    model = untrained(decoder_layers=2)
    rows = batch([model.source.encode("abc de")], [model.target.encode("fed cab")], 1)
    run = activations(model.params, model.arch, rows, model.execution)
    weights_LNTS = np.asarray(run.cross.weights_BLNTS)[0]
    pair = (("abc de", "fed cab"),)
    by = [alignment.method(text, model.arch) for text in ("all", "1.2", "2+shift", "2")]
    found = alignment.align_by(model, [pair], by)
    mean = weights_LNTS.mean(axis=(0, 1))
    shifted = np.roll(weights_LNTS[1].mean(axis=0), -1, axis=0)
    for own, expected in zip(
        found, (mean, weights_LNTS[0, 1], shifted, weights_LNTS[1].mean(axis=0)), strict=True
    ):
        assert own[0].pairs == alignment.pairs(expected)


def test_pieces_become_words():
    class Pieces:
        def pieces(self, text):
            return {
                "我爱 Bob": ["▁我", "爱", "▁B", "ob"],
                "大声": ["▁", "大", "<0xE5>", "<0xA3>", "<0xB0>"],
            }[text]

    a = alignment.Alignment((), (), ((0, 1), (3, 4), (2, 1)))
    links = alignment.word_links(a, "我爱 Bob", "大声", (Pieces(), Pieces()))
    assert links == {(0, 0), (2, 1), (2, 0)}


def test_the_error_rate_of_all_methods_and_of_one(command, tiny_run, tmp_path):
    source = tiny.write(tmp_path / "s", ["ab cd", "fed"])
    target = tiny.write(tmp_path / "t", ["AB CD", "FED"])
    gold = tiny.write(tmp_path / "gold", ["0-0 1p1", "0-0"])
    options = ("--model", tiny_run, "--source", source, "--reference", target)
    code, out, err = command("evaluate", *options, "--alignment", gold)
    assert code == 0, err
    rows = out.decode().splitlines()
    rates = [float(row.split()[1]) for row in rows]
    assert rates == sorted(rates) and all(row.startswith("AER ") for row in rows)
    code, one, _ = command(
        "evaluate", *options, "--alignment", gold, "--alignment-by", rows[0].split()[-1]
    )
    assert one.decode().splitlines() == rows[:1]
    gold = tiny.write(tmp_path / "gold", ["0-0 1x1", "0-0"])
    code, _, err = command("evaluate", *options, "--alignment", gold)
    assert code == 1 and "gold line 1: '1x1' is no link" in err
