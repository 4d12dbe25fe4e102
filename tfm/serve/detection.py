"""Which of the models' languages a text is written in: by its script."""

import unicodedata
from collections import Counter
from collections.abc import Sequence

from tfm.data.languages import base

# Scripts by the first words of the names that Unicode gives to their letters. A language that is
# not listed is written in Latin letters.
_SCRIPTS = {
    "CJK": ("zh", "yue", "wuu", "gan", "lzh", "ja"),
    "HIRAGANA": ("ja",),
    "KATAKANA": ("ja",),
    "HANGUL": ("ko",),
    "CYRILLIC": ("ru", "uk", "bg", "sr", "mk", "be", "kk", "ky", "mn", "tg"),
    "GREEK": ("el",),
    "ARABIC": ("ar", "fa", "ur", "ps", "ug"),
    "HEBREW": ("he", "yi"),
    "THAI": ("th",),
    "DEVANAGARI": ("hi", "mr", "ne", "sa"),
    "BENGALI": ("bn", "as"),
    "TAMIL": ("ta",),
    "GEORGIAN": ("ka",),
    "ARMENIAN": ("hy",),
    "KHMER": ("km",),
    "LAO": ("lo",),
    "MYANMAR": ("my",),
    "TIBETAN": ("bo",),
    "ETHIOPIC": ("am", "ti"),
}
_OTHER_THAN_LATIN = {language for languages in _SCRIPTS.values() for language in languages}
_READ = 500  # letters; more change nothing
_LEVEL = 0.1  # languages whose shares of letters differ by less are told apart by the models


def scripts(text: str) -> Counter[str]:
    """How many of the first letters of a text belong to each script."""
    letters = (character for character in text[: 4 * _READ] if character.isalpha())
    names = (unicodedata.name(letter, "").split() for _, letter in zip(range(_READ), letters))  # noqa: B905
    return Counter(name[0] if name[0] in _SCRIPTS else "LATIN" for name in names if name)


def shares(text: str, languages: Sequence[str]) -> dict[str, float]:
    """What share of a text's letters each language writes; 0 for all of a text without letters."""
    found = scripts(text)
    total = sum(found.values()) or 1

    def share(language: str) -> float:
        code = base(language)
        own = [name for name in found if code in _SCRIPTS.get(name, ())]
        own += ["LATIN"] if code not in _OTHER_THAN_LATIN else []
        return sum(found[name] for name in own) / total

    return {language: share(language) for language in languages}


def likeliest(text: str, languages: Sequence[str]) -> tuple[list[str], dict[str, float]]:
    """The languages that the script does not tell apart, in the given order; and all shares."""
    found = shares(text, languages)
    best = max(found.values())
    return [name for name in languages if found[name] >= best - _LEVEL], found
