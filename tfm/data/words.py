"""Text cut into words for word vectors: runs of letters, or the pieces of a tokenizer."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tfm.data import text
from tfm.data.tokenizer import Tokenizer

_WORD = re.compile(r"\w+(?:['’-]\w+)*")


def cut(line: str, tokenizer: Tokenizer | None) -> list[str]:
    """A line's pieces; without a tokenizer its words in lower case, punctuation left out.

    A word is a run of letters and digits, hyphens and apostrophes within it included. Chinese does
    not write spaces between words: cut it with a tokenizer, or segment it first.
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
