"""The built-in Chinese-English phrasebook: a bilingual grammar, its lexicon and its numerals."""

from tfm.data.phrasebook.grammar import pair, size

__all__ = ["pair", "size"]
