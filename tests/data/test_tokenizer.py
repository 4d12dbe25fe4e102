"""Subwords: exact round trips, honest sampling, clear errors."""

import pickle

import numpy as np
import pytest

from tfm import config
from tfm.data import tokenizer

WORDS = "the cat sat on a mat while seven small dogs ran under old green trees near her house"
CHARS = "我你他们在家看书喝茶去学校明天下雨了不想吃饭这是什么朋友"
ODD = [
    "你好，世界！（测试）「引号」；１２３ＡＢＣ",
    "emoji 😀👩‍👩‍👧‍👦 and 𠮷野家 and ﷽",
    "tabs\tand\u3000wide  spaces \u00a0 end ",
    "<s> </s> <unk> <pad> <0x41> ⁇",
    "control \x00 \x07 \x7f \u200b \ufeff \u2028 line",
    "\u2581literal mark",
    "e\u0301 is not é, ﬁ is not fi",
    "",
    "   \t ",
]


def english(count, seed=0):
    rng = np.random.default_rng(seed)
    words = WORDS.split()
    return [" ".join(rng.choice(words, rng.integers(3, 9))) + "." for _ in range(count)]


def chinese(count, seed=0):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(CHARS), rng.integers(3, 9))) + "。" for _ in range(count)]


def settings(**kwargs):
    return config.Tokenizer(**{"source_size": 320, "target_size": 290, **kwargs})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    texts = [e + " " + c for e, c in zip(english(300), chinese(300), strict=True)]
    return {
        kind: tokenizer.train(texts, settings(kind=kind), "zh+en", 380, folder / f"{kind}.model")
        for kind in ("unigram", "bpe", "char", "word")
    }


def test_special_ids_and_size(models):
    model = models["unigram"]
    assert model.size == 380
    assert model.encode("")[-1] == tokenizer.EOS and len(model.encode("")) == 1
    assert not {tokenizer.PAD, tokenizer.UNK, tokenizer.BOS} & set(model.encode(ODD[1]))
    assert model.processor.id_to_piece(tokenizer.PAD) == "<pad>"


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char", "word"])
def test_any_text_comes_back(models, kind):
    rng = np.random.default_rng(1)
    points = [p for p in [*range(0x3000), *range(0x1F000, 0x1FA00)] if not 0xD800 <= p < 0xE000]
    random = ["".join(map(chr, rng.choice(points, rng.integers(1, 30)))) for _ in range(200)]
    for text in [*ODD, *english(5, 2), *chinese(5, 2), *random]:
        assert models[kind].decode(models[kind].encode(text)) == tokenizer.normalise(text), text


def test_normalise_touches_only_white_space():
    assert tokenizer.normalise(" a\t b\u3000c\n") == "a b c"
    assert tokenizer.normalise("ＡＢＣ，。！？①") == "ＡＢＣ，。！？①"


def test_batch_equals_one_by_one(models):
    texts = [*ODD, *english(50, 3)]
    assert models["bpe"].encode_batch(texts) == [models["bpe"].encode(text) for text in texts]


def test_pieces_spell_the_text(models):
    text = "the cat sat."
    pieces = models["unigram"].pieces(text)
    assert "".join(pieces).replace("\u2581", " ").strip() == text
    assert len(pieces) == len(models["unigram"].encode(text)) - 1


def test_decode_stops_at_eos_drops_special_and_stays_on_one_line(models):
    model = models["unigram"]
    ids = model.encode("the cat")
    padded = [tokenizer.BOS, *ids, *model.encode("never seen"), tokenizer.PAD]
    assert model.decode(np.array(padded)) == "the cat"
    newline = model.processor.piece_to_id("<0x0A>")
    assert model.decode([*ids[:-1], newline, *ids]) == "the cat the cat"


def test_without_byte_fallback_the_unknown_shows(tmp_path):
    model = tokenizer.train(
        english(200), settings(byte_fallback=False), "en", 40, tmp_path / "a.model"
    )
    assert tokenizer.UNK in model.encode("the 猫 sat")
    assert model.decode(model.encode("the 猫 sat")).split() == ["the", "⁇", "sat"]


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_training_is_reproducible_and_silent(tmp_path, capfd, kind):
    digests = {
        tokenizer.train(english(200), settings(kind=kind), "en", 290, tmp_path / f"{i}").digest
        for i in range(4)
    }
    assert len(digests) == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_sampling_follows_the_stated_distribution(models, alpha):
    model, text, nbest = models["unigram"], "the cat sat near her house.", 6
    # Scores as SentencePiece itself states them, in its protobuf answer.
    answer = model.processor.nbest_encode_as_proto(text, nbest_size=nbest).nbests
    choices = [tuple(piece.id for piece in each.pieces) for each in answer]
    weights = np.exp(alpha * np.array([each.score for each in answer]))
    rng = np.random.default_rng(0)
    draws = [tuple(model.sample(text, rng, nbest, alpha)[:-1]) for _ in range(3000)]
    shares = np.array([draws.count(choice) for choice in choices]) / len(draws)
    # Four standard errors of a share.
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=4 * 0.5 / np.sqrt(3000))
    assert set(draws) <= set(choices)


