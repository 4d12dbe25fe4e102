"""The API of this project, which the page and ``tfm.Client`` use."""

import json
import math
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tfm.data.languages import english_name
from tfm.serve import bodies
from tfm.serve.context import Context, get, post
from tfm.serve.refusal import Refusal
from tfm.serve.responses import HEADERS, answer
from tfm.serve.service import Result
from tfm.translator import Translation, split


def routes(context: Context) -> list[Route]:
    """All under ``/v1``."""

    async def report(request: Request) -> Response:
        return context.reports.page(request.path_params["token"])

    return [
        post(context, "/v1/translate", translate),
        post(context, "/v1/translate/stream", stream),
        get("/v1/models", models, context),
        post(context, "/v1/inspect", inspect),
        Route("/v1/reports/{token}", report, methods=["GET"]),
    ]


async def translate(context: Context, given: dict[str, Any]) -> Response:
    """Translations with their pieces, alignment and probabilities; ``plain`` leaves these out."""
    bodies.only(given, "text", "texts", "source", "target", "alternatives", "plain")
    if ("text" in given) == ("texts" in given):
        raise Refusal(400, "text: give text or texts, not both")
    texts, _ = bodies.texts(given, "text" if "text" in given else "texts")
    source, target = bodies.text(given, "source", "auto"), bodies.text(given, "target")
    plain = given.get("plain", False) is True
    wanted = bodies.count(given, "alternatives")
    found = await context.service.translate(texts, source, target, wanted, annotate=not plain)
    rows = [_row(result, plain) for result in found.results]
    return answer({"translations": rows, "detected": found.detected})


def _row(result: Result, plain: bool) -> dict[str, Any]:
    row = _hypothesis(result) | {"alternatives": [_hypothesis(t) for t in result.alternatives]}
    if not plain:
        alignment, probabilities = result.annotation
        row["pieces"] = {"source": alignment.source, "target": alignment.target}
        row["alignment"] = alignment.pairs
        row["confidence"] = [round(p, 4) for p in probabilities]
    return row


def _hypothesis(found: Result | Translation) -> dict[str, Any]:
    """JSON has no infinity: the log-probability of a translation that was not found is null."""
    numbers = {"log_prob": found.log_prob, "score": found.score}
    return {"text": found.text} | {k: x if x > -math.inf else None for k, x in numbers.items()}


async def stream(context: Context, given: dict[str, Any]) -> Response:
    """Server-sent events: ``sentence`` for each sentence, then ``done``; or ``error``."""
    bodies.only(given, "text", "source", "target")
    text = bodies.text(given, "text")
    source, target = bodies.text(given, "source", "auto"), bodies.text(given, "target")
    service = context.service
    lines = text.splitlines(keepends=True)
    sentences = [part for line in lines for part in split.sentences(line)]
    service.check(sentences)
    if source.lower() == "auto":
        found = await service.detect(text)
        known = service.models.sources(target)
        source = next((name for name, _ in found if name in known), source)
    service.models.route(source, target)  # refused before anything is sent

    async def events() -> AsyncIterator[str]:
        for i, sentence in enumerate(sentences):
            try:
                (result,) = (await service.translate([sentence], source, target)).results
            except Refusal as refusal:
                yield _event("error", {"error": refusal.message, "status": refusal.status})
                return
            yield _event("sentence", {"index": i, "source": sentence, "text": result.text})
        yield _event("done", {"sentences": len(sentences), "source": source})

    return StreamingResponse(
        events(), headers=HEADERS | {"cache-control": "no-store"}, media_type="text/event-stream"
    )


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


def models(context: Context) -> Response:
    """The pairs, names of languages, and limits."""
    served = context.service.models
    codes = dict.fromkeys(code for pair in served.pairs for code in pair)
    limits = context.limits
    return answer(
        {
            "pairs": [{"source": s, "target": t} for s, t in served.pairs],
            "languages": {code: english_name(code) for code in codes},
            "limits": {
                "texts": limits.texts,
                "characters": limits.characters,
                "alternatives": limits.alternatives,
            },
        }
    )


async def inspect(context: Context, given: dict[str, Any]) -> Response:
    """The address of a page that shows every step of one sentence's translation."""
    bodies.only(given, "text", "source", "target", "language")
    text = bodies.text(given, "text")
    source, target = bodies.text(given, "source"), bodies.text(given, "target")
    language = bodies.text(given, "language", "en")
    if language not in ("en", "zh"):
        raise Refusal(400, "language: must be en or zh")
    context.service.check([text])
    model = context.service.models.route(source, target)
    token = await context.reports.make(model, text, language)
    return answer({"report": f"v1/reports/{token}"})
