"""Text split into words, and the errors found before training."""

import gzip
import os

import pytest

from tfm.word2vec import words

CHINESE = ["发生这事是免不了的。", "你有100万美元的话，你会做什么？", "汤姆抱他儿子。"]
SEGMENTED = ["发生 这 事 是 免不了 的 。", "你 有 100 万 美元 的话 ， 你 会 做 什么 ？"]
JAPANESE = ["昨日は友だちと映画を見ました。", "コーヒーを飲みますか。"]
MIXED = [
    "The word 发生这事是免不了的 is a whole clause, which English text may quote now and then."
]


def write(path, lines):
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def test_a_word_is_a_run_of_letters_in_lower_case():
    line = "The well-known dog's bone – 3 of ‘them’!"
    assert words.split(line, None) == ["the", "well-known", "dog's", "bone", "3", "of", "them"]
    assert words.split(SEGMENTED[0], None) == ["发生", "这", "事", "是", "免不了", "的"]


@pytest.mark.parametrize("lines", [CHINESE, JAPANESE], ids=["zh", "ja"])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_text_without_spaces_is_not_split_at_spaces(tmp_path, name, lines):
    fine, path = write(tmp_path / "fine.txt", ["some words"]), write(tmp_path / name, lines)
    with pytest.raises(ValueError, match=r"a\.txt.* would be a word.*give a --tokenizer"):
        words.check([fine, path], by_words=True)
    words.check([fine, path], by_words=False)


@pytest.mark.parametrize(
    "lines", [SEGMENTED, MIXED, [], ["한국어는 띄어쓰기를 합니다"], ["a b"] * 5]
)
def test_text_with_spaces_is_accepted(tmp_path, lines):
    words.check([write(tmp_path / "a.txt", lines)], by_words=True)


def test_what_cannot_be_read_twice_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="not a file; text is read more than once"):
            words.check([path], by_words=True)
    with pytest.raises(FileNotFoundError, match="gone"):
        words.check([tmp_path / "gone"], by_words=True)