def test_sampling_is_the_callers_draw_and_keeps_the_text(models):
    model, text = models["unigram"], "seven small dogs ran under old green trees 😀"

    def draws(seed):
        rng = np.random.default_rng(seed)
        return [model.sample(text, rng, 16, 0.1) for _ in range(20)]

    assert draws(0) == draws(0) != draws(1)
    assert len(set(map(tuple, draws(0)))) > 1
    assert {model.decode(ids) for ids in draws(0)} == {text}
    assert model.sample("", np.random.default_rng(0), 8, 0.1) == [tokenizer.EOS]


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
def test_sampling_needs_unigram(models, kind):
    with pytest.raises(ValueError, match=f"needs kind unigram, not {kind}"):
        models[kind].sample("the cat", np.random.default_rng(0), 4, 0.1)


def test_size_errors_say_what_is_possible(tmp_path):
    path = tmp_path / "a.model"
    with pytest.raises(ValueError, match=r"for en: 50 sentences give at most (\d+) .* 9000") as e:
        tokenizer.train(english(50), settings(), "en", 9000, path)
    most = int(str(e.value).split("at most ")[1].split()[0])
    with pytest.raises(ValueError, match=r"need at least \d+ pieces .* but 100 were asked"):
        tokenizer.train(english(50), settings(), "en", 100, path)
    with pytest.raises(ValueError, match="0 sentences with text in them"):
        tokenizer.train(["", " \t"], settings(), "en", 300, path)
    assert list(tmp_path.iterdir()) == []  # Nothing half-written is left behind.
    assert tokenizer.train(english(50), settings(), "en", most, path).size == most


def test_char_stops_at_what_the_text_holds(tmp_path):
    model = tokenizer.train(english(50), settings(kind="char"), "en", 5000, tmp_path / "c")
    letters = set("".join(english(50)))
    # 4 special ids, 256 bytes, one piece a letter; the space is one of them.
    assert model.size == 4 + 256 + len(letters)


def test_coverage_follows_the_language(tmp_path):
    text = chinese(2000)
    text[7] = "龘" + text[7]  # One character in some 13,000: outside 99.95 %.
    made = {
        language: tokenizer.train(text, settings(), language, 330, tmp_path / language)
        for language in ("zh", "en", "zh-Hans", "en+zh")
    }
    covered = {language: "龘" in model.pieces("龘") for language, model in made.items()}
    assert covered == {"zh": False, "en": True, "zh-Hans": False, "en+zh": False}
    fixed = tokenizer.train(text, settings(coverage=1.0), "zh", 330, tmp_path / "fixed")
    assert "龘" in fixed.pieces("龘")


def test_load_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x\.model: no such file"):
        tokenizer.load(tmp_path / "x.model")
    (tmp_path / "x.model").write_text("not a model")
    with pytest.raises(ValueError, match=r"x\.model: not a SentencePiece model"):
        tokenizer.load(tmp_path / "x.model")


def test_pickle(models):
    copy = pickle.loads(pickle.dumps(models["unigram"]))
    assert copy.encode("the cat 😀") == models["unigram"].encode("the cat 😀")
    assert copy.digest == models["unigram"].digest


class Listed:
    """A corpus in memory that notes what is asked of it."""

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


def experiment(**kwargs):
    return config.Config(tokenizer=settings(**kwargs))


def test_prepare_trains_once_then_loads(tmp_path, pairs):
    first = tokenizer.prepare(experiment(), pairs, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source.model", "target.model"]
    assert (first[0].size, first[1].size) == (320, 290)
    pairs.asked.clear()
    again = tokenizer.prepare(experiment(), pairs, tmp_path)
    assert pairs.asked == []
    assert [t.digest for t in first] == [t.digest for t in again]


def test_prepare_joint_sees_both_languages(tmp_path, pairs):
    source, target = tokenizer.prepare(experiment(joint=True), pairs, tmp_path)
    assert source.digest == target.digest and source.size == 320
    assert [p.name for p in tmp_path.iterdir()] == ["joint.model"]
    for text in pairs.pairs[0]:
        assert not any(piece.startswith("<0x") for piece in source.pieces(text))


@pytest.mark.parametrize(
    "change", [{"source_size": 330}, {"kind": "bpe"}, {"byte_fallback": False}, {"joint": True}]
)
def test_prepare_refuses_another_vocabulary(tmp_path, pairs, change):
    tokenizer.prepare(experiment(), pairs, tmp_path)
    with pytest.raises(ValueError, match=r"source\.model: .*use another folder or the old setting"):
        tokenizer.prepare(experiment(**change), pairs, tmp_path)


def test_prepare_draws_evenly(tmp_path, pairs):
    tokenizer.prepare(experiment(sentences=100), pairs, tmp_path)
    source, target = pairs.asked[:100], pairs.asked[100:]
    assert source == target
    assert [index // 4 for index in source] == [*range(100)]  # One of every four.
    assert {index % 4 for index in source} == {0, 1, 2, 3}
