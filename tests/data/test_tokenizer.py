"""Tokenizers: exact round trips, sampling from the stated distribution, clear errors."""

import pickle

import numpy as np
import pytest
import sentencepiece
from synthetic import chinese, english

from tfm import config
from tfm.data import tokenizer, vocabulary

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


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    texts = [e + " " + c for e, c in zip(english(300), chinese(300), strict=True)]
    return {
        kind: vocabulary.train(texts, config.Tokenizer(kind), "zh+en", 380, folder / kind)
        for kind in ("unigram", "bpe", "char", "word")
    }


def test_special_ids_and_size(models):
    model = models["unigram"]
    assert model.size == 380
    assert model.encode("")[-1] == tokenizer.EOS and len(model.encode("")) == 1
    assert not {tokenizer.PAD, tokenizer.UNK, tokenizer.BOS} & set(model.encode(ODD[1]))
    special = [tokenizer.PAD, tokenizer.UNK, tokenizer.BOS, tokenizer.EOS]
    assert model.id_to_piece(special) == ["<pad>", "<unk>", "<s>", "</s>"]


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char", "word"])
def test_any_text_survives_a_round_trip(models, kind):
    rng = np.random.default_rng(1)
    points = [p for p in [*range(0x3000), *range(0x1F000, 0x1FA00)] if not 0xD800 <= p < 0xE000]
    random = ["".join(map(chr, rng.choice(points, rng.integers(1, 30)))) for _ in range(200)]
    for text in [*ODD, *english(5, 2), *chinese(5, 2), *random]:
        assert models[kind].decode(models[kind].encode(text)) == tokenizer.normalise(text), text


def test_normalise_changes_only_white_space():
    assert tokenizer.normalise(" a\t b\u3000c\n") == "a b c"
    assert tokenizer.normalise("ＡＢＣ，。！？①") == "ＡＢＣ，。！？①"


def test_batch_equals_one_by_one(models):
    texts = [*ODD, *english(50, 3)]
    assert models["bpe"].encode_batch(texts) == [models["bpe"].encode(text) for text in texts]


def test_pieces_spell_the_text(models):
    text = "the cat sat."
    pieces = models["unigram"].pieces(text)
    assert "".join(pieces).replace("\u2581", " ").strip() == text
    assert pieces == models["unigram"].id_to_piece(models["unigram"].encode(text)[:-1])


def test_id_to_piece_and_the_vocabulary_agree(models):
    model = models["bpe"]
    assert model.vocabulary == model.id_to_piece(np.arange(model.size))
    assert len(set(model.vocabulary)) == model.size == 380


def test_decode_stops_at_eos_drops_special_and_stays_on_one_line(models):
    model = models["unigram"]
    ids = model.encode("the cat")
    padded = [tokenizer.BOS, *ids, *model.encode("never seen"), tokenizer.PAD]
    assert model.decode(np.array(padded)) == "the cat"
    newline = model.vocabulary.index("<0x0A>")
    assert model.decode([*ids[:-1], newline, *ids]) == "the cat the cat"


def test_without_byte_fallback_the_unknown_shows(tmp_path):
    spec = config.Tokenizer(byte_fallback=False)
    model = vocabulary.train(english(200), spec, "en", 40, tmp_path / "a.model")
    assert tokenizer.UNK in model.encode("the 猫 sat")
    assert model.decode(model.encode("the 猫 sat")).split() == ["the", "⁇", "sat"]


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_sampling_follows_the_stated_distribution(models, alpha):
    model, text, nbest = models["unigram"], "the cat sat near her house.", 6
    # The scores are SentencePiece's own, from its protobuf answer.
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.model())
    answer = processor.nbest_encode_as_proto(text, nbest_size=nbest).nbests
    choices = [tuple(piece.id for piece in each.pieces) for each in answer]
    weights = np.exp(alpha * np.array([each.score for each in answer]))
    rng = np.random.default_rng(0)
    draws = [tuple(model.sample(text, rng, nbest, alpha)[:-1]) for _ in range(3000)]
    shares = np.array([draws.count(choice) for choice in choices]) / len(draws)
    # Four standard errors of a share.
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=4 * 0.5 / np.sqrt(3000))
    assert set(draws) <= set(choices)


def test_sampling_uses_the_callers_generator_and_keeps_the_text(models):
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


def test_load_reads_what_model_returns(models, tmp_path):
    (tmp_path / "copy").write_bytes(models["unigram"].model())
    copy = tokenizer.load(tmp_path / "copy")
    assert copy.digest == models["unigram"].digest
    assert (copy.kind, copy.byte_fallback) == ("unigram", True)


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
