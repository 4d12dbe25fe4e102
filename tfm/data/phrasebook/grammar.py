"""A bilingual grammar that generates the Chinese–English sentence pairs of the phrasebook.

A frame is a Chinese and an English template with the same slots (see ``frames``). A slot is filled
with a word of the table of its name in ``lexicon.TABLES``. The Chinese sentence determines the
English one: tense, number and gender are always visible in the Chinese. No two pairs have the same
Chinese or the same English side.

The template language:
  ``{goods}``        the default form of the word
  ``{goods.this}``   another form: 这本书 / *this book*
  ``{few*goods}``    a number of it: 三本书 / *three books*
  ``{act@who}``      English present tense, the verb agreeing with the person: *he reads*
A name without a table is an English word and is inflected likewise: ``{few*year}``, ``{like@who}``.

Access is random: ``pair(split, index)`` depends on its arguments alone. Dev and test hold out
combinations of words. In each frame the words of the two largest slots, the frame's *key*, have
numbers i and k in their tables. Of (7i + 3k + frame number) mod 20, one residue goes to dev, one to
test and the others to train. So train combines a word, in any frame, with nine tenths of its
partners, and dev and test with the others. The few frames with a single slot have k = 0; there, a
held-out word does not occur in the frame in train, only in other frames.
"""

import functools
import itertools
import math
import re
from bisect import bisect
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tfm.data.phrasebook.frames import FRAMES
from tfm.data.phrasebook.lexicon import NUMERALS, TABLES, Table, Word, conjugate, plural

SPLITS = ("train", "dev", "test")
_SIZES = {"train": 200_000, "dev": 1_000, "test": 2_000}
_MODULUS = 20
_RESIDUES = {"train": range(2, _MODULUS), "dev": range(1), "test": range(1, 2)}

Fillers = tuple[int, ...]
Part = str | Callable[[list[Word]], str]  # Literal text, or a function of the words in the slots.


class Frame(NamedTuple):
    """A sentence pattern: its two compiled templates, and the tables of its slots.

    Attributes:
      name: a unique name.
      number: index in the list of frames.
      slots: table names, the largest table first; the first two (or the only one) are the key.
      tables: the table of each slot.
      zh, en: parts of the compiled templates.
    """

    name: str
    number: int
    slots: tuple[str, ...]
    tables: tuple[Table, ...]
    zh: tuple[Part, ...]
    en: tuple[Part, ...]

    def render(self, fillers: Fillers) -> tuple[str, str]:
        """Returns the (Chinese, English) pair for these fillers, a table index for each slot."""
        words = [table[k] for table, k in zip(self.tables, fillers, strict=True)]
        zh = "".join([part if isinstance(part, str) else part(words) for part in self.zh])
        en = "".join([part if isinstance(part, str) else part(words) for part in self.en])
        return zh, en[0].upper() + en[1:]


PLACEHOLDER = re.compile(r"\{([a-z_]+)(?:([.*@])([a-z_]+))?\}")


def zh_part(placeholder: re.Match, slots: tuple[str, ...]) -> Part:
    """What renders a placeholder of a Chinese template."""
    name, kind, form = placeholder.groups()
    i = slots.index(name)
    if kind == "*":
        j = slots.index(form)
        return lambda words: words[i].zh["of"] + words[j].zh["m"] + words[j].zh["noun"]
    form = form or ""
    return lambda words: words[i].zh[form]


def en_part(placeholder: re.Match, slots: tuple[str, ...]) -> Part:
    """What renders a placeholder of an English template."""
    name, kind, form = placeholder.groups()
    if kind == "@":
        j = slots.index(form)
        if name not in slots:
            literal = conjugate(name)
            return lambda words: literal[words[j].en["agree"]]
        i = slots.index(name)
        return lambda words: words[i].en[words[j].en["agree"]]
    i = slots.index(name)
    if kind == "*":
        if form not in slots:
            return lambda words: _count(words[i].en, {"one": f"one {form}", "plural": plural(form)})
        j = slots.index(form)
        return lambda words: _count(words[i].en, words[j].en)
    form = form or ""
    return lambda words: words[i].en[form]


def _count(number: dict[str, str], noun: dict[str, str]) -> str:
    return noun["one"] if number[""] == "one" else f"{number['']} {noun['plural']}"


def _compile(template: str, slots: tuple[str, ...], part: Callable) -> tuple[Part, ...]:
    parts, end = [], 0
    for placeholder in PLACEHOLDER.finditer(template):
        parts += [template[end : placeholder.start()], part(placeholder, slots)]
        end = placeholder.end()
    return tuple(p for p in (*parts, template[end:]) if p != "")


