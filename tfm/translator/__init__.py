"""A trained model at work: raw text in, translations or probabilities out."""

from tfm.translator.ensemble import Ensemble
from tfm.translator.glossary import Glossary
from tfm.translator.loading import load
from tfm.translator.programs import most_tokens, search
from tfm.translator.streaming import stream
from tfm.translator.text_constraints import TextConstraints
from tfm.translator.translation import Translation
from tfm.translator.translator import Translator

__all__ = [
    "Ensemble", "Glossary", "TextConstraints", "Translation", "Translator", "load", "most_tokens",
    "search", "stream",
]  # fmt: skip
