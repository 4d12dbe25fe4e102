"""Reports on single sentences, each made in a process of its own with a time limit.

The process is a child that is killed when its time is up or its client leaves, so that what
``tfm.inspect`` compiles never holds up the server. It computes on the CPU, since the device's
memory belongs to the server.
"""

import asyncio
import base64
import hashlib
import multiprocessing
import os
import re
import secrets
import time
from collections import OrderedDict
from multiprocessing.connection import Connection
from typing import Any

from starlette.responses import Response

from tfm.serve.models import Model
from tfm.serve.refusal import Refusal
from tfm.serve.responses import HEADERS

_KEPT = 8  # pages
_SECONDS_KEPT = 600
_POLL = 0.05

_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


class Reports:
    """Makes pages, one at a time, and keeps the newest for a while under unguessable names."""

    def __init__(self, seconds: float = 120.0) -> None:
        """Args: seconds: the most that one page may take."""
        self._seconds = seconds
        self._pages: OrderedDict[str, tuple[float, str]] = OrderedDict()
        self._busy = False

    async def make(self, model: Model, text: str, language: str) -> str:
        """The token of a page about the translation of ``text``.

        Raises:
          Refusal: another one is being made, it takes too long, or it cannot be made.
        """
        if model.folder is None:
            raise Refusal(501, "this model has no folder from which a report could be made")
        if self._busy:
            raise Refusal(503, "another report is being made", 10)
        self._busy = True
        try:
            page = await self._run(model.folder, model.options, text, language)
        finally:
            self._busy = False
        token = secrets.token_urlsafe(24)
        self._pages[token] = time.monotonic(), page
        while len(self._pages) > _KEPT:
            self._pages.popitem(last=False)
        return token

    def page(self, token: str) -> Response:
        """The page of a token, under a policy that allows its own script and style alone."""
        made, page = self._pages.get(token, (0.0, ""))
        if not page or time.monotonic() - made > _SECONDS_KEPT:
            self._pages.pop(token, None)
            raise Refusal(404, "no such report, or it is too old: make it again")
        headers = HEADERS | {"cache-control": "no-store", "content-security-policy": policy(page)}
        return Response(page, headers=headers, media_type="text/html")

    async def _run(self, folder: str, options: dict[str, Any], text: str, language: str) -> str:
        context = multiprocessing.get_context("spawn")
        mine, its = context.Pipe(duplex=False)
        process = context.Process(
            target=make_page, args=(its, folder, options, text, language), daemon=True
        )
        await asyncio.to_thread(process.start)
        its.close()
        end = time.monotonic() + self._seconds
        try:
            while not mine.poll():
                if time.monotonic() > end:
                    raise Refusal(503, f"report: not done after {self._seconds:g} seconds", 60)
                await asyncio.sleep(_POLL)
            done, content = await asyncio.to_thread(mine.recv)
        except EOFError:
            raise Refusal(500, "report: the process that makes it died") from None
        finally:
            process.kill()
            mine.close()
        if not done:
            raise Refusal(400, content)
        return content


def policy(page: str) -> str:
    """A content security policy for a page: its inline script by hash, its inline style."""
    hashes = []
    for script in _SCRIPT.findall(page):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        hashes.append(f"'sha256-{digest}'")
    return (
        f"default-src 'none'; script-src {' '.join(hashes) or chr(39) + 'none' + chr(39)}; "
        "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'; sandbox allow-scripts"
    )


def make_page(
    out: Connection, folder: str, options: dict[str, Any], text: str, language: Any
) -> None:
    """Sends (True, the page) or (False, why there is none); runs in a process of its own."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.nice(10)
    from tfm import inspect, translator

    try:
        trace = inspect.trace(translator.load(folder, **options), text)
        out.send((True, inspect.page(trace, language)))
    except ValueError as error:
        out.send((False, str(error)))
