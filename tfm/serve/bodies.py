"""Request bodies as checked dicts: JSON of bounded depth, or a form."""

import json
import re
import urllib.parse
from typing import Any

from starlette.requests import Request

from tfm.serve.refusal import Refusal

# Possessive and with an optional end, so that the time is linear whatever the body is.
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?+', re.DOTALL)
_OTHER = re.compile(rb"[^\[\]{}]+")
_FIELDS = 10_000  # of a form


async def fields(request: Request, depth: int) -> dict[str, Any]:
    """The fields of a body by name; a form's that occur more than once are lists.

    Args:
      depth: of arrays and objects, at most.

    Raises:
      Refusal: not JSON or a form, not UTF-8, or too deep.
    """
    body = await request.body()
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return _form(body)
    if kind not in ("application/json", "", "text/plain") and not kind.endswith("+json"):
        raise Refusal(415, "content-type: send application/json, or a form without files")
    return _object(body, depth)


def _form(body: bytes) -> dict[str, Any]:
    try:
        pairs = urllib.parse.parse_qsl(
            body.decode(), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS
        )
    except UnicodeDecodeError:
        raise Refusal(400, "body: a form that is not UTF-8") from None
    except ValueError:
        raise Refusal(413, f"body: a form of more than {_FIELDS:,} fields") from None
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            first = found[name] if isinstance(found[name], list) else [found[name]]
            found[name] = [*first, value]
        else:
            found[name] = value
    return found


def _object(body: bytes, depth: int) -> dict[str, Any]:
    # Before the parser, which recurses. Bytes in strings, and strings that never end, do not count.
    level = 0
    for run in _OTHER.sub(b"", _STRINGS.sub(b"", body)):
        level += 1 if run in b"[{" else -1
        if level > depth:
            raise Refusal(400, f"body: JSON deeper than the {depth} levels that this server takes")
    try:
        found = json.loads(body.decode(), parse_constant=_no_number)
    except UnicodeDecodeError:
        raise Refusal(400, "body: not UTF-8") from None
    except (ValueError, RecursionError):
        raise Refusal(400, "body: not JSON") from None
    if not isinstance(found, dict):
        raise Refusal(400, "body: must be a JSON object")
    return found


def _no_number(name: str) -> None:
    raise ValueError(name)


def text(given: dict[str, Any], name: str, default: str | None = None) -> str:
    """A field that is a string.

    Raises:
      Refusal: absent, without a default, or something else.
    """
    value = given.get(name, default)
    if not isinstance(value, str):
        raise Refusal(400, f"{name}: must be a string" if name in given else f"{name}: is missing")
    return value


def texts(given: dict[str, Any], name: str) -> tuple[list[str], bool]:
    """A field that is a string or a list of strings, as a list; and whether it was one.

    Raises:
      Refusal: absent, or something else.
    """
    value = given.get(name)
    if isinstance(value, str):
        return [value], False
    if isinstance(value, list) and all(isinstance(x, str) for x in value):
        return value, True
    wrong = "must be a string or a list of strings" if name in given else "is missing"
    raise Refusal(400, f"{name}: {wrong}")


def count(given: dict[str, Any], name: str, default: int = 0) -> int:
    """A field that is a whole number; a form's may be spelled in digits.

    Raises:
      Refusal: something else.
    """
    value = given.get(name, default)
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refusal(400, f"{name}: must be a whole number")
    return value


def only(given: dict[str, Any], *known: str) -> None:
    """Raises Refusal for a field that is not known; settings of search are fixed at the start."""
    for name in given:
        if name not in known:
            raise Refusal(400, f"unknown field {name[:40]!r}; known: {', '.join(known)}")
