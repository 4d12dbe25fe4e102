"""The ASGI application: routes, and around them what every request passes."""

import json
import logging
import time
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tfm.serve import page_files
from tfm.serve.access import Access
from tfm.serve.connections import Guard
from tfm.serve.context import Context, get, get_with_key
from tfm.serve.dialects import deepl, libretranslate, native, plugins
from tfm.serve.metrics import Metrics
from tfm.serve.refusal import Refusal
from tfm.serve.reports import Reports
from tfm.serve.responses import answer, refused
from tfm.serve.service import Service
from tfm.serve.settings import Clients

_log = logging.getLogger(__name__)

_PROBES = ("/health", "/ready", "/metrics")  # asked every few seconds
_LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}


def application(service: Service, clients: Clients, any_host: bool = False) -> ASGIApp:
    """All routes of a service, which starts with the application.

    Args:
      any_host: whether any Host header will do, as for a server that listens beyond this machine.
    """
    context = Context(service, Access(clients), Reports())
    metrics = service.metrics
    routes = [
        *native.routes(context),
        *libretranslate.routes(context),
        *deepl.routes(context),
        *plugins.routes(context),
        get("/health", _health, service),
        get("/ready", _ready, service),
        get_with_key(context, "/metrics", lambda: PlainTextResponse(metrics.text())),
        *page_files.routes(),
    ]

    @asynccontextmanager
    async def lifespan(_: Any) -> Any:
        service.start()
        yield
        service.draining = True

    middleware = [Middleware(Guard, limits=service.limits, metrics=metrics)]
    if clients.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=clients.cors_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["authorization", "content-type"],
                expose_headers=["retry-after"],
                allow_credentials=False,
            )
        )
    if not any_host:
        hosts = _LOOPBACK | set(clients.allowed_hosts)
        middleware.append(Middleware(HostCheck, hosts=hosts))
    handlers: Any = {Refusal: _refuse, HTTPException: _refuse_http}
    app = Starlette(
        routes=routes, middleware=middleware, exception_handlers=handlers, lifespan=lifespan
    )
    return Observed(app, routes, metrics)


def _health(service: Service) -> Response:
    """Whether the server works: everything is compiled and the device's thread runs."""
    if not service.queue.alive:
        return answer({"status": "failed"}, 503)
    if not service.queue.warm:
        return answer({"status": "warming up"}, 503, {"retry-after": "5"})
    return answer({"status": "ok"})


def _ready(service: Service) -> Response:
    """Whether a request would be taken now."""
    if service.ready:
        return answer({"status": "ready"})
    return answer({"status": "not ready"}, 503, {"retry-after": "5"})


async def _refuse(_: Request, refusal: Refusal) -> Response:
    return refused(refusal)


async def _refuse_http(_: Request, error: HTTPException) -> Response:
    return refused(Refusal(error.status_code, error.detail))


class HostCheck:
    """Refuses other Host headers, with which a page elsewhere could reach this machine's server.

    (DNS rebinding: a name of the page's own that points here.)
    """

    def __init__(self, app: ASGIApp, hosts: set[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name not in self.hosts:
                refusal = Refusal(421, "Host: not a name of this server; see --allowed-hosts")
                return await refused(refusal)(scope, receive, send)
        await self.app(scope, receive, send)


class Observed:
    """Counts and logs each request, without its texts, and answers 500 where something broke."""

    def __init__(self, app: ASGIApp, routes: list[Route], metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics
        # A path that is no route may hold anything: it is not named.
        self.names = {route.path: route.path for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:
            where = _place(error)
            _log.error("a request failed: %s at %s", type(error).__name__, where)
            if not status:
                await refused(Refusal(500, "the server failed"))(scope, receive, watched)
        finally:
            self._count(scope, status, time.perf_counter() - start)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"]
        route = self.names.get(path, "other")
        if path.startswith("/v1/reports/"):
            route = "/v1/reports/{token}"
        self.metrics.requested(route, status, seconds)
        if status >= 400:
            self.metrics.refused(status)
        if route in _PROBES:
            return
        line = {"route": route, "status": status, "ms": round(1000 * seconds, 1)}
        _log.info("request %s", json.dumps(line))


def _place(error: BaseException) -> str:
    """The file and line that raised an error; its message may have a text in it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
