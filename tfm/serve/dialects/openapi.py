"""A description of the LibreTranslate and native routes as OpenAPI 3.1, from one table."""

from typing import Any

from starlette.responses import Response

import tfm
from tfm.serve.context import Context
from tfm.serve.responses import answer

_STRING = {"type": "string"}
_ONE_OR_MORE = {"oneOf": [_STRING, {"type": "array", "items": _STRING}]}
_COUNT = {"type": "integer", "minimum": 0}

# Path → (what it does, fields with schemas, those that are required).
_POSTS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "/translate": (
        "Translate texts.",
        {
            "q": _ONE_OR_MORE,
            "source": _STRING | {"description": "A language, or auto."},
            "target": _STRING,
            "format": _STRING | {"enum": ["text", "html"], "default": "text"},
            "alternatives": _COUNT,
            "api_key": _STRING,
        },
        ["q", "source", "target"],
    ),
    "/detect": ("Detect the language of a text.", {"q": _STRING, "api_key": _STRING}, ["q"]),
    "/v1/translate": (
        "Translate texts, with pieces, alignment and probabilities.",
        {
            "text": _STRING,
            "texts": {"type": "array", "items": _STRING},
            "source": _STRING | {"default": "auto"},
            "target": _STRING,
            "alternatives": _COUNT,
            "plain": {"type": "boolean", "default": False},
        },
        ["target"],
    ),
    "/v1/translate/stream": (
        "Translate a text as server-sent events, a sentence at a time.",
        {"text": _STRING, "source": _STRING, "target": _STRING},
        ["text", "target"],
    ),
    "/v1/inspect": (
        "Make a page that shows every step of a sentence's translation.",
        {
            "text": _STRING,
            "source": _STRING,
            "target": _STRING,
            "language": _STRING | {"enum": ["en", "zh"]},
        },
        ["text", "source", "target"],
    ),
}
_GETS = {
    "/languages": "Languages with their targets.",
    "/frontend/settings": "What a page needs to know.",
    "/v1/models": "Language pairs and limits.",
    "/health": "Whether the server works.",
    "/ready": "Whether it takes requests now.",
}
_REFUSALS = {
    "400": "A field is wrong, or a limit of the server is passed.",
    "403": "No valid API key.",
    "413": "Body, texts or characters are more than the server takes.",
    "429": "Too many requests; Retry-After says when to come back.",
    "503": "Busy, warming up or shutting down; Retry-After says when to come back.",
}


def document(context: Context) -> Response:
    """The description as JSON."""
    return answer(description())


def description() -> dict[str, Any]:
    """The description as a dict."""
    paths: dict[str, Any] = {}
    for path, (summary, fields, required) in _POSTS.items():
        schema = {"type": "object", "properties": fields, "required": required}
        content = {"application/json": {"schema": schema}}
        if path in ("/translate", "/detect"):
            content["application/x-www-form-urlencoded"] = {"schema": schema}
        responses = {"200": {"description": "The answer."}}
        responses |= {status: {"description": text} for status, text in _REFUSALS.items()}
        body = {"required": True, "content": content}
        paths[path] = {"post": {"summary": summary, "requestBody": body, "responses": responses}}
    for path, summary in _GETS.items():
        paths[path] = {
            "get": {"summary": summary, "responses": {"200": {"description": "The answer."}}}
        }
    info = {"title": "tfm", "version": tfm.__version__, "summary": "A translation service."}
    return {"openapi": "3.1.0", "info": info, "paths": paths}
