"""Which words of a pair of the phrasebook translate each other, known from its frame.

The two templates of a frame have the same slots. What fills a slot in Chinese is translated by what
fills it in English: a sure link if one of them is a single word, and a possible one if both are
phrases. The words of the frame itself, auxiliary verbs and punctuation are possible links of each
other. An English auxiliary is moreover a possible link of the verbs, since these may hold the 在,
了 or 过 that it translates. Words are those of ``languages.words``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from tfm.data import languages
from tfm.data.phrasebook import grammar
from tfm.data.phrasebook.lexicon import Word

_AUXILIARIES = ("be", "have", "do", "was", "are")
_OBJECTS = ("that", "this", "these", "those", "one", "other", "m", "noun", "plural")

Links = frozenset[tuple[int, int]]


class Gold(NamedTuple):
    """The alignment of a pair: (Chinese word, English word), both counted from 0.

    Attributes:
      sure: links that must be found.
      possible: links that may be found, the sure ones among them.
    """

    sure: Links
    possible: Links

    def __str__(self) -> str:
        """In the Pharaoh format: ``0-0`` for a sure link, ``1p2`` for a possible one."""
        return " ".join(
            f"{s}{'-' if (s, t) in self.sure else 'p'}{t}" for s, t in sorted(self.possible)
        )


class _Piece(NamedTuple):
    """A part of a sentence, and what it renders.

    Attributes:
      slot: "" for words of the frame.
      is_object: whether it is the object of the slot's verb, or a noun.
      helps: of an auxiliary, the slot of its subject.
    """

    text: str
    slot: str
    is_object: bool = False
    helps: str = ""


def alignment(split: str, index: int) -> Gold:
    """The alignment of one pair of a split; arguments and errors as of ``pair``."""
    frame, fillers = grammar.draw(split, index)
    first, second = grammar.templates()[frame.number]
    words = [table[k] for table, k in zip(frame.tables, fillers, strict=True)]
    zh = render(first.split()[1], frame.slots, words, grammar.zh_part)
    en = render(second.strip(), frame.slots, words, grammar.en_part)
    sides = [_words(pieces) for pieces in (zh, en)]
    sure, possible = set(), set()
    for i, source in enumerate(zh):
        for j, target in enumerate(en):
            if not _linked(source, target, zh, en):
                continue
            block = {(s, t) for s in sides[0].get(i, ()) for t in sides[1].get(j, ())}
            possible |= block
            if (
                source.slot
                and source.slot == target.slot
                and 1 in (len(sides[0].get(i, ())), len(sides[1].get(j, ())))
            ):
                sure |= block
    return Gold(frozenset(sure), frozenset(possible))


def _linked(source: _Piece, target: _Piece, zh: list[_Piece], en: list[_Piece]) -> bool:
    """Whether two parts translate each other.

    A slot may hold a verb and its object; where both sides write them apart, each has its own.
    """
    if source.slot != target.slot:
        return bool(target.helps) and not source.is_object and source.slot != target.helps
    roles = [{p.is_object for p in side if p.slot == source.slot} for side in (zh, en)]
    return source.is_object == target.is_object or len(roles[0]) < 2 or len(roles[1]) < 2


def render(
    template: str, slots: tuple[str, ...], words: list[Word], part: Callable
) -> list[_Piece]:
    """The parts of a sentence, in order: of a template, the words that fill its slots.

    Args:
      part: ``grammar.zh_part`` or ``en_part``.
    """
    found, end = [], 0
    for match in grammar.PLACEHOLDER.finditer(template):
        found.append(_Piece(template[end : match.start()], ""))
        found += _filled(match, part(match, slots)(words), words, slots, part is grammar.zh_part)
        end = match.end()
    return [*found, _Piece(template[end:], "")]


def _filled(
    match: Any, text: str, words: list[Word], slots: tuple[str, ...], chinese: bool
) -> list[_Piece]:
    """What a placeholder became: one part, or of a number with its noun two."""
    name, kind, form = match.groups()
    if kind == "*":
        number = words[slots.index(name)]
        head = number.zh["of"] if chinese else text.split(" ")[0]
        if not chinese and text.startswith(number.en[""]):
            head = number.en[""]
        noun = form if form in slots else ""
        return [_Piece(head, name), _Piece(text[len(head) :], noun, True)]
    literal = name not in slots or form in _AUXILIARIES
    helps = name if name in slots and form in _AUXILIARIES else ""
    return [_Piece(text, "" if literal else name, form in _OBJECTS, helps)]


def _words(pieces: list[_Piece]) -> dict[int, list[int]]:
    """Which words of the sentence stand in each part; one on a border belongs to the first."""
    spans = languages.words("".join(piece.text for piece in pieces))
    found: dict[int, list[int]] = {}
    start = 0
    for i, piece in enumerate(pieces):
        end = start + len(piece.text)
        found[i] = [k for k, (a, b) in enumerate(spans) if a < end and b > start]
        start = end
    return found
