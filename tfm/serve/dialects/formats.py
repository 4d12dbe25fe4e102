"""Texts and HTML through one call of the service."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from tfm.serve import markup
from tfm.serve.context import Context
from tfm.serve.refusal import Refusal


class Translated(NamedTuple):
    """Translations in the order of their sources.

    Attributes:
      alternatives: of each; of HTML none.
      detected, confidence: the source language if it was asked for.
    """

    texts: list[str]
    alternatives: list[list[str]]
    detected: str | None
    confidence: float


async def translate_format(
    context: Context,
    texts: Sequence[str],
    source: str,
    target: str,
    kind: str = "text",
    alternatives: int = 0,
) -> Translated:
    """Translates texts, or with ``kind`` "html" the text in HTML, whose tags stay."""
    service = context.service
    if kind == "text":
        answer = await service.translate(texts, source, target, alternatives)
        found = [result.text for result in answer.results]
        others = [[a.text for a in result.alternatives] for result in answer.results]
        return Translated(found, others, answer.detected, answer.confidence)
    service.check(texts, alternatives)  # before the work of taking them apart
    try:
        fragments = await asyncio.to_thread(lambda: [markup.take_apart(text) for text in texts])
    except ValueError as error:
        raise Refusal(400, str(error)) from None
    inside = [text for fragment in fragments for text in fragment.texts]
    answer = await service.translate(inside, source, target)
    results = iter(answer.results)
    filled = [fragment.fill([next(results).text for _ in fragment.texts]) for fragment in fragments]
    return Translated(filled, [[] for _ in texts], answer.detected, answer.confidence)
