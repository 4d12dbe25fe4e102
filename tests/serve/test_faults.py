"""Hostile and unlucky clients: each is refused by name in bounded time, and the server stays up."""

import contextlib
import json
import logging
import resource
import socket
import threading
import time

import pytest

pytestmark = pytest.mark.usefixtures("quick_compile")

SMALL = {
    "body_bytes": 4096, "texts": 4, "characters": 400, "pieces": 6, "header_seconds": 0.5,
    "body_seconds": 0.7, "write_seconds": 0.5, "connections": 8, "alternatives": 0,
    "json_depth": 5, "deadline": 1.5,
}  # fmt: skip
ASK = {"source": "lower", "target": "upper"}


@pytest.fixture(scope="module")
def small(running, pair):
    with running(pair[:1], SMALL) as server:
        yield server


@pytest.fixture(autouse=True)
def stays_up(small):
    yield
    assert small.client.get("/health").status_code == 200
    answer = small.client.post("/translate", json={"q": "ab"} | ASK)
    assert answer.status_code == 200, answer.text
    assert small.service.queue.pending == 0


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@contextlib.contextmanager
def connection(server, data=b""):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as s:
        s.sendall(data)
        yield s


def head(length, path="/translate"):
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def request(**fields):
    body = json.dumps({"q": "ab"} | ASK | fields).encode()
    return head(len(body)) + body


