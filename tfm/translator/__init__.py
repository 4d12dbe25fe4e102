"""A trained model at work: raw text in, translations or probabilities out."""

from tfm.translator.model import Translation, Translator, load
from tfm.translator.search import most_tokens, search

__all__ = ["Translation", "Translator", "load", "most_tokens", "search"]
