"""What browser plugins send to a server of one's own: Immersive Translate and KISS Translator."""

from typing import Any

from starlette.responses import Response
from starlette.routing import Route

from tfm.serve import bodies
from tfm.serve.context import Context, post
from tfm.serve.dialects.formats import translate_format
from tfm.serve.responses import answer


def routes(context: Context) -> list[Route]:
    """``/immersive`` and ``/kiss``: the address to enter in the plugin."""
    return [post(context, "/immersive", immersive), post(context, "/kiss", kiss)]


async def immersive(context: Context, given: dict[str, Any]) -> Response:
    """``text_list`` in, ``translations`` out; tags in the texts are the plugin's placeholders."""
    texts, _ = bodies.texts(given, "text_list")
    source, target = bodies.text(given, "source_lang", "auto"), bodies.text(given, "target_lang")
    found = await translate_format(context, texts, source, target, _kind(texts))
    language = found.detected or source
    return answer(
        {"translations": [{"detected_source_lang": language, "text": t} for t in found.texts]}
    )


async def kiss(context: Context, given: dict[str, Any]) -> Response:
    """``text`` or ``texts`` in; one answer or ``translations`` out, each with its language."""
    texts, many = bodies.texts(given, "texts" if "texts" in given else "text")
    source, target = bodies.text(given, "from", "auto"), bodies.text(given, "to")
    found = await translate_format(context, texts, source, target, _kind(texts))
    language = found.detected or source
    rows = [{"text": text, "src": language} for text in found.texts]
    return answer({"translations": rows} if many else rows[0])


def _kind(texts: list[str]) -> str:
    """HTML if there is a tag in it: these plugins send tags for what they will put back."""
    return "html" if any("<" in text and ">" in text for text in texts) else "text"
