"""Text split into words, for word vectors: runs of letters, or the pieces of a tokenizer."""

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tfm.data import text
from tfm.data.languages import HAN_AND_KANA
from tfm.data.tokenizer import Tokenizer

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_RUN = re.compile(f"[{HAN_AND_KANA}]+")
_SAMPLE_LINES = 1000  # Lines of a file that ``check`` reads.
_MIN_SHARE = 0.2  # Of Han and Kana letters in a text; with fewer it is in another script.
_MAX_MEAN_LENGTH = 3  # Letters of a Han or Kana word: segmented text has about 2, clauses 8.


def check(paths: Iterable[Path], by_words: bool) -> None:
    """Reads the first lines of files to find errors early.

    Args:
      by_words: whether the text will be split at spaces and punctuation, not by a tokenizer.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file is a pipe or a folder, which cannot be read twice; a line is not UTF-8; or
        text written without spaces between words would be split at spaces.
    """
    for path in paths:
        if path.exists() and not path.is_file():
            raise ValueError(f"{path}: not a file; text is read more than once, so put it into one")
        sample = "\n".join(itertools.islice(text.read(path), _SAMPLE_LINES))
        if by_words and (clause := _longest_unspaced(sample)):
            raise ValueError(
                f"{path}: {clause!r} would be a word, because the text has no spaces between "
                "words: give a --tokenizer (--pieces trains one), or segmented text"
            )


def _longest_unspaced(sample: str) -> str:
    """Returns the longest run of Han and Kana letters if the text has no spaces, else ""."""
    runs = _RUN.findall(sample)
    letters = sum(map(len, runs))
    few = letters < _MIN_SHARE * len(sample)
    return "" if few or letters <= _MAX_MEAN_LENGTH * len(runs) else max(runs, key=len)


def split(line: str, tokenizer: Tokenizer | None) -> list[str]:
    """Splits a line into pieces or, without a tokenizer, into words in lower case.

    A word is a run of letters and digits, including hyphens and apostrophes inside it; punctuation
    is left out. Chinese has no spaces between words: give a tokenizer, or segment the text first
    (see ``check``).
    """
    if tokenizer is not None:
        return tokenizer.pieces(line)
    return _WORD.findall(line.lower())


def sentences(paths: Iterable[Path], tokenizer: Tokenizer | None) -> Iterator[list[str]]:
    """Yields every line of the files as words.

    Raises:
      ValueError: a line is not UTF-8; the message names file and line.
    """
    for path in paths:
        for line in text.read(path):
            yield split(line, tokenizer)
