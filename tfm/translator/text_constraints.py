"""Constraints of translations as texts: what a translation must hold, must not, and begins with.

Texts become ids here, and translations are checked here: by text, whatever search says.

A word border is where no letter, digit or underscore of a script with spaces stands on one side;
Han and Kana letters have a border on both sides. So "cat" does not occur in "catalogue", but
occurs in "养cat吗", and "猫" in "小猫们".
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tfm.data.languages import HAN_AND_KANA
from tfm.data.tokenizer import UNK, Tokenizer, normalise
from tfm.decoding import Constraints

_LETTER = f"(?:(?![{HAN_AND_KANA}])\\w)"
_IS_LETTER = re.compile(_LETTER)
# What may stand before a word without a space; the first that SentencePiece keeps apart is used.
_BEFORE = "（，。“(\"'-/"


@dataclass(frozen=True)
class TextConstraints:
    """What one translation must hold, must not hold, and begins with.

    Attributes:
      required: phrases in any order, each as the tuple of its variants, of which one is enough.
      forbidden: phrases that must not occur. A word that begins like one is excluded with it.
      prefix: the beginning of the translation; see ``Decode.prefix_bias``.
    """

    required: tuple[tuple[str, ...], ...] = ()
    forbidden: tuple[str, ...] = ()
    prefix: str = ""

    def unmet(self, text: str) -> tuple[str, ...]:
        """The required phrases that a translation lacks and the forbidden ones that it has."""
        lacking = [
            variants[0] for variants in self.required if not any(holds(text, v) for v in variants)
        ]
        return (*lacking, *(phrase for phrase in self.forbidden if holds(text, phrase)))


ForText = Callable[[str], TextConstraints]
"""Constraints that follow from the source text, such as those of a glossary."""


def pattern(phrase: str) -> str:
    """A regular expression for a phrase between word borders."""
    before = f"(?<!{_LETTER})" if _IS_LETTER.match(phrase[0]) else ""
    after = f"(?!{_LETTER})" if _IS_LETTER.match(phrase[-1]) else ""
    return before + re.escape(phrase) + after


def holds(text: str, phrase: str) -> bool:
    """Whether a phrase occurs in a text between word borders."""
    phrase = normalise(phrase)
    return not phrase or re.search(pattern(phrase), text) is not None


def segmentations(tokenizer: Tokenizer, phrase: str) -> list[tuple[list[int], bool]]:
    """How a phrase is spelt in ids: as (ids, whether a word begins there without a space).

    SentencePiece marks a space before a word in the word's first piece. With it a phrase has the
    ids that it has alone; without it, after a quotation mark or between Chinese characters, those
    that it has after such a character. Segmentations that merge it with its neighbours, as of
    Chinese characters, are not among them: a search that needs the phrase takes it as it is alone.
    """
    phrase = normalise(phrase)
    if not phrase:
        return []
    letter, found = bool(_IS_LETTER.match(phrase[0])), []
    inner = _after_a_character(tokenizer, phrase)
    if inner is not None:
        found.append((inner, letter))
    if letter or inner is None:
        found.append((tokenizer.encode(phrase)[:-1], False))
    return [(ids, inside) for ids, inside in found if ids and UNK not in ids]


def _after_a_character(tokenizer: Tokenizer, phrase: str) -> list[int] | None:
    """The ids of a phrase that follows a character without a space."""
    for before in _BEFORE:
        ids = tokenizer.encode(before + phrase)[:-1]
        pieces = tokenizer.id_to_piece(ids)
        for n in range(1, len(pieces)):
            rest = "".join(pieces[n:])
            if rest.replace("\u2581", " ") == phrase:
                return ids[n:]
            if len(rest) < len(phrase):
                break
    return None


@dataclass(frozen=True)
class Encoded:
    """The constraints of one text in ids, padded to sizes that few texts differ in.

    Attributes:
      required: [P,A,L]; inside: [P,A]; forbidden: [X,L]; prefix: [T]. See ``Constraints``.
    """

    required: np.ndarray
    inside: np.ndarray
    forbidden: np.ndarray
    prefix: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """What texts that are searched together have in common."""
        return (*self.required.shape, *self.forbidden.shape, *self.prefix.shape)


def encode(constraints: TextConstraints, tokenizer: Tokenizer) -> Encoded:
    """Constraints in ids. A phrase with unknown pieces only is left out: ``unmet`` reports it."""
    phrases = [
        [spelt for variant in variants for spelt in segmentations(tokenizer, variant)]
        for variants in constraints.required
    ]
    phrases = [variants for variants in phrases if variants]
    shape = (
        _size(len(phrases), 2),
        _size(max(map(len, phrases), default=0), 4),
        _size(max((len(ids) for p in phrases for ids, _ in p), default=0), 4),
    )
    required, inside = np.zeros(shape, np.int32), np.zeros(shape[:2], bool)
    for p, variants in enumerate(phrases):
        for a, (ids, within) in enumerate(variants):
            required[p, a, : len(ids)] = ids
            inside[p, a] = within
    banned = [ids for text in constraints.forbidden for ids, _ in segmentations(tokenizer, text)]
    forbidden = np.zeros((_size(len(banned)), _size(max(map(len, banned), default=0), 4)), np.int32)
    for x, ids in enumerate(banned):
        forbidden[x, : len(ids)] = ids
    first = tokenizer.encode(constraints.prefix)[:-1] if constraints.prefix.strip() else []
    prefix = np.zeros(_size(len(first), 4), np.int32)
    prefix[: len(first)] = first
    return Encoded(required, inside, forbidden, prefix)


def _size(count: int, least: int = 1) -> int:
    """0, or the power of two from ``least`` on that ``count`` fits into: few compiled shapes."""
    return 0 if count == 0 else max(least, 1 << (count - 1).bit_length())


def stack(
    encoded: Sequence[Encoded], rows: int, borders: tuple[np.ndarray, np.ndarray]
) -> Constraints:
    """The arrays of a batch of ``rows`` texts, all of one ``shape``; rows beyond them have none.

    Args:
      borders: of ``word_borders``.
    """

    def stacked(name: str) -> np.ndarray | None:
        own = [getattr(one, name) for one in encoded]
        if own[0].size == 0:
            return None
        return np.stack([*own, *[np.zeros_like(own[0])] * (rows - len(own))])

    required = stacked("required")
    return Constraints(
        required, stacked("inside"), stacked("forbidden"), stacked("prefix"),
        *(borders if required is not None else (None, None)),
    )  # fmt: skip


def word_borders(tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Which pieces go on with a word and after which a word may go on: bool [V] each.

    Pieces of bytes count as neither: what they spell is not known from one of them.
    """
    pieces = tokenizer.vocabulary
    begin = [bool(_IS_LETTER.match(piece)) for piece in pieces]
    end = [bool(_IS_LETTER.match(piece[-1:])) for piece in pieces]
    return np.array(begin), np.array(end)
