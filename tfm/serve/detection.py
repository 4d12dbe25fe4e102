"""Which of the models' languages a text is written in: by its script."""

import itertools
from collections import Counter
from collections.abc import Sequence

from tfm.data.languages import in_scripts, language

_READ = 500  # letters; more change nothing
_LEVEL = 0.1  # languages whose shares of letters differ by less are told apart by the models


def shares(text: str, languages: Sequence[str]) -> dict[str, float]:
    """What share of a text's letters each language writes; 0 for all of a text without letters.

    A language whose scripts are not known is taken to be written in Latin letters.
    """
    letters = (character for character in text[: 4 * _READ] if character.isalpha())
    found = Counter(itertools.islice(letters, _READ))
    total = found.total() or 1

    def share(name: str) -> float:
        own = language(name).scripts or ("Latin",)
        return sum(n for letter, n in found.items() if in_scripts(letter, own)) / total

    return {name: share(name) for name in languages}


def likeliest(text: str, languages: Sequence[str]) -> tuple[list[str], dict[str, float]]:
    """The languages that the script does not tell apart, in the given order; and all shares."""
    found = shares(text, languages)
    best = max(found.values())
    return [name for name in languages if found[name] >= best - _LEVEL], found
