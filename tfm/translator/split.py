"""Cuts a text that is too long for the model into pieces that fit, at the best places there are."""

import re
from collections.abc import Callable

_BOUNDARIES = (
    r"(?<=[。！？!?；;…])|(?<=[.])(?=\s)",  # sentences
    r"(?<=[，、,:：])",  # clauses
    r"(?<=\s)",  # words
)


def cut(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Splits ``text`` into as few consecutive pieces as a greedy walk gives, each of which fits.

    Cuts fall after sentences where that is enough, else after clauses, else after words, else
    between characters. The pieces joined are the text.

    Args:
      fits: whether a piece is short enough. A single character is taken to fit.
    """
    return [text] if fits(text) else _cut(text, fits, _BOUNDARIES)


def _cut(text: str, fits: Callable[[str], bool], boundaries: tuple[str, ...]) -> list[str]:
    parts = re.split(boundaries[0], text) if boundaries else list(text)
    pieces, current = [], ""
    for part in parts:
        if fits(current + part):
            current += part
            continue
        if current:
            pieces.append(current)
            current = ""
        if fits(part) or len(part) <= 1:
            current = part
        else:
            *whole, current = _cut(part, fits, boundaries[1:])
            pieces += whole
    return [*pieces, current] if current else pieces
