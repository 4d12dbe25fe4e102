"""Vocabularies: reproducible training, errors that say what to change, reuse in a run."""

import pytest
from synthetic import chinese, english

from tfm import config
from tfm.data import vocabulary


def spec(**fields):
    return config.Tokenizer(**{"source_size": 320, "target_size": 290, **fields})


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_training_is_reproducible_and_silent(tmp_path, capfd, kind):
    digests = {
        vocabulary.train(english(200), spec(kind=kind), "en", 290, tmp_path / f"{i}").digest
        for i in range(4)
    }
    assert len(digests) == 1
    assert capfd.readouterr() == ("", "")


def test_size_errors_say_what_is_possible(tmp_path):
    path = tmp_path / "a.model"
    with pytest.raises(ValueError, match=r"for en: 50 sentences give at most (\d+) .* 9000") as e:
        vocabulary.train(english(50), spec(), "en", 9000, path)
    most = int(str(e.value).split("at most ")[1].split()[0])
    with pytest.raises(ValueError, match=r"need at least \d+ pieces .* but 100 were asked"):
        vocabulary.train(english(50), spec(), "en", 100, path)
    with pytest.raises(ValueError, match="0 sentences with text in them"):
        vocabulary.train(["", " \t"], spec(), "en", 300, path)
    assert list(tmp_path.iterdir()) == []  # Nothing half-written is left behind.
    assert vocabulary.train(english(50), spec(), "en", most, path).size == most


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char", "word"])
def test_sizes_that_hold_no_text(tmp_path, kind):
    def error(size, **fields):
        with pytest.raises(ValueError) as raised:
            vocabulary.train(english(50), spec(kind=kind, **fields), "en", size, tmp_path / "a")
        return str(raised.value)

    for size in (-5, 0, 3, *((4, 20, 259) if kind in ("char", "word") else ())):
        assert error(size) == (
            f"tokenizer.source_size {size}: must be 260 or more, for the 4 special pieces and the "
            "256 bytes of tokenizer.byte_fallback"
        )
    for size in (-5, 0, 3, *((4,) if kind in ("char", "word") else ())):
        assert error(size, byte_fallback=False) == (
            f"tokenizer.source_size {size}: must be 5 or more, for the 4 special pieces and text"
        )
    assert "must be less than 2147483648" in error(10**10)
    for coverage in (0.5, 1.5, float("nan")):
        assert error(300, coverage=coverage) == (
            f"tokenizer.coverage {coverage}: must be from 0.98 to 1, or 0 to choose it by language"
        )
    assert list(tmp_path.iterdir()) == []


def test_text_of_lines_that_are_all_too_long(tmp_path):
    with pytest.raises(ValueError, match=r"all 5 sentences are longer than the 4192 bytes"):
        vocabulary.train(["ab " * 3000] * 5, spec(), "en", 300, tmp_path / "a")


def test_the_side_with_the_error_is_named(tmp_path, pairs):
    with pytest.raises(ValueError, match=r"lower tokenizer\.target_size"):
        vocabulary.prepare(experiment(target_size=9000), pairs, tmp_path)
    with pytest.raises(ValueError, match=r"^tokenizer\.source_size 20: must be 260"):
        vocabulary.prepare(
            experiment(kind="char", source_size=20, joint=True), pairs, tmp_path / "joint"
        )


def test_char_stops_at_what_the_text_holds(tmp_path):
    model = vocabulary.train(english(50), spec(kind="char"), "en", 5000, tmp_path / "c")
    letters = set("".join(english(50)))
    # 4 special ids, 256 bytes, one piece a letter; the space is one of them.
    assert model.size == 4 + 256 + len(letters)


def test_coverage_follows_the_language(tmp_path):
    text = chinese(2000)
    text[7] = "龘" + text[7]  # One character in some 13,000: outside 99.95 %.
    made = {
        language: vocabulary.train(text, spec(), language, 330, tmp_path / language)
        for language in ("zh", "en", "zh-Hans", "en+zh", "yue")
    }
    covered = {language: "龘" in model.pieces("龘") for language, model in made.items()}
    assert covered == {"zh": False, "en": True, "zh-Hans": False, "en+zh": False, "yue": False}
    fixed = vocabulary.train(text, spec(coverage=1.0), "zh", 330, tmp_path / "fixed")
    assert "龘" in fixed.pieces("龘")


class Listed:
    """A corpus in memory that records which pairs are read."""

    fingerprint, dropped, first_dropped = "listed", {}, {}

    def __init__(self, pairs):
        self.pairs, self.asked = pairs, []

    def __len__(self):
        return len(self.pairs)

    def __getitems__(self, indices):
        self.asked += indices
        return [self.pairs[i] for i in indices]


@pytest.fixture
def pairs():
    return Listed(list(zip(chinese(400), english(400), strict=True)))


def experiment(**fields):
    return config.Config(tokenizer=spec(**fields))


def test_prepare_trains_once_then_loads(tmp_path, pairs):
    first = vocabulary.prepare(experiment(), pairs, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.model", "target.model"]
    assert (first[0].size, first[1].size) == (320, 290)
    pairs.asked.clear()
    again = vocabulary.prepare(experiment(), pairs, tmp_path)
    assert pairs.asked == []
    assert [t.digest for t in first] == [t.digest for t in again]


def test_prepare_joint_sees_both_languages(tmp_path, pairs):
    source, target = vocabulary.prepare(experiment(joint=True), pairs, tmp_path)
    assert source.digest == target.digest and source.size == 320
    assert [p.name for p in tmp_path.iterdir()] == ["joint.model"]
    for text in pairs.pairs[0]:
        assert not any(piece.startswith("<0x") for piece in source.pieces(text))


@pytest.mark.parametrize(
    "change", [{"source_size": 330}, {"kind": "bpe"}, {"byte_fallback": False}, {"joint": True}]
)
def test_prepare_refuses_another_vocabulary(tmp_path, pairs, change):
    vocabulary.prepare(experiment(), pairs, tmp_path)
    with pytest.raises(ValueError, match=r"source\.model: .*use another folder or the old setting"):
        vocabulary.prepare(experiment(**change), pairs, tmp_path)


def test_prepare_draws_evenly(tmp_path, pairs):
    vocabulary.prepare(experiment(sentences=100), pairs, tmp_path)
    source, target = pairs.asked[:100], pairs.asked[100:]
    assert source == target
    assert [index // 4 for index in source] == [*range(100)]  # One of every four.
    assert {index % 4 for index in source} == {0, 1, 2, 3}