def rest(s):
    """All that comes until the connection is closed."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while chunk := s.recv(65536):
            data += chunk
    return data


@contextlib.contextmanager
def held(server, monkeypatch):
    """The device is at work until the block ends."""
    go, model = threading.Event(), server.translators[0]
    n_best = type(model).n_best
    started = threading.Event()

    def slow(self, *args, **kwargs):
        started.set()
        assert go.wait(20)
        return n_best(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(type(model), "n_best", slow)
        try:
            yield started
        finally:
            go.set()
            until(lambda: server.service.queue.pending == 0)


def test_headers_that_never_end_are_not_waited_for(small):
    start = time.monotonic()
    with connection(small) as silent, connection(small, b"POST /transl") as slow:
        with contextlib.suppress(ConnectionError):
            for _ in range(100):  # a byte now and then buys no time
                slow.sendall(b"x")
                time.sleep(0.02)
        assert rest(slow) == b"" and rest(silent) == b""
    assert time.monotonic() - start < 4


def test_nor_those_of_a_second_request(small):
    with connection(small, request()) as s:
        until(lambda: s.recv(65536))
        s.sendall(b"POST /translate HTT")
        start = time.monotonic()
        rest(s)
        assert time.monotonic() - start < 3


def test_a_body_that_never_ends_is_refused(small):
    start = time.monotonic()
    with connection(small, head(100) + b'{"q"') as s:
        answer = rest(s)
    assert answer.startswith(b"HTTP/1.1 408") and b"not here after 0.7 seconds" in answer
    assert time.monotonic() - start < 4


def test_headers_that_are_too_long(small):
    with connection(small, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000) as s:
        assert rest(s)[:12] in (b"HTTP/1.1 400", b"")


def test_half_closed_sockets(small):
    for data in (b"", b"POST /tra", head(100) + b'{"q"', request()):
        with connection(small, data) as s:
            s.shutdown(socket.SHUT_WR)
            rest(s)
    until(lambda: small.service.queue.pending == 0)


def test_a_client_that_leaves_frees_its_place(small, monkeypatch):
    before = small.client.get("/metrics").text
    with held(small, monkeypatch) as started, connection(small, request(q=["ab"] * 4)) as first:
        assert started.wait(10)
        with connection(small, request(q=["cd"] * 2)):
            until(lambda: small.service.queue.pending == 6)
        until(lambda: small.service.queue.pending == 4)  # those that waited
        first.close()
    after = small.client.get("/metrics").text
    gone = lambda text: int(text.split("\ntfm_abandoned_total ")[1].split()[0])  # noqa: E731
    assert gone(after) == gone(before) + 2


def test_a_full_queue_says_503_and_when_to_come_back(small, monkeypatch):
    with held(small, monkeypatch) as started, connection(small, request(q=["ab"] * 4)) as first:
        assert started.wait(10)
        with connection(small, request(q=["cd"] * 2)) as second:
            until(lambda: small.service.queue.pending == 6)
            answer = small.client.post("/translate", json={"q": "ef"} | ASK)
            assert answer.status_code == 503
            assert 1 <= int(answer.headers["retry-after"]) <= 120
            assert "busy" in answer.json()["error"]
            threading.Timer(0.1, started.clear).start()
            monkeypatch.undo()
        second.close()
        first.close()


def test_a_deadline_that_passes(small, monkeypatch):
    with held(small, monkeypatch):
        start = time.monotonic()
        answer = small.client.post("/translate", json={"q": "ab"} | ASK)
        assert answer.status_code == 503 and "deadline of 1.5 seconds" in answer.json()["error"]
        assert "retry-after" in answer.headers
        assert 1.4 < time.monotonic() - start < 5


def test_too_many_connections(small):
    with contextlib.ExitStack() as stack:
        open_now = [stack.enter_context(connection(small)) for _ in range(12)]
        answers = [rest(s) for s in open_now]
    refused = [a for a in answers if a.startswith(b"HTTP/1.1 503")]
    assert 4 <= len(refused) < 12 and all(b"retry-after: 5" in a for a in refused)


def test_100_megabytes(small):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    block, sent = b"x" * (1 << 20), 0
    with connection(small, head(100 << 20)) as s, contextlib.suppress(ConnectionError):
        for _ in range(100):
            s.sendall(block)
            sent += 1
        answer = rest(s)
        # Where the time for a body ends first, that is the reason.
        assert answer[:12] in (b"HTTP/1.1 413", b"HTTP/1.1 408")
    assert sent
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60 * 1024
    with connection(small, head(5000) + b"x" * 5000) as s:
        answer = rest(s)
    assert answer.startswith(b"HTTP/1.1 413") and b"more than the 4,096 bytes" in answer


def test_a_client_that_asks_before_it_sends(small):
    data = head(100 << 20).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    with connection(small, data) as s:
        assert rest(s).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"[" * 2000, 400, "JSON deeper than the 5 levels"),
        (b'{"q": ' + b'{"q":' * 300, 400, "JSON deeper"),
        (b'{"q": "' + b"[" * 1000 + b'", "source": "lower", "target": "upper"}', 413, "characters"),
        (b'"' + b'\\"' * 2000, 400, "not JSON"),
        (b'{"q": "\xff"}', 400, "not UTF-8"),
        (b'{"q": "\\ud800", "source": "lower", "target": "upper"}', 400, "surrogate"),
        (b'{"q": NaN}', 400, "not JSON"),
        (b'{"q": ' + b"9" * 4000 + b"}", 400, "q: must be a string or a list of strings"),
        (b"[]", 400, "must be a JSON object"),
        (b"", 400, "not JSON"),
        (b"{}", 400, "q: is missing"),
        (b'{"q": "a"}', 400, "source: is missing"),
        (b'{"q": ["a", 1], "source": "lower", "target": "upper"}', 400, "q: must be a string"),
        (b'{"q": "a", "source": "lower", "target": "xx"}', 400, "no model translates 'lower-xx'"),
        (b'{"q": "a", "source": "lower", "target": "upper", "format": "x"}', 400, "format 'x'"),
        (
            b'{"q": "a", "source": "lower", "target": "upper", "alternatives": 9}',
            400,
            "from 0 to 0",
        ),
        (b'{"q": "a", "source": "lower", "target": "upper", "alternatives": -1}', 400, "from 0"),
        (b'{"q": "a", "source": "lower", "target": "upper", "alternatives": 1e9}', 400, "whole"),
        (json.dumps({"q": ["a"] * 700} | ASK).encode(), 413, "texts: 700"),
        (json.dumps({"q": "a" * 401} | ASK).encode(), 413, "characters: 401"),
    ],
    ids=map(str, range(20)),
)
def test_bodies_that_are_refused(small, body, status, reason):
    headers = {"content-type": "application/json"}
    answer = small.client.post("/translate", content=body, headers=headers)
    assert answer.status_code == status
    assert reason in answer.json()["error"]
    assert answer.json()["message"] == answer.json()["error"]  # where DeepL's clients look


def test_forms_that_are_refused(small):
    kind = "application/x-www-form-urlencoded"
    for content, reason in ((b"q=%ff&source=lower", "UTF-8"), (b"source=lower", "q: is missing")):
        answer = small.client.post("/translate", content=content, headers={"content-type": kind})
        assert answer.status_code == 400 and reason in answer.json()["error"]
    answer = small.client.post("/translate", files={"q": b"ab"})
    assert answer.status_code == 415
    raw = b"q=ab&source=lower&target=upper"
    answer = small.client.post("/translate", content=raw, headers={"content-type": kind})
    assert answer.status_code == 200


def test_a_stream_of_too_many_sentences(small):
    answer = small.client.post("/v1/translate/stream", json={"text": "a。" * 9, "target": "upper"})
    assert answer.status_code == 413 and "texts: 9" in answer.json()["error"]


def test_a_million_tiny_texts(served):
    for texts, reason in ((["a"] * 1_000_000, "body"), (["a"] * 100_000, "texts: 100,000")):
        answer = served.client.post("/translate", json={"q": texts} | ASK)
        assert answer.status_code == 413 and reason in answer.json()["error"]


def test_settings_of_search_cannot_be_sent(small):
    fields = {"text": "a", "target": "upper", "beam_size": 10**9}
    answer = small.client.post("/v1/translate", json=fields)
    assert answer.status_code == 400 and "unknown field 'beam_size'" in answer.json()["error"]


def test_a_text_that_breaks_the_model_breaks_no_neighbour(small, monkeypatch, caplog):
    model = small.translators[0]
    n_best = type(model).n_best

    def broken(self, texts, *args, **kwargs):
        if any("secret" in text for text in texts):
            raise RuntimeError("cannot translate secret")
        return n_best(self, texts, *args, **kwargs)

    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(type(model), "n_best", broken)
        good = [small.client.post("/translate", json={"q": "ab"} | ASK)]
        bad = small.client.post("/translate", json={"q": "secret"} | ASK)
        with connection(small, request(q="secret")) as s, connection(small, request()) as t:
            good.append(t.recv(65536))
            assert s.recv(65536).startswith(b"HTTP/1.1 500")
    assert good[0].status_code == 200 and good[1].startswith(b"HTTP/1.1 200")
    assert bad.status_code == 500 and "secret" not in bad.text
    assert "RuntimeError" in caplog.text and "secret" not in caplog.text


def test_no_text_key_or_address_in_logs_and_metrics(small, caplog):
    with caplog.at_level(logging.DEBUG):
        small.client.post("/translate", json={"q": "hgfedcba" * 20, "api_key": "qqqqq"} | ASK)
        small.client.get("/hgfedcba?q=hgfedcba", headers={"x-forwarded-for": "203.0.113.9"})
        small.client.post("/v1/translate", json={"text": "hgfedcba", "target": "upper"})
    seen = small.client.get("/metrics").text + "\n".join(
        r.getMessage() for r in caplog.records if r.name.startswith(("tfm", "uvicorn"))
    )
    assert '"route": "other"' in seen and 'route="/translate"' in seen
    for secret in ("hgfedcba", "HGFEDCBA", "qqqqq", "203.0.113.9", "127.0.0.1"):
        assert secret not in seen
