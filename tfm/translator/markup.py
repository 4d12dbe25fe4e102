"""Tags and placeholders inside a sentence: taken out, and put back where alignment says.

``<b>``, ``</b>``, ``{0}``, ``{name}``, ``%s``, ``%(name)d`` and ``&nbsp;`` are markup. The model
sees the text without them. In the translation each stands beside the piece that is aligned to the
text that it stood beside; none is lost, none comes twice.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tfm.translator.translation import Translation

if TYPE_CHECKING:
    from tfm.translator.translator import Translator

Align = Callable[[Sequence[Sequence[tuple[str, str]]]], Sequence[Any]]

_MARKUP = re.compile(
    r"</?[A-Za-z][^<>]{0,500}>|\{\w{0,40}\}|%(?:\(\w{1,40}\))?[-+0#]?\d{0,3}(?:\.\d{1,3})?[sdifgxr]\b"
    r"|&\w{1,20};"
)


class Marked(NamedTuple):
    """A sentence without its markup.

    Attributes:
      text: the sentence; white space around it is gone.
      marks: (place in ``text``, markup), in order.
    """

    text: str
    marks: tuple[tuple[int, str], ...]


def take_out(text: str) -> Marked:
    """Takes the markup out of a sentence; of two spaces left beside each other one stays."""
    plain, marks, end = "", [], 0
    for match in _MARKUP.finditer(text):
        plain += text[end : match.start()]
        marks.append((len(plain), match[0]))
        end = match.end()
    plain += text[end:]
    # Places move with the white space that goes.
    kept, moved = "", [0] * (len(plain) + 1)
    for i, letter in enumerate(plain):
        moved[i] = len(kept)
        if not letter.isspace():
            kept += letter
        elif kept and not kept.endswith(" "):
            kept += " "
    moved[len(plain)] = len(kept)
    stripped = kept.rstrip()
    return Marked(stripped, tuple((min(moved[i], len(stripped)), mark) for i, mark in marks))


def put_back(
    marked: Marked,
    translation: str,
    source_ends: Sequence[int],
    target_ends: Sequence[int],
    pairs: Sequence[tuple[int, int]],
) -> str:
    """The translation with the markup of its source.

    An opening tag or a placeholder goes before the first piece aligned to what follows it, a
    closing tag behind the last piece aligned to what its element holds.

    Args:
      source_ends, target_ends: where each piece ends in ``marked.text`` and in the translation.
      pairs: (source piece, target piece).
    """
    source_starts = [0, *source_ends[:-1]]

    def aligned(first: int, last: int) -> list[int]:
        """Target pieces of the source text between two places."""
        spans = enumerate(zip(source_starts, source_ends, strict=False))
        inside = {i for i, (a, b) in spans if a < last and b > first}
        return sorted(t for s, t in pairs if s in inside)

    def before(place: int) -> int:
        found = aligned(place, place + 1) or aligned(place, len(marked.text))
        if place >= len(marked.text) or not found:
            return len(translation) if place else 0
        start = target_ends[found[0] - 1] if found[0] else 0
        return start + len(translation[start:]) - len(translation[start:].lstrip())

    placed: list[tuple[int, int, str]] = []
    opened: list[tuple[int, int]] = []  # places in the source and in the translation
    for number, (place, mark) in enumerate(marked.marks):
        if mark.startswith("</") and opened:
            first, least = opened.pop()
            found = aligned(first, place) if place > first else []
            where = max(least, target_ends[found[-1]]) if found else least
        else:
            where = before(place)
            if re.match("<[A-Za-z]", mark) and not mark.endswith("/>"):
                opened.append((place, where))
        placed.append((where, number, mark))
    result, done = [], 0
    for where, _, mark in sorted(placed):
        result += [translation[done:where], mark]
        done = where
    return "".join([*result, translation[done:]])


def piece_ends(pieces: Sequence[str], text: str) -> list[int]:
    """Where each piece of a text ends; white space belongs to the piece behind it."""
    ends, end = [], 0
    for piece in pieces:
        is_byte = len(piece) == 6 and piece.startswith("<0x")
        letters = len(piece.replace("\u2581", ""))
        if is_byte:  # of a letter's bytes the first counts
            letters = int(piece[3:5], 16) & 0xC0 != 0x80
        for _ in range(letters):
            while end < len(text) and text[end].isspace():
                end += 1
            end = min(end + 1, len(text))
        ends.append(end)
    return ends


def n_best(
    translator: "Translator", align: Align, texts: Sequence[str], n: int, **decode: Any
) -> list[list[Translation]]:
    """As ``Translator.n_best``, of texts with markup, which stays in place.

    Args:
      align: the alignments (source pieces, target pieces, pairs) of ``Translation.parts``.
    """
    marked = [take_out(text) for text in texts]
    found = translator.n_best([m.text for m in marked], n, **decode)
    flat = [(m, t) for m, own in zip(marked, found, strict=True) for t in own if m.marks]
    aligned = align([t.parts for _, t in flat])
    texts_of = {}
    for (m, t), (source, target, pairs) in zip(flat, aligned, strict=True):
        ends = piece_ends(source, m.text), piece_ends(target, t.text)
        texts_of[id(t)] = put_back(m, t.text, *ends, pairs)
    return [
        [dataclasses.replace(t, text=texts_of.get(id(t), t.text)) for t in own] for own in found
    ]
