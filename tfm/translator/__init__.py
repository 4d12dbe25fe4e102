"""A trained model at work: raw text in, translations or probabilities out."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "Ensemble": "ensemble", "Glossary": "glossary", "TextConstraints": "text_constraints",
    "Translation": "translation", "Translator": "translator", "load": "loading",
    "most_tokens": "programs", "search": "programs", "stream": "streaming",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports a name when first asked for (PEP 562): commands need the formats of files alone."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"tfm.translator.{_HOMES[name]}"), name)
