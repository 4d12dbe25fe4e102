import re

import pytest
import tiny

from tfm.training import data_report, setup

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """(report, experiment) of a corpus with known faults."""
    folder = tmp_path_factory.mktemp("check")
    good = tiny.sentences(300, seed=1, words=(3, 3), letters=(2, 4))
    assert len(set(good)) == 300
    pairs = [(s, s.upper()) for s in good]
    pairs += pairs[:5]  # twice
    pairs += [(good[i], f"{good[i].upper()} A") for i in (7, 8)]  # a source with another target
    pairs += [("aa bb", good[9].upper())]  # a target with another source
    pairs += [("same", "same")]
    pairs += [("bad cafe bad cafe", "D"), ("d", "BAD CAFE BAD CAFE")]  # mismatched lengths
    pairs += [("ab " * 30, "AB " * 30)]  # too long
    pairs += [("", "A"), ("b", " ")]  # nothing to translate
    sides = zip(*pairs, strict=True)
    files = [tiny.write(folder / name, side) for name, side in zip("st", sides, strict=True)]
    dev = [good[0], good[1], "gg hh"]
    experiment = tiny.config(folder)
    experiment = tiny.change(
        experiment,
        data={
            "train": tuple(files),
            "dev": (tiny.write(folder / "ds", dev), tiny.write(folder / "dt", map(str.upper, dev))),
        },
    )
    return data_report.report(experiment, None), experiment


def numbers(line):
    return [int(n.replace(",", "")) for n in re.findall(r"\b\d[\d,]*\b", line)]


def line(text, start):
    """The first line that starts so: the training set's where the dev set has one too."""
    return next(x for x in text.splitlines() if x.strip().startswith(start))


def test_dropped_pairs_are_counted_by_reason(report):
    text = line(report[0], "train:")
    assert "314 pairs: 311 kept, 2 empty (first: line 313), 1 too long (over 32/32 tokens)" in text


def test_duplicates_are_counted_by_kind(report):
    text = line(report[0], "duplicates:")
    assert text.strip() == (
        "duplicates: 5 pairs occur earlier; 2 sources occur earlier with another target, "
        "1 targets with another source; 1 pairs have equal sides"
    )


def test_mismatched_lengths_are_counted(report):
    text = line(report[0], "mismatched lengths")
    assert numbers(text)[-1] == 2


def test_dev_sources_that_occur_in_the_training_set(report):
    assert numbers(line(report[0], "sources that also occur in train"))[-1] == 2


def test_lengths_and_pieces_a_word(report):
    text = line(report[0], "source tokens")
    median, ninety, upto, *_ = numbers(text)
    assert ninety == 90 and 10 <= median <= upto <= 16
    # Characters as pieces: three letters a word on average, and one mark for the space.
    assert 3.5 < float(re.search(r"([\d.]+) pieces a word", text)[1]) < 4.5


def test_density_of_batches_and_memory_are_reported(report):
    text = line(report[0], "batches:")
    rows, source, target = numbers(text)[:3]
    assert (rows, source, target) == (8, 32, 32)
    assert float(re.search(r"([\d.]+)% \(target\)", text)[1]) > 80
    memory = line(report[0], "memory on one")
    state, temporary, together = map(int, re.findall(r"([\d,]+) MiB", memory))
    assert abs(state + temporary - together) <= 1
    assert 0 <= state <= 1 <= temporary < 100  # some 20,000 parameters, three times


def test_report_uses_the_tokenizers_of_a_run_and_writes_nothing(report, tmp_path, monkeypatch):
    experiment = report[1]
    setup.open_data(experiment, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(data_report, "_memory", lambda _: [])
    assert line(data_report.report(experiment, tmp_path), "train:") == line(report[0], "train:")
    assert sorted(tmp_path.rglob("*")) == before