def _frame(number: int, first: str, second: str) -> Frame:
    """Compiles the two lines of a frame; its slots are sorted by the size of their tables."""
    name, zh = first.split()
    names = dict.fromkeys(
        n for placeholder in PLACEHOLDER.finditer(zh) for n in placeholder.groups() if n in TABLES
    )
    slots = tuple(sorted(names, key=lambda n: -len(TABLES[n])))
    tables = tuple(TABLES[n] for n in slots)
    en = _compile(second.strip(), slots, en_part)
    return Frame(name, number, slots, tables, _compile(zh, slots, zh_part), en)


@functools.cache
def compiled() -> tuple[Frame, ...]:
    """All frames, by their numbers."""
    return tuple(_frame(number, *pair) for number, pair in enumerate(templates()))


def templates() -> list[tuple[str, str]]:
    """The two lines of every frame: name and Chinese, and English."""
    lines = [line for line in FRAMES.strip().splitlines() if not line.startswith("#")]
    return list(zip(lines[::2], lines[1::2], strict=True))


def frames() -> tuple[str, ...]:
    """Returns the names of the sentence frames."""
    return tuple(frame.name for frame in compiled())


def count() -> int:
    """Returns a lower bound on the number of distinct pairs; a numeral slot counts as one choice.

    Different fillers of a frame, and different frames, give different sentences; tests check it.
    """
    return sum(
        math.prod(len(TABLES[slot]) for slot in frame.slots if slot not in NUMERALS)
        for frame in compiled()
    )


def _key_sizes(frame: Frame) -> tuple[int, int]:
    first, *second = (len(table) for table in frame.tables[:2])
    return first, second[0] if second else 1


@functools.cache
def _keys(number: int, split: str) -> np.ndarray:
    """Returns a frame's keys in a split, int32: i * (size of the second slot) + k."""
    first, second = _key_sizes(compiled()[number])
    residues = (7 * np.arange(first)[:, None] + 3 * np.arange(second) + number) % _MODULUS
    return np.flatnonzero(np.isin(residues, list(_RESIDUES[split]))).astype(np.int32)


def _capacity(frame: Frame, split: str) -> int:
    """Returns the number of distinct pairs of a frame in a split."""
    return len(_keys(frame.number, split)) * math.prod(len(table) for table in frame.tables[2:])


@functools.cache
def _ends(split: str) -> tuple[int, ...]:
    """Returns the end of each frame's range of the split.

    All frames get the same number of pairs, as far as their capacity allows.
    """
    capacity = {frame.number: _capacity(frame, split) for frame in compiled()}
    shares, remaining = {}, _SIZES[split]
    for done, number in enumerate(sorted(capacity, key=capacity.__getitem__)):
        shares[number] = min(capacity[number], remaining // (len(capacity) - done))
        remaining -= shares[number]
    return tuple(itertools.accumulate(shares[number] for number in range(len(shares))))


def _permute(i: int, n: int, seed: int) -> int:
    """Maps i by a fixed permutation of range(n): rounds of invertible mixing of enough bits.

    A value of n or more is mixed again until it is below n (cycle walking; Black and Rogaway
    2002), which keeps the map one-to-one.
    """
    bits = max(n - 1, 1).bit_length()
    mask, shift = (1 << bits) - 1, (bits + 1) // 2
    while True:
        for _ in range(3):
            i = (i * 0x9E3779B97F4A7C15 + seed) & mask
            i ^= i >> shift
        if i < n:
            return i


def size(split: str) -> int:
    """Returns the number of pairs of a split; all are distinct.

    Raises:
      ValueError: no such split.
    """
    if split not in _SIZES:
        raise ValueError(f"phrasebook has no split {split!r}; its splits are {', '.join(SPLITS)}")
    return _SIZES[split]


def draw(split: str, index: int) -> tuple[Frame, Fillers]:
    """Returns the frame and the fillers of one pair of a split.

    Raises:
      ValueError: no such split.
      IndexError: the index is not in 0 .. size(split) - 1.
    """
    if not 0 <= index < size(split):
        raise IndexError(f"phrasebook {split}: index {index} is not in 0..{size(split) - 1}")
    ends = _ends(split)
    position = _permute(index, _SIZES[split], 1)
    number = bisect(ends, position)
    frame = compiled()[number]
    rank = position - (ends[number - 1] if number else 0)
    code = _permute(rank, _capacity(frame, split), 2 * number + 3)
    rest = []
    for table in frame.tables[2:]:
        code, filler = divmod(code, len(table))
        rest.append(filler)
    key = divmod(int(_keys(number, split)[code]), _key_sizes(frame)[1])
    return frame, (*key, *rest)[: len(frame.slots)]


def pair(split: str, index: int) -> tuple[str, str]:
    """Returns one (Chinese, English) pair of a split.

    Raises:
      ValueError: no such split.
      IndexError: the index is not in 0 .. size(split) - 1.
    """
    frame, fillers = draw(split, index)
    return frame.render(fillers)
