"""A trained model at work: raw text in, translations or probabilities out."""

from tfm.translator.loading import load
from tfm.translator.programs import most_tokens, search
from tfm.translator.translator import Translation, Translator

__all__ = ["Translation", "Translator", "load", "most_tokens", "search"]
