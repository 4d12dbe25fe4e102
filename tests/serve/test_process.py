"""The command in a process of its own: signals under load, a report, and a second start."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import tiny

import tfm
from tfm.serve import models, reports
from tfm.serve.refusal import Refusal

pytestmark = pytest.mark.usefixtures("quick_compile")


class Server:
    """``tfm serve`` with a small model, at a port of its own."""

    def __init__(self, run, log, *options):
        environment = os.environ | {
            "PYTHONPATH": str(Path(tfm.__file__).parents[1]), "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "GLIBC_TUNABLES": "", "PYTHONUNBUFFERED": "1",
        }  # fmt: skip
        words = ("serve", "--model", run, "--port", 0, "--batch-size", 1, "--alternatives", 0)
        main = [sys.executable, "-c", "from tfm.cli import main; main()"]
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [*main, *map(str, words + options)],
                env=environment,
                stderr=file,
                stdout=subprocess.DEVNULL,
            )

    def wait(self):
        end = time.monotonic() + 120
        while "is ready" not in (text := self.log.read_text()):
            assert self.process.poll() is None and time.monotonic() < end, text
            time.sleep(0.1)
        self.url = next(w for w in text.split() if w.startswith("http://"))
        return self

    def stop(self, number, seconds=30):
        self.process.send_signal(number)
        return self.process.wait(seconds)


@pytest.fixture
def server(tiny_run, tmp_path):
    started = Server(tiny_run, tmp_path / "log")
    yield started
    started.process.kill()
    started.process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_under_load(server, tiny_run, number, code):
    """Whatever was taken is answered; the rest is refused; nothing is answered wrongly."""
    texts = tiny.sentences(40, seed=4, words=(2, 4))
    offline = dict(zip(texts, tfm.load(tiny_run).translate(texts, batch_size=1), strict=True))
    server.wait()
    answered, refused, wrong, stop = [], [], [], threading.Event()

    def client(first):
        with httpx.Client(base_url=server.url, timeout=30) as http_client:
            for i in range(10_000):
                text = texts[(first + i) % len(texts)]
                ask = {"q": text, "source": "lower", "target": "upper"}
                try:
                    answer = http_client.post("translate", json=ask)
                except httpx.ConnectError:
                    return  # not taken
                except (httpx.ReadError, httpx.RemoteProtocolError):
                    return  # an idle connection was closed as the request was sent
                if answer.status_code == 503:
                    refused.append(answer)
                elif answer.json()["translatedText"] != offline[text]:
                    wrong.append(text)
                else:
                    answered.append(text)
                if stop.is_set():
                    return

    threads = [threading.Thread(target=client, args=(5 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    while len(answered) < 30:
        time.sleep(0.01)
    assert server.stop(number) == code
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not wrong and len(answered) >= 30
    log = server.log.read_text()
    assert "Traceback" not in log and "finishing what is running" in log
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url + "health")


@pytest.mark.slow
def test_before_it_is_warm_it_says_so_and_can_be_stopped(server):
    end = time.monotonic() + 120
    while "answers 503 until" not in (text := server.log.read_text()):
        assert time.monotonic() < end
        time.sleep(0.05)
    url = next(w for w in text.split() if w.startswith("http://"))
    answer = httpx.get(url + "health", timeout=30)
    if answer.status_code == 503:  # else it was quick
        assert answer.json() == {"status": "warming up"}
    assert server.stop(signal.SIGTERM, 60) == 0


@pytest.mark.slow
def test_a_report_is_made_in_a_process_that_can_be_killed(running, tiny_run, monkeypatch):
    ask = {"text": "ab cd", "source": "lower", "target": "upper", "language": "zh"}
    with running(
        [tfm.load(tiny_run)], {"alternatives": 0}, batch_size=1, folder=str(tiny_run)
    ) as s:
        client = httpx.Client(base_url=s.url, timeout=120)
        answer = client.post("/v1/inspect", json=ask)
        assert answer.status_code == 200, answer.text
        page = client.get(answer.json()["report"])
        assert page.status_code == 200 and "ab cd" in page.text and 'lang="zh"' in page.text
        policy = page.headers["content-security-policy"]
        assert "script-src 'sha256-" in policy and "default-src 'none'" in policy
        assert client.get("/v1/reports/x").status_code == 404
        assert client.post("/v1/inspect", json=ask | {"text": " "}).status_code == 400

        started = []
        start = reports.multiprocessing.process.BaseProcess.start

        def remember(process):
            start(process)
            started.append(process)

        monkeypatch.setattr(reports.multiprocessing.process.BaseProcess, "start", remember)
        found = []
        thread = threading.Thread(target=lambda: found.append(client.post("/v1/inspect", json=ask)))
        thread.start()
        while not started:
            time.sleep(0.01)
        busy = s.client.post("/v1/inspect", json=ask)
        assert busy.status_code == 503 and "another report" in busy.json()["error"]
        os.kill(started[0].pid, signal.SIGKILL)
        thread.join(30)
        assert found[0].status_code == 500 and "died" in found[0].json()["error"]
        assert s.client.get("/health").status_code == 200
        client.close()


def test_a_model_without_a_folder_has_no_reports(served):
    ask = {"text": "ab", "source": "lower", "target": "upper"}
    assert served.client.post("/v1/inspect", json=ask).status_code == 501


def test_two_models_of_one_pair_are_refused(pair):
    served = [models.model(pair[0], 1, 0) for _ in range(2)]
    with pytest.raises(ValueError, match="two models translate lower-upper"):
        models.Models(served)
    with pytest.raises(ValueError, match="no model to serve"):
        models.Models([])
    with pytest.raises(Refusal, match="no model translates 'a-b'"):
        models.Models(served[:1]).route("a", "b")


def test_wrong_options_are_one_line(command, tiny_run, tmp_path):
    def fails(*options):
        code, out, err = command("serve", *options)
        assert (code, out) == (1, b"")
        return err.splitlines()[-1]

    assert "give --model RUN, or --demo" in fails()
    assert "--port 70000: must be from 0 to 65,535" in fails("--port", 70000)
    assert "--deadline 0.0: must be from 0.1" in fails("--deadline", 0.0)
    assert "proxy 'x': not an address" in fails("--model", tiny_run, "--proxies", "x")
    assert "No such file" in fails("--model", tiny_run, "--api-keys", tmp_path / "none")
    assert "no config.json there" in fails("--model", tmp_path, "--port", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        in_use = fails("--model", tiny_run, "--port", port)
    assert f"--host 127.0.0.1 --port {port}: Address already in use" in in_use
