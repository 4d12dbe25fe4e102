"""What every route needs, and how one is made."""

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tfm.serve import bodies
from tfm.serve.access import Access
from tfm.serve.reports import Reports
from tfm.serve.service import Service
from tfm.serve.settings import Limits

Handler = Callable[["Context", dict[str, Any]], Awaitable[Response]]


@dataclass(frozen=True)
class Context:
    """The parts of a server that handlers use."""

    service: Service
    access: Access
    reports: Reports

    @property
    def limits(self) -> Limits:
        """Of requests."""
        return self.service.limits


def post(context: Context, path: str, handler: Handler) -> Route:
    """A route that needs a key and has a body; the handler gets its fields."""

    async def endpoint(request: Request) -> Response:
        given = await bodies.fields(request, context.limits.json_depth)
        key = given.pop("api_key", None)
        context.access.check(request, key if isinstance(key, str) else None)
        return await handler(context, given)

    return Route(path, endpoint, methods=["POST"])


def get(path: str, function: Callable[..., Response], *arguments: Any) -> Route:
    """A route without arguments, open to everybody."""
    call = functools.partial(function, *arguments)

    async def endpoint(request: Request) -> Response:
        return call()

    return Route(path, endpoint, methods=["GET"])


def get_with_key(context: Context, path: str, function: Callable[[], Response]) -> Route:
    """A route without arguments that needs a key."""

    async def endpoint(request: Request) -> Response:
        context.access.check(request)
        return function()

    return Route(path, endpoint, methods=["GET"])
