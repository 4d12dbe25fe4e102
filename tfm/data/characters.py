"""Texts as arrays of code points: characters counted, compared and hashed without a loop."""

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from tfm.data import languages

_TABLE = 1 << 18  # Code points beyond have no letters but rare Chinese ones.
_LETTERS_MIN = 4  # Fewer letters have no script of their own: names, numbers, code.
_BAD = ("Cc", "Cn", "Co", "Cs", "So", "Sk")  # control, private, unassigned, pictures, modifiers
# UTF-8 read as Latin-1 or Windows-1252: "Ã©" for "é", "â€™" for an apostrophe.
_MISREAD = re.compile(r"[ÂÃ][\u0080-\u00bf]|â€.|[äåæçèé][\u0080-\u00bf]{2}")


class Texts:
    """Some texts, one after another in an array.

    Attributes:
      lengths: characters of each.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self.lengths = np.array(list(map(len, texts)), np.int64)
        # A character in front of each, since a sum over nothing is no 0.
        letters = "".join(["\0" + text for text in texts]).encode("utf-32-le", "replace")
        self._points = np.minimum(np.frombuffer(letters, np.uint32), _TABLE - 1)
        self._starts = np.concatenate([[0], np.cumsum(self.lengths + 1)[:-1]])

    def share(self, scripts: tuple[str, ...]) -> np.ndarray:
        """The share of letters in scripts; 1 if there are none, or hardly any letters.

        Args:
          scripts: by their names, as in ``languages``.
        """
        letters = self.letters()
        if not scripts:
            return np.ones(len(letters))
        inside = self._count(_in_scripts(scripts))
        return np.where(letters < _LETTERS_MIN, 1.0, inside / np.maximum(letters, 1))

    def letters(self) -> np.ndarray:
        """Letters of each text."""
        return self._count(_letters())

    def noise(self) -> np.ndarray:
        """The share of characters that no sentence is made of, and of misread letters."""
        bad = self._count(_noise())
        for i in np.flatnonzero(self._count(_misread())).tolist():
            rest = _MISREAD.sub("", self._texts[i])
            points = np.fromiter(map(ord, rest), np.int64, len(rest))
            bad[i] = _noise()[points].sum() + self.lengths[i] - len(rest)
        return bad / np.maximum(self.lengths, 1)

    def hashes(self) -> np.ndarray:
        """Equal for texts that differ in case, width, spaces and punctuation alone: uint64."""
        points, owners, places = self._folded
        terms = mix(mix(points.astype(np.uint64)) + places.astype(np.uint64))
        sums = np.zeros(len(self.lengths), np.uint64)
        np.add.at(sums, owners, terms)
        return mix(sums)

    def shingles(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of all sequences of ``size`` letters and digits, and the text that each is of."""
        points, owners, _ = self._folded
        count = max(len(points) - size + 1, 0)
        hashes = np.zeros(count, np.uint64)
        for i in range(size):
            hashes = mix(hashes ^ points[i : i + count].astype(np.uint64))
        whole = owners[:count] == owners[size - 1 :][:count]
        return hashes[whole], owners[:count][whole]

    @functools.cached_property
    def _folded(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Letters and digits without case and width, the text of each, and its place there."""
        folded = _fold()[self._points]
        owners = np.repeat(np.arange(len(self.lengths)), self.lengths + 1)
        kept = folded != 0
        points, owners = folded[kept], owners[kept]
        before = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(self.lengths)))])
        return points, owners, np.arange(len(points)) - before[owners]

    def _count(self, table: np.ndarray) -> np.ndarray:
        return np.add.reduceat(table[self._points], self._starts, dtype=np.int64)


def mix(x: np.ndarray) -> np.ndarray:
    """A hash of 64-bit numbers."""
    x = x * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return x ^ (x >> np.uint64(32))


def _table(chosen: Callable[[str], object]) -> np.ndarray:
    """The code points of which ``chosen`` is true; never U+0000."""
    table = np.fromiter((bool(chosen(chr(i))) for i in range(_TABLE)), bool, _TABLE)
    table[0] = False
    return table


@functools.cache
def _letters() -> np.ndarray:
    return _table(str.isalpha)


@functools.cache
def _in_scripts(scripts: tuple[str, ...]) -> np.ndarray:
    return _table(lambda ch: languages.in_scripts(ch, scripts)) & _letters()


@functools.cache
def _noise() -> np.ndarray:
    return _table(lambda ch: unicodedata.category(ch) in _BAD or ch == "\ufffd")


@functools.cache
def _misread() -> np.ndarray:
    return _table("ÂÃâäåæçèé".__contains__)


@functools.cache
def _fold() -> np.ndarray:
    """Each letter or digit without case and width; 0 for all else."""

    def fold(ch: str) -> int:
        plain = unicodedata.normalize("NFKC", ch).casefold()[:1]
        return ord(plain) if plain.isalnum() else 0

    return np.fromiter(map(fold, map(chr, range(_TABLE))), np.uint32, _TABLE)
