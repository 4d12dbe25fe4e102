"""What a service may be asked for and who may ask: frozen dataclasses with stated ranges."""

from dataclasses import dataclass
from typing import Annotated

from tfm.ranges import Range

_SECONDS = Range(least=0.1, most=86_400)


@dataclass(frozen=True)
class Limits:
    """Bounds of one request, and of all requests together.

    Attributes:
      body_bytes: of a request's body. A longer one is refused with 413.
      texts: of a request. More are refused with 413.
      characters: of all texts of a request together. More are refused with 413.
      alternatives: translations of a text besides the best. More are refused with 400.
      json_depth: of arrays and objects inside each other. Deeper ones are refused with 400.
      pieces: waiting or running; what would not fit is refused with 503 and Retry-After. A text is
        one piece, or several if it is too long for the model.
      deadline: seconds a request may take; then it is refused with 503.
      header_seconds: until a request's headers have arrived; then the connection is closed.
      body_seconds: until its body has arrived; then it is refused with 408.
      write_seconds: a client may leave its answer unread; then the connection is closed.
      connections: open at once; one more is refused with 503.
      drain_seconds: after SIGTERM, for requests that are running.
    """

    body_bytes: Annotated[int, Range(least=1024, most=1 << 30)] = 1 << 20
    texts: Annotated[int, Range(least=1, most=1_000_000)] = 512
    characters: Annotated[int, Range(least=1, most=100_000_000)] = 50_000
    alternatives: Annotated[int, Range(least=0, most=100)] = 3
    json_depth: Annotated[int, Range(least=2, most=500)] = 16
    pieces: Annotated[int, Range(least=1, most=10_000_000)] = 2048
    deadline: Annotated[float, _SECONDS] = 30.0
    header_seconds: Annotated[float, _SECONDS] = 10.0
    body_seconds: Annotated[float, _SECONDS] = 20.0
    write_seconds: Annotated[float, _SECONDS] = 20.0
    connections: Annotated[int, Range(least=1, most=100_000)] = 512
    drain_seconds: Annotated[float, _SECONDS] = 30.0


@dataclass(frozen=True)
class Clients:
    """Who may ask, and how often.

    Attributes:
      keys: API keys, one of which a request must have; none are needed if there are none.
      rate: requests a minute of one key, or of one address where there are no keys; 0 is no limit.
      proxies: addresses or networks of proxies, whose X-Forwarded-For is believed.
      cors_origins: origins whose pages may read answers: "https://example.org". Cookies and other
        credentials of a browser are never accepted.
      allowed_hosts: names that a Host header may have besides those of this machine, while no
        other machine can reach the server.
    """

    keys: tuple[str, ...] = ()
    rate: Annotated[float, Range(least=0, most=1e6, note="0 is no limit")] = 0.0
    proxies: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
