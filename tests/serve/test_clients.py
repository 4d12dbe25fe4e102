"""Programs that exist, unchanged, and our own client."""

import contextlib
import http.server
import json
import threading

import deepl
import libretranslatepy
import pytest
import tiny

import tfm
from tfm.client import Client, ServerError

pytestmark = pytest.mark.usefixtures("served", "quick_compile")


def offline(server, texts):
    return server.translators[0].translate(texts, batch_size=4)


def test_libretranslatepy(served):
    client = libretranslatepy.LibreTranslateAPI(served.url)
    assert [client.translate("ab c", "lower", "upper")] == offline(served, ["ab c"])
    assert client.languages()[0]["code"] == "lower"
    assert {found["language"] for found in client.detect("ab c")} == {"lower", "upper"}


@pytest.fixture
def deepl_client(served):
    client = deepl.DeepLClient("key", server_url=served.url)
    yield client
    client.close()


def test_deepl(served, deepl_client):
    ask = dict(source_lang="lower", target_lang="upper")
    assert [deepl_client.translate_text("ab c", **ask).text] == offline(served, ["ab c"])
    texts = ["ab c", "", "d e\nf"]
    found = deepl_client.translate_text(texts, **ask)
    ab, de, f = offline(served, ["ab c", "d e", "f"])
    assert [one.text for one in found] == [ab, "", f"{de}\n{f}"]
    assert all(one.detected_source_lang == "LOWER" for one in found)
    found = deepl_client.translate_text("<p>ab c</p> <br>d", tag_handling="html", **ask)
    ab, d = offline(served, ["ab c", "d"])
    assert found.text == f"<p>{ab}</p> <br>{d}"
    assert deepl_client.translate_text("ab", target_lang="upper").detected_source_lang == "LOWER"


def test_deepl_languages_usage_and_refusals(deepl_client):
    assert [x.code for x in deepl_client.get_source_languages()] == ["LOWER", "UPPER"]
    assert [x.code for x in deepl_client.get_target_languages()] == ["LOWER", "UPPER"]
    assert not deepl_client.get_usage().any_limit_reached
    with pytest.raises(deepl.DeepLException, match="no model translates 'LOWER-XX'"):
        deepl_client.translate_text("ab", source_lang="lower", target_lang="xx")
    with pytest.raises(deepl.DeepLException, match="glossary_id: this server has none"):
        deepl_client.translate_text("ab", source_lang="lower", target_lang="upper", glossary="x")


def test_our_client(served):
    client = tfm.Client(served.url)
    assert client.pairs == [("lower", "upper"), ("upper", "lower")]
    texts = [*tiny.sentences(70, seed=3, words=(1, 3)), ""]
    assert client.translate(texts, "lower", "upper") == offline(served, texts)
    best = served.translators[0].n_best(["ab"], 2, batch_size=4)[0]
    (found,) = client.n_best(["ab"], 2, "lower", "upper")
    assert [h.text for h in found] == [t.text for t in best]
    assert [h.score for h in found] == pytest.approx([t.score for t in best], rel=1e-5)
    assert client.translate([], "lower", "upper") == []
    with pytest.raises(ServerError, match="alternatives 8: must be from 0 to 3") as refused:
        client.n_best(["a"], 9, "lower", "upper")
    assert refused.value.status == 400
    with pytest.raises(ValueError, match="translates lower-upper, upper-lower; name a language"):
        client.translate(["a"])
    with pytest.raises(ValueError, match="must start with http"):
        Client("localhost:5000")


@contextlib.contextmanager
def scripted(answers):
    """A server that gives these (status, headers, JSON) one after the other."""
    left = iter(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            status, headers, content = next(left)
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in (headers | {"content-length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_client_comes_back_when_it_is_told_to():
    slept = []
    busy = (503, {"retry-after": "7"}, {"error": "the server is busy"})
    answers = [busy, (429, {}, {}), (503, {}, b"<html>"), (200, {}, {"x": 1})]
    with scripted(answers) as url:
        assert Client(url, sleep=slept.append).post("/v1/x", {}) == {"x": 1}
    assert slept == [7, 14, 28]
    with scripted([busy]) as url, pytest.raises(ServerError, match="the server is busy"):
        Client(url, patience=5, sleep=slept.append).post("/v1/x", {})
    with scripted([(400, {}, {"error": "no"})]) as url, pytest.raises(ServerError, match="x: no"):
        Client(url).post("/v1/x", {})
    with scripted([(200, {}, b"<html>")]) as url, pytest.raises(ServerError, match="not JSON"):
        Client(url).post("/v1/x", {})


def test_the_client_says_when_nobody_answers():
    with scripted([]) as url:
        pass
    with pytest.raises(ServerError, match="does not answer"):
        Client(url, patience=1, sleep=lambda _: None).post("/v1/x", {})


@pytest.mark.slow
def test_translate_with_a_server_writes_what_it_writes_with_the_model(
    running, command, tiny_run, tmp_path
):
    lines = "\n".join([*tiny.sentences(9, seed=8), "", "  ab \t cd "]) + "\n"
    translator = tfm.load(tiny_run)
    with running([translator], batch_size=1) as server:
        for options in ((), ("--n-best", 2)):
            code, expected, _ = command(
                "translate", "--model", tiny_run, *options, stdin=lines.encode()
            )
            assert code == 0 and expected
            served = command("translate", "--server", server.url, *options, stdin=lines.encode())
            assert served[0] == 0
            close(served[1].decode(), expected.decode())
        code, out, err = command(
            "translate", "--server", server.url, "--beam-size", 3, stdin=b"a\n"
        )
        assert (code, out) == (1, b"") and "--beam-size: a server searches with" in err
        code, _, err = command("translate", "--server", server.url, "--alignment", stdin=b"a\n")
        assert code == 1 and "use --model" in err
    code, _, err = command("translate", stdin=b"a\n")
    assert code == 1 and "give --model RUN or --server URL" in err


def close(one, other):
    """Equal texts, and numbers that differ in their last digit at most."""
    for row, expected in zip(one.splitlines(), other.splitlines(), strict=True):
        for a, b in zip(row.split("\t"), expected.split("\t"), strict=True):
            assert a == b or float(a) == pytest.approx(float(b), abs=2e-4)
