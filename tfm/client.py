"""A client of ``tfm serve`` that needs nothing but Python's own library.

::

    client = Client("http://127.0.0.1:5000")
    client.translate(["我喜欢学习。"], target="en")
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

_BUSY = (429, 503)
_LONGEST_PAUSE = 30.0  # seconds


class ServerError(OSError):
    """A server refused a request, or does not answer; the message says why.

    Attributes:
      status: of HTTP; 0 if there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Hypothesis(NamedTuple):
    """One translation, with its natural-log probability and the score that search ranked it by."""

    text: str
    log_prob: float
    score: float


class Client:
    """A translation server.

    Attributes:
      url: of it, without a slash at the end.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float = 60.0,
        patience: float = 120.0,
        connections: int = 4,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connects to nothing yet.

        Args:
          timeout: seconds of waiting for one answer.
          patience: seconds in which a server that is busy or cannot be reached is asked again.
          connections: requests at the same time, of more texts than one request takes.
        """
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"server {url!r}: must start with http:// or https://")
        self.url = url.rstrip("/")
        self._key, self._timeout, self._patience = api_key, timeout, patience
        self._connections, self._sleep = connections, sleep
        self._facts: dict[str, Any] | None = None

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The (source, target) that the server translates."""
        return [(pair["source"], pair["target"]) for pair in self._models()["pairs"]]

    def translate(
        self, texts: Sequence[str], source: str = "auto", target: str | None = None
    ) -> list[str]:
        """The best translation of each text; see ``n_best``."""
        return [found[0].text for found in self.n_best(texts, 1, source, target)]

    def n_best(
        self, texts: Sequence[str], n: int, source: str = "auto", target: str | None = None
    ) -> list[list[Hypothesis]]:
        """The ``n`` best translations of each text, fewer where search found fewer.

        Args:
          source: a language of the server, or "auto".
          target: a language of the server; may be left out if it has one pair only.

        Raises:
          ServerError: refused, or still busy or not there when patience is at its end.
          ValueError: no target, and more than one to choose from.
        """
        if target is None:
            source, target = self._only_pair(source)
        fields = {"source": source, "target": target, "alternatives": n - 1, "plain": True}
        requests = [fields | {"texts": chunk} for chunk in self._chunks(texts)]
        with ThreadPoolExecutor(self._connections) as pool:
            answers = pool.map(lambda request: self.post("/v1/translate", request), requests)
            rows = [row for answer in answers for row in answer["translations"]]
        return [[_hypothesis(found) for found in (row, *row["alternatives"])] for row in rows]

    def post(self, path: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Sends JSON and returns the JSON of the answer, however often it has to ask."""
        return self._request(path, json.dumps(fields).encode())

    def _models(self) -> dict[str, Any]:
        if self._facts is None:
            self._facts = self._request("/v1/models", None)
        return self._facts

    def _only_pair(self, source: str) -> tuple[str, str]:
        pairs = [pair for pair in self.pairs if source in ("auto", pair[0])]
        if len(pairs) != 1:
            known = ", ".join("-".join(pair) for pair in self.pairs)
            raise ValueError(f"target: {self.url} translates {known}; name a language")
        return pairs[0]

    def _chunks(self, texts: Sequence[str]) -> Iterator[list[str]]:
        """Texts in as few requests as the server's limits allow, but some for each connection."""
        limits = self._models()["limits"]
        most = min(limits["texts"], max(16, -(-len(texts) // self._connections)))
        chunk: list[str] = []
        size = 0
        for text in texts:
            if chunk and (len(chunk) == most or size + len(text) > limits["characters"]):
                yield chunk
                chunk, size = [], 0
            chunk.append(text)
            size += len(text)
        if chunk:
            yield chunk

    def _request(self, path: str, body: bytes | None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} if body else {}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        end, pause = time.monotonic() + self._patience, 0.5
        while True:
            request = urllib.request.Request(self.url + path, body, headers)
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                failure = ServerError(f"{self.url}{path}: {_reason(error)}", error.code)
                if error.code not in _BUSY:
                    raise failure from None
                asked = error.headers.get("Retry-After", "")
                pause = float(asked) if asked.isdigit() else pause
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                failure = ServerError(f"{self.url}: does not answer ({reason})")
            except ValueError:
                raise ServerError(f"{self.url}{path}: the answer is not JSON") from None
            pause = min(pause, _LONGEST_PAUSE)
            if time.monotonic() + pause > end:
                raise failure
            self._sleep(pause)
            pause *= 2


def _hypothesis(found: dict[str, Any]) -> Hypothesis:
    missing = float("-inf")  # which JSON does not have
    log_prob, score = (missing if found[k] is None else found[k] for k in ("log_prob", "score"))
    return Hypothesis(found["text"], log_prob, score)


def _reason(error: urllib.error.HTTPError) -> str:
    """What the server says, or the name of the status."""
    try:
        return str(json.loads(error.read())["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"HTTP {error.code} {error.reason}"
