"""Answers: JSON, refusals, and the headers that all have."""

import json
from typing import Any

from starlette.responses import Response

from tfm.serve.refusal import Refusal

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
"""Of every answer."""

_NOTHING = "default-src 'none'; frame-ancestors 'none'"


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON that nobody keeps: it may hold a text."""
    body = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    kept = HEADERS | {"cache-control": "no-store", "content-security-policy": _NOTHING}
    media = "application/json"
    return Response(body, status, kept | (headers or {}), media)


def refused(refusal: Refusal, close: bool = False) -> Response:
    """Why there is no answer, as LibreTranslate's clients (error) and DeepL's (message) read it.

    Args:
      close: whether the connection cannot be used for another request.
    """
    headers = {}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    if close:
        headers["connection"] = "close"
    content = {"error": refusal.message, "message": refusal.message}
    return answer(content, refusal.status, headers)
