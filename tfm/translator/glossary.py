"""A glossary: terms that have to be translated in a certain way, in the lines that hold them.

A file of tab-separated columns, a term a line: the source term, its translation, and in further
columns other forms of it that are right too, such as a plural. A line with the source term alone,
or whose translation is the same, names what is not to be translated: it is copied exactly.

Where a term occurs:

- between word borders, of which Han and Kana letters have one on either side (see
  ``text_constraints``), so Chinese terms are found anywhere;
- of terms that overlap, the one that begins first, of these the longest;
- a term in lower case in any capitalisation, one with capitals as it is written.

A translation may stand in a line with a capital first letter. A term that occurs several times in
a line is asked for once.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike

from tfm import storage
from tfm.data import text
from tfm.data.tokenizer import normalise
from tfm.translator.text_constraints import TextConstraints, pattern


@dataclass(frozen=True)
class Glossary:
    """Terms with the forms of their translations; a function of the source text.

    Attributes:
      terms: source term → the forms of its translation; one that is the term itself alone is copied
        as it stands in the source.
    """

    terms: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        longest_first = sorted(self.terms, key=lambda term: (-len(term), term))
        found = [
            f"(?i:{pattern(term)})" if term == term.lower() else pattern(term)
            for term in longest_first
        ]
        any_term = re.compile("|".join(f"({x})" for x in found) or "(?!)")
        object.__setattr__(self, "_pattern", any_term)
        object.__setattr__(self, "_order", longest_first)

    def __call__(self, source: str) -> TextConstraints:
        """The constraints of one source text."""
        required: dict[tuple[str, ...], None] = {}  # a set in the order of the text
        for match in self._pattern.finditer(normalise(source)):  # type: ignore[attr-defined]
            term = self._order[match.lastindex - 1]  # type: ignore[attr-defined]
            forms = self.terms[term]
            required[(match.group(),) if forms == (term,) else _with_capitals(forms)] = None
        return TextConstraints(required=tuple(required))


def _with_capitals(forms: tuple[str, ...]) -> tuple[str, ...]:
    """The forms, and each with a capital first letter."""
    capital = (form[0].upper() + form[1:] for form in forms)
    return tuple(dict.fromkeys((*forms, *capital)))


def read(path: str | PathLike) -> Glossary:
    """Reads a glossary of UTF-8, plain or .gz.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an empty term, with the line.
    """
    terms: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(text.read(storage.path(path)), 1):
        if not line.strip():
            continue
        source, *forms = (normalise(column) for column in line.split("\t"))
        if not source or (forms and not forms[0]):
            raise ValueError(
                f"glossary {path}, line {number}: an empty term; write a term, a tab and its "
                "translation"
            )
        forms = [form for form in forms if form] or [source]
        terms[source] = tuple(dict.fromkeys((*terms.get(source, ()), *forms)))
    return Glossary(terms)
