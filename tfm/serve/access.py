"""Who may ask: API keys, rates, and the address behind a proxy."""

import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.requests import Request

from tfm.serve.refusal import Refusal
from tfm.serve.settings import Clients

_REMEMBERED = 10_000  # clients of the rate limit
_BURST = 0.1  # of a minute's requests, at once


def read_keys(path: Path) -> tuple[str, ...]:
    """API keys from a file: one a line; blank lines and those that start with # are skipped.

    Raises:
      OSError, ValueError: no such file, or no key in it.
    """
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ValueError(f"API keys {path}: no key there; write one a line")
    return keys


class Access:
    """Checks a request's key and counts it against its client's rate."""

    def __init__(self, clients: Clients, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ValueError for proxies that are no addresses, and for origins and keys together.

        Args:
          clock: in seconds.
        """
        if "*" in clients.cors_origins and clients.keys:
            raise ValueError(
                "CORS origin '*' with API keys: any page could use a key that it finds; name the "
                "origins"
            )
        self._proxies = [_network(proxy) for proxy in clients.proxies]
        self._keys = [_digest(key) for key in clients.keys]
        self._rate, self._clock = clients.rate / 60, clock
        self._most = max(1.0, clients.rate * _BURST)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, when

    @property
    def needs_key(self) -> bool:
        """Whether requests need an API key."""
        return bool(self._keys)

    def check(self, request: Request, key: str | None = None) -> None:
        """Raises Refusal for a request without a valid key, or one too many.

        Args:
          key: from the body, where a dialect has it there; else that of the Authorization header.
        """
        client = self._client(request, key)
        if not self._rate:
            return
        now = self._clock()
        left, last = self._buckets.pop(client, (self._most, now))
        left = min(self._most, left + (now - last) * self._rate)
        if left < 1:
            self._buckets[client] = left, now
            raise Refusal(429, "too many requests", (1 - left) / self._rate)
        self._buckets[client] = left - 1, now
        while len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)

    def _client(self, request: Request, key: str | None) -> str:
        """By what requests are counted: a key's digest, or an address."""
        if not self._keys:
            return address(request, self._proxies)
        given = _digest(key or _authorization(request))
        # All are compared, so that the time tells nothing.
        known = [hmac.compare_digest(given, one) for one in self._keys]
        if not any(known):
            raise Refusal(403, "API key: none that this server knows")
        return given.hex()


def address(
    request: Request, proxies: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> str:
    """The client's address: of the connection, or the one that a known proxy names.

    Of X-Forwarded-For only what known proxies appended is believed: from its end, the first
    address that is no known proxy.
    """
    peer = request.client.host if request.client else "unknown"
    hops = [hop for line in request.headers.getlist("x-forwarded-for") for hop in line.split(",")]
    while _within(peer, proxies) and hops:
        hop = hops.pop().strip()
        try:
            peer = str(ipaddress.ip_address(hop))
        except ValueError:
            break
    return peer


def _within(peer: str, proxies: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        found = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return any(found in network for network in proxies)


def _network(proxy: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(proxy)
    except ValueError as error:
        raise ValueError(f"proxy {proxy!r}: not an address or a network ({error})") from error


def _authorization(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() in ("bearer", "deepl-auth-key") else ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogatepass")).digest()
