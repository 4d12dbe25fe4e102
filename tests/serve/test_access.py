"""Keys, rates, proxies, origins and hosts."""

import ipaddress

import pytest
from starlette.requests import Request

from tfm.serve import access, page_files, reports
from tfm.serve.access import Access
from tfm.serve.refusal import Refusal
from tfm.serve.settings import Clients

pytestmark = pytest.mark.usefixtures("quick_compile")
ASK = {"q": "ab", "source": "lower", "target": "upper"}


def request(client="198.51.100.7", **headers):
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "client": (client, 1), "headers": raw})


def checks(gate, *args, **kwargs):
    try:
        gate.check(request(*args, **kwargs))
    except Refusal as refusal:
        return refusal.status
    return 200


def test_keys():
    gate = Access(Clients(keys=("one", "two")))
    for scheme in ("Bearer", "DeepL-Auth-Key"):
        assert checks(gate, authorization=f"{scheme} two") == 200
        assert checks(gate, authorization=f"{scheme} three") == 403
    assert checks(gate) == checks(gate, authorization="Basic one") == 403
    gate.check(request(), "one")
    with pytest.raises(Refusal):
        gate.check(request(), "on")


def test_keys_from_a_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# ours\none\n\n  two \n")
    assert access.read_keys(path) == ("one", "two")
    path.write_text("# none\n")
    with pytest.raises(ValueError, match="no key there"):
        access.read_keys(path)


def test_rate_by_key_or_by_address():
    now = [0.0]
    gate = Access(Clients(rate=60), clock=lambda: now[0])
    assert [checks(gate, "192.0.2.1") for _ in range(7)] == [200] * 6 + [429]
    assert checks(gate, "192.0.2.2") == 200
    with pytest.raises(Refusal) as refused:
        gate.check(request("192.0.2.1"))
    assert refused.value.retry_after == 1
    now[0] += 2.0
    assert [checks(gate, "192.0.2.1") for _ in range(3)] == [200, 200, 429]
    keyed = Access(Clients(rate=60, keys=("a", "b")), clock=lambda: now[0])
    assert [checks(keyed, authorization="Bearer a") for _ in range(7)] == [200] * 6 + [429]
    assert checks(keyed, authorization="Bearer b") == 200


def test_the_memory_of_clients_is_bounded():
    gate = Access(Clients(rate=60))
    for i in range(10_100):
        gate.check(request(str(ipaddress.ip_address(i))))
    assert len(gate._buckets) <= 10_000


def test_a_spoofed_forwarded_address_changes_nothing():
    gate = Access(Clients(rate=60))
    spoofed = [checks(gate, x_forwarded_for=f"192.0.2.{i}") for i in range(8)]
    assert spoofed == [200] * 6 + [429] * 2


def test_the_address_behind_a_named_proxy():
    proxies = [ipaddress.ip_network("198.51.100.0/24")]
    of = lambda **headers: access.address(request(**headers), proxies)  # noqa: E731
    assert of(x_forwarded_for="203.0.113.5") == "203.0.113.5"
    # Of what the client wrote itself nothing is believed, only what the proxy appended.
    assert of(x_forwarded_for="10.0.0.1, 203.0.113.5") == "203.0.113.5"
    assert of(x_forwarded_for="203.0.113.5, 198.51.100.9") == "203.0.113.5"
    assert of(x_forwarded_for="nonsense") == of() == "198.51.100.7"
    with pytest.raises(ValueError, match="proxy 'x': not an address"):
        Access(Clients(proxies=("x",)))


def test_any_origin_with_keys_is_refused():
    with pytest.raises(ValueError, match="CORS origin '\\*' with API keys"):
        Access(Clients(keys=("a",), cors_origins=("*",)))


def test_a_server_with_keys_and_a_rate(running, pair):
    clients = {"keys": ("k1",), "rate": 60.0, "cors_origins": ("https://a.example",)}
    with running(pair[:1], {"alternatives": 0}, clients) as server:
        post = lambda key, **fields: server.client.post(  # noqa: E731
            "/translate",
            json=ASK | fields,
            headers={"authorization": f"Bearer {key}"} if key else {},
        )
        assert post("k1").status_code == 200
        assert post("k2").status_code == post("k1", api_key="k2").status_code == 403
        assert post("", api_key="k1").status_code == 200
        assert server.client.get("/metrics").status_code == 403
        key = {"authorization": "Bearer k1"}
        assert server.client.get("/metrics", headers=key).status_code == 200
        assert server.client.get("/v2/usage").status_code == 403
        for path in ("/health", "/languages", "/v1/models"):
            assert server.client.get(path).status_code == 200
        statuses = [post("k1").status_code for _ in range(12)]
        assert 429 in statuses
        preflight = {"origin": "https://a.example", "access-control-request-method": "POST"}
        allowed = server.client.options("/translate", headers=preflight).headers
        assert allowed["access-control-allow-origin"] == "https://a.example"
        assert "access-control-allow-credentials" not in allowed
        other = server.client.get("/health", headers={"origin": "https://b.example"}).headers
        assert "access-control-allow-origin" not in other


def test_without_origins_nothing_is_shared_and_hosts_are_checked(served):
    answer = served.client.get("/health", headers={"origin": "https://a.example"})
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert served.client.get("/health", headers={"host": "evil.example"}).status_code == 421
    for host in ("localhost", "127.0.0.1:5000", "[::1]:5000", "LOCALHOST:80"):
        assert served.client.get("/health", headers={"host": host}).status_code == 200, host


def test_answers_are_kept_by_nobody(served):
    answer = served.client.post("/translate", json=ASK)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert served.client.get("/translate?q=ab&source=lower&target=upper").status_code == 405


def test_files_of_the_page(tmp_path):
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    (tmp_path / "vendor").mkdir()
    (tmp_path / "index.html").write_text("<p>")
    (tmp_path / "app.js").write_text("1")
    (tmp_path / "vendor/x.js").write_text("2")
    (tmp_path / "vendor/x.LICENSE").write_text("3")
    client = TestClient(Starlette(routes=page_files.routes(tmp_path)))
    page = client.get("/")
    assert page.text == "<p>" and page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'") and "unsafe" not in policy
    assert client.get("/vendor/x.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/vendor/x.LICENSE").status_code == 404
    tag = page.headers["etag"]
    same = client.get("/", headers={"if-none-match": f'"other", {tag}'})
    assert same.status_code == 304 and not same.content and same.headers["etag"] == tag
    assert client.get("/", headers={"if-none-match": '"other"'}).status_code == 200


def test_the_policy_of_a_report_allows_its_own_script_alone():
    policy = reports.policy('<style>a</style><script type="x">data</script><script>f()</script>')
    assert policy.count("sha256-") == 1
    assert "script-src 'sha256-" in policy and "sandbox allow-scripts" in policy
    assert "script-src 'none'" in reports.policy("<p>")
