"""What stands between the network and the routes: bounded bodies, patience, and departed clients.

uvicorn limits the size of headers and closes idle connections between requests. It does not limit
how long headers or bodies take, nor bodies' size, nor how long an answer may stay unread; and it
leaves it to the application to notice that a client has gone. ``Guard`` and ``Protocol`` do.
"""

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tfm.serve.metrics import Metrics
from tfm.serve.refusal import Refusal
from tfm.serve.responses import refused
from tfm.serve.settings import Limits


class Guard:
    """An ASGI wrapper that reads the whole body first, and cancels what nobody waits for.

    The body is never larger in memory than ``body_bytes``. Of a longer one the rest is read and
    thrown away, so that the client sees the refusal instead of a broken connection; after
    ``body_seconds`` the connection is closed in any case.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                body = await self._body(scope, receive)
        except TimeoutError:
            refusal = Refusal(408, f"body: not here after {self.limits.body_seconds:g} seconds")
            return await refused(refusal, close=True)(scope, receive, send)
        except Refusal as refusal:
            return await refused(refusal, close=True)(scope, receive, send)
        if body is None:
            return self.metrics.abandoned()
        await self._run(scope, body, receive, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None if the client left."""
        limit = self.limits.body_bytes
        too_long = Refusal(413, f"body: more than the {limit:,} bytes that this server takes")
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        announced = int(length) if length.isdigit() else 0
        if announced > limit and headers.get(b"expect", b"").lower() == b"100-continue":
            raise too_long
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunk = message.get("body", b"")
            size += len(chunk)
            if max(size, announced) <= limit:
                chunks.append(chunk)
            else:
                chunks.clear()
            if not message.get("more_body", False):
                if size > limit:
                    raise too_long
                return b"".join(chunks)

    async def _run(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Runs the application until it is done or the client has gone."""
        given = False

        async def replay() -> Message:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.Event().wait()  # ``gone`` listens
            raise AssertionError

        async def gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        work = asyncio.ensure_future(self.app(scope, replay, send))
        listener = asyncio.ensure_future(gone())
        try:
            await asyncio.wait({work, listener}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.metrics.abandoned()
                work.cancel()
            await asyncio.wait({work})
        finally:
            listener.cancel()
            work.cancel()
        if not work.cancelled():
            work.result()


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1 with limits on waiting headers, unread answers and open connections.

    ``limits`` is set in a subclass that ``protocol`` makes.
    """

    limits: Limits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """uvicorn's arguments."""
        super().__init__(*args, **kwargs)
        # Its access log has addresses and whole paths; it is on wherever the root logs.
        self.access_log = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connects."""
        super().connection_made(transport)
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        if len(self.connections) > self.limits.connections:
            transport.write(
                b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n"
                b"content-length: 0\r\nconnection: close\r\n\r\n"
            )
            transport.close()
            return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something arrives: headers, or a body."""
        if self.transport.is_closing():
            return
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._stop("_header_timer")
        elif self.cycle is None or self.cycle.response_complete:
            self._await_headers()

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.limits.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        self._stop("_write_timer")
        super().resume_writing()

    def _await_headers(self) -> None:
        if self._header_timer is None:
            seconds = self.limits.header_seconds
            self._header_timer = self.loop.call_later(seconds, self.transport.abort)

    def _cancel_timers(self) -> None:
        self._stop("_header_timer")
        self._stop("_write_timer")

    def _stop(self, name: str) -> None:
        timer = getattr(self, name, None)
        if timer is not None:
            timer.cancel()
            setattr(self, name, None)


def protocol(limits: Limits) -> Any:
    """The protocol class for these limits."""
    return type("LimitedProtocol", (Protocol,), {"limits": limits})
