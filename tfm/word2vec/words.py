"""Text cut into words for word vectors: runs of letters, or the pieces of a tokenizer."""

import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tfm.data import text
from tfm.data.tokenizer import Tokenizer
from tfm.word2vec.tables import UNSPACED

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_RUN = re.compile(f"[{UNSPACED}]+")
_LOOKED_AT = 1000  # lines of a file
_LEAST = 0.2  # of a text's characters: with fewer Han and Kana letters it is in another script
_LONGEST = 3  # letters of a Han or Kana word, on average: segmented text has about 2, clauses 8


def check(paths: Iterable[Path], by_words: bool) -> None:
    """Looks at the first lines of files, before anything is made of them.

    Args:
      by_words: whether they are to be cut into words, not by a tokenizer.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a file is a pipe or a folder, which cannot be read twice; a line is not UTF-8; or
        text without spaces between its words is to be cut at spaces.
    """
    for path in paths:
        if path.exists() and not path.is_file():
            raise ValueError(f"{path}: not a file; text is read more than once, so put it into one")
        lines = list(itertools.islice(text.decode(text.lines(path), str(path)), _LOOKED_AT))
        if by_words and (clause := _unspaced("\n".join(lines))):
            raise ValueError(
                f"{path}: {clause!r} would be a word, for the text sets no spaces between words: "
                "give a --tokenizer (with --pieces one is trained), or segmented text"
            )


def _unspaced(sample: str) -> str:
    """The longest run of Han and Kana letters, if a text is written without spaces; else ""."""
    runs = _RUN.findall(sample)
    letters = sum(map(len, runs))
    few = letters < _LEAST * len(sample)
    return "" if few or letters <= _LONGEST * len(runs) else max(runs, key=len)


def cut(line: str, tokenizer: Tokenizer | None) -> list[str]:
    """A line's pieces; without a tokenizer its words in lower case, punctuation left out.

    A word is a run of letters and digits, hyphens and apostrophes within it included. Chinese does
    not write spaces between words: cut it with a tokenizer, or segment it first (see ``check``).
    """
    if tokenizer is not None:
        return tokenizer.pieces(line)
    return _WORD.findall(line.lower())


def sentences(paths: Iterable[Path], tokenizer: Tokenizer | None) -> Iterator[list[str]]:
    """Every line of the files as words; read afresh at each call, a line at a time.

    Raises:
      ValueError: a line is not UTF-8; the message names file and line.
    """
    for path in paths:
        for line in text.decode(text.lines(path), str(path)):
            yield cut(line, tokenizer)
