"""Splits a text that is too long for the model into parts that fit, between sentences if it can."""

import re
from collections.abc import Callable

_BOUNDARIES = (
    r"(?<=[。！？!?；;…])|(?<=[.])(?=\s)",  # sentences
    r"(?<=[，、,:：])",  # clauses
    r"(?<=\s)",  # words
)


def split(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Splits ``text`` into consecutive parts, each as long as fits; joined, they are the text.

    It splits after sentences where that is enough, else after clauses, else after words, else
    between characters.

    Args:
      fits: whether a part is short enough. A single character is taken to fit.
    """
    return [text] if fits(text) else _split(text, fits, _BOUNDARIES)


def _split(text: str, fits: Callable[[str], bool], boundaries: tuple[str, ...]) -> list[str]:
    pieces = re.split(boundaries[0], text) if boundaries else list(text)
    parts, current = [], ""
    for piece in pieces:
        if fits(current + piece):
            current += piece
            continue
        if current:
            parts.append(current)
            current = ""
        if fits(piece) or len(piece) <= 1:
            current = piece
        else:
            *complete, current = _split(piece, fits, boundaries[1:])
            parts += complete
    return [*parts, current] if current else parts
