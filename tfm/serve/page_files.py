"""The page: files of the package, read once, served with ETags under a strict policy."""

import hashlib
import importlib.resources
from collections.abc import Iterator
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tfm.serve.responses import HEADERS

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "woff2": "font/woff2",
}


def routes(folder: Traversable | None = None) -> list[Route]:
    """A route for each file; ``/`` is index.html.

    Args:
      folder: of the files; the package's own by default.
    """
    root = importlib.resources.files("tfm.serve") / "page" if folder is None else folder
    return [_route(path, content) for path, content in _files(root, "/")]


def _files(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    if not folder.is_dir():
        return
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        elif entry.name.rpartition(".")[2] in _TYPES:
            yield prefix + entry.name, entry.read_bytes()


def _route(path: str, content: bytes) -> Route:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    # A browser asks each time whether its copy is the newest, and is answered in a few bytes.
    headers = HEADERS | {
        "etag": tag,
        "cache-control": "no-cache",
        "content-security-policy": POLICY,
    }
    kind = _TYPES[path.rpartition(".")[2]]

    async def endpoint(request: Request) -> Response:
        known = request.headers.get("if-none-match", "")
        if tag in (one.strip().removeprefix("W/") for one in known.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=kind)

    return Route("/" if path == "/index.html" else path, endpoint, methods=["GET"])
