"""LibreTranslate's API: https://docs.libretranslate.com."""

from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from tfm.data.languages import english_name
from tfm.serve import bodies
from tfm.serve.context import Context, get, post
from tfm.serve.dialects import openapi
from tfm.serve.dialects.formats import translate_format
from tfm.serve.refusal import Refusal
from tfm.serve.responses import answer
from tfm.serve.service import AUTO


def routes(context: Context) -> list[Route]:
    """``/translate``, ``/detect``, ``/languages``, ``/frontend/settings`` and ``/spec``."""
    return [
        post(context, "/translate", translate),
        post(context, "/detect", detect),
        get("/languages", languages, context),
        get("/frontend/settings", settings, context),
        get("/spec", openapi.document, context),
    ]


async def translate(context: Context, given: dict[str, Any]) -> Response:
    """``q`` is a string or a list, as is ``translatedText``."""
    texts, is_list = bodies.texts(given, "q")
    kind = bodies.text(given, "format", "text")
    if kind not in ("text", "html"):
        raise Refusal(400, f"format {kind[:20]!r}: must be text or html")
    wanted = bodies.count(given, "alternatives")
    source, target = bodies.text(given, "source"), bodies.text(given, "target")
    found = await translate_format(context, texts, source, target, kind, wanted)
    one = lambda column: list(column) if is_list else column[0]  # noqa: E731
    content: dict[str, Any] = {"translatedText": one(found.texts)}
    if wanted:
        content["alternatives"] = one(found.alternatives)
    if source.lower() == AUTO:
        seen = {"confidence": round(100 * found.confidence), "language": found.detected}
        content["detectedLanguage"] = [seen] * len(texts) if is_list else seen
    return answer(content)


async def detect(context: Context, given: dict[str, Any]) -> Response:
    """All languages of the models by how likely ``q`` is written in them."""
    found = await context.service.detect(bodies.text(given, "q"))
    return answer([{"confidence": round(100 * c), "language": name} for name, c in found])


def languages(context: Context) -> Response:
    """Each source language with its targets."""
    models = context.service.models
    return answer(
        [
            {"code": code, "name": english_name(code), "targets": models.targets(code)}
            for code in models.sources()
        ]
    )


def settings(context: Context) -> Response:
    """What a page may need to know."""
    limits, models = context.service.limits, context.service.models
    source, target = models.pairs[0]
    code = lambda name: {"code": name, "name": english_name(name)}  # noqa: E731
    return answer(
        {
            "apiKeys": bool(context.access.needs_key),
            "charLimit": limits.characters,
            "batchLimit": limits.texts,
            "frontendTimeout": 500,
            "keyRequired": bool(context.access.needs_key),
            "language": {"source": code(source), "target": code(target)},
            "suggestions": False,
            "filesTranslation": False,
            "supportedFilesFormat": [],
        }
    )
