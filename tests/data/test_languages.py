"""Facts by language code, and that every spelling of a code leads to the same facts."""

import pytest

from tfm import config, evaluation
from tfm.data import corpus, languages
from tfm.data.languages import language

CHINESE = ["zh", "ZH", "zh-Hans", "zh_CN", "zh-hant-TW", "zh_CN.UTF-8", "cmn", "zho", "chi"]
CHINESE += ["zho_Hans", "zh-cmn-Hans", "cmn-Hans-CN"]
CANTONESE = ["yue", "YUE", "zh-yue", "zh_yue_HK", "yue-Hant", "yue_Hant"]


@pytest.mark.parametrize("code", CHINESE)
def test_spellings_of_chinese_are_one_language(code):
    assert languages.base(code) == "zh"
    assert language(code) == language("zh")


@pytest.mark.parametrize("code", CANTONESE)
def test_cantonese_is_a_language_of_its_own(code):
    assert languages.base(code) == "yue"
    assert language(code) == language("yue")


@pytest.mark.parametrize(
    ("code", "base"),
    [
        *(("en", "en"), ("en_US", "en"), ("eng_Latn", "en"), ("de-AT", "de"), ("PT_BR", "pt")),
        *(("ja_XX", "ja"), ("jpn_Jpan", "ja"), ("ko-KR", "ko"), ("kor", "ko"), ("tlh", "tlh")),
    ],
)
def test_region_and_script_are_dropped(code, base):
    assert languages.base(code) == base
    assert language(code).code == base


@pytest.mark.parametrize("code", [*CHINESE, *CANTONESE, "wuu", "lzh"])
def test_every_chinese_code_has_the_facts_of_chinese(code):
    found = language(code)
    assert (found.spaces, found.joiner, found.full_width) == (False, "", True)
    assert (found.coverage, found.bleu_tokenizer) == (0.9995, "zh")
    assert evaluation.bleu(["我 喝 茶"], ["我 喝 茶"], code).signature.count("|tok:zh|") == 1


def test_japanese_korean_and_others():
    japanese, korean, german = map(language, ("ja", "ko", "de"))
    assert (japanese.joiner, japanese.full_width, japanese.bleu_tokenizer) == ("", True, "char")
    assert (korean.joiner, korean.full_width, korean.bleu_tokenizer) == (" ", False, "char")
    assert (german.joiner, german.full_width, german.bleu_tokenizer) == (" ", False, "13a")
    assert [found.coverage for found in (japanese, korean, german)] == [0.9995, 0.9995, 1.0]


def test_a_shared_vocabulary_has_the_lowest_coverage_of_its_languages():
    assert languages.coverage("en+de") == 1.0
    assert languages.coverage("en+zh_CN") == languages.coverage("yue+en") == 0.9995


@pytest.mark.parametrize("code", ["zh-Hans", "zh_CN", "cmn"])
def test_the_phrasebook_knows_other_spellings_of_its_languages(code):
    want = corpus.open_corpus(("phrasebook:dev",), config.Data(source="zh", target="en"))
    assert corpus.open_corpus(("phrasebook:dev",), config.Data(source=code, target="en_US")) == want
    reversed_ = corpus.open_corpus(("phrasebook:dev",), config.Data(source="en", target=code))
    assert reversed_[5] == want[5][::-1]


def test_the_phrasebook_has_no_cantonese():
    with pytest.raises(ValueError, match="has zh and en, not yue and en"):
        corpus.open_corpus(("phrasebook:dev",), config.Data(source="yue", target="en"))
