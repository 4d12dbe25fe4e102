"""DeepL's API, version 2: https://developers.deepl.com."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tfm.data.languages import english_name
from tfm.serve import bodies
from tfm.serve.context import Context, get_with_key, post
from tfm.serve.dialects.formats import translate_format
from tfm.serve.refusal import Refusal
from tfm.serve.responses import answer
from tfm.serve.service import AUTO

# What changes a translation in ways that these models do not know; the other fields are hints.
_REFUSED = ("glossary_id", "glossary_ids", "style_id", "translation_memory_id")


def routes(context: Context) -> list[Route]:
    """``/v2/translate``, ``/v2/languages`` and ``/v2/usage``."""

    async def languages(request: Request) -> Response:
        context.access.check(request)
        return _languages(context, request.query_params.get("type", "source"))

    return [
        post(context, "/v2/translate", translate),
        Route("/v2/languages", languages, methods=["GET"]),
        get_with_key(context, "/v2/usage", lambda: answer({})),  # nothing is counted
    ]


async def translate(context: Context, given: dict[str, Any]) -> Response:
    """``text`` is a list; every translation says its source language."""
    for name in _REFUSED:
        if given.get(name):
            raise Refusal(400, f"{name}: this server has none")
    texts, _ = bodies.texts(given, "text")
    source = bodies.text(given, "source_lang", AUTO) or AUTO
    target = bodies.text(given, "target_lang")
    handling = bodies.text(given, "tag_handling", "text") or "text"
    if handling not in ("text", "html", "xml"):
        raise Refusal(400, f"tag_handling {handling[:20]!r}: must be html or xml")
    kind = "text" if handling == "text" else "html"
    found = await translate_format(context, texts, source, target, kind)
    language = (found.detected or source).upper()
    return answer(
        {
            "translations": [
                {
                    "detected_source_language": language,
                    "text": found,
                    "billed_characters": len(text),
                }
                for text, found in zip(texts, found.texts, strict=True)
            ]
        }
    )


def _languages(context: Context, kind: str) -> Response:
    models = context.service.models
    codes = models.sources()
    if kind == "target":
        codes = list(dict.fromkeys(t for _, t in models.pairs))
    return answer(
        [
            {"language": code.upper(), "name": english_name(code), "supports_formality": False}
            for code in codes
        ]
    )
