"""Measures ``tfm serve`` on this machine, over the loopback, every answer checked.

    python tools/bench_serve.py --model runs/demo --source test.zh --seconds 20

First the lines are translated as ``tfm translate`` does a file, which gives the answers and the
speed to compare with; then a server is started in a process of its own. Closed loop: 1, 8 and 64
clients, each sending a line as soon as the last is answered. Open loop: lines at random times,
twice as many as the closed loop could do, which the server must answer or refuse. Clients, server
and model share the machine's cores. Prints one JSON object.
"""

import asyncio
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tyro

import tfm
from tfm import terminal
from tfm.data import text

_START = "import sys; from tfm.cli import main; main()"
_WAIT = 600.0  # seconds for everything to compile


class Tally:
    """What became of the requests of one measurement."""

    def __init__(self) -> None:
        self.seconds: list[float] = []  # of those that were answered
        self.refusal_seconds: list[float] = []
        self.counts: Counter[str] = Counter()

    def summary(self, elapsed: float) -> dict[str, Any]:
        """Figures for the report."""
        found: dict[str, Any] = dict(self.counts)
        found["per_second"] = round(self.counts["right"] / elapsed, 2)
        for name, values in (("answer", self.seconds), ("refusal", self.refusal_seconds)):
            if values:
                values.sort()
                for share in (50, 99):
                    at = min(len(values) - 1, len(values) * share // 100)
                    found[f"{name}_p{share}_seconds"] = round(values[at], 3)
                found[f"{name}_longest_seconds"] = round(values[-1], 3)
        return found


class Connection:
    """One connection that is kept open, as a browser or a pool would."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname, parts.port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, fields: dict[str, Any]) -> tuple[int, Any]:
        """Status and JSON of the answer."""
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self.streams
        body = json.dumps(fields).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        content = await reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self.close()
        return int(status.split()[1]), json.loads(content)

    def close(self) -> None:
        """Closes it; the next request opens another."""
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


async def ask(connection: Connection, line: str, answers: dict, pair: tuple, tally: Tally) -> None:
    """One request, counted."""
    start = time.perf_counter()
    try:
        fields = {"text": line, "source": pair[0], "target": pair[1], "plain": True}
        status, content = await connection.post("/v1/translate", fields)
    except (OSError, asyncio.IncompleteReadError):
        connection.close()
        tally.counts["lost"] += 1
        return
    seconds = time.perf_counter() - start
    if status == 200:
        right = content["translations"][0]["text"] == answers[line]
        tally.counts["right" if right else "wrong"] += 1
        tally.seconds.append(seconds)
    else:
        tally.counts[f"refused_{status}"] += 1
        tally.refusal_seconds.append(seconds)


async def closed_loop(
    url: str, answers: dict, pair: tuple, clients: int, seconds: float
) -> dict[str, Any]:
    """Each client sends a line when the last one is answered."""
    tally, start = Tally(), time.perf_counter()
    lines = _endless(list(answers))

    async def client() -> None:
        connection = Connection(url)
        while time.perf_counter() - start < seconds:
            await ask(connection, next(lines), answers, pair, tally)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return {"clients": clients} | tally.summary(time.perf_counter() - start)


async def open_loop(
    url: str, answers: dict, pair: tuple, rate: float, seconds: float
) -> dict[str, Any]:
    """Lines at random times, ``rate`` a second on average, whether or not others are answered."""
    tally, start, rng = Tally(), time.perf_counter(), random.Random(0)
    lines, idle, running = _endless(list(answers)), list[Connection](), set[asyncio.Task]()

    async def one(line: str) -> None:
        connection = idle.pop() if idle else Connection(url)
        await ask(connection, line, answers, pair, tally)
        idle.append(connection)

    due, sent = start, 0
    while time.perf_counter() - start < seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        due += rng.expovariate(rate)
        task = asyncio.ensure_future(one(next(lines)))
        running.add(task)
        task.add_done_callback(running.discard)
        sent += 1
    await asyncio.gather(*running)
    for connection in idle:
        connection.close()
    summary = tally.summary(time.perf_counter() - start)
    assert sent == sum(tally.counts.values())
    return {"offered_per_second": round(rate, 2), "sent": sent} | summary


def _endless(lines: list[str]) -> Iterator[str]:
    while True:
        yield from lines


@contextmanager
def serving(model: str, options: tuple[str, ...]) -> Iterator[tuple[str, int, float]]:
    """A server's address, process and seconds until it was warm."""
    start = time.perf_counter()
    with tempfile.NamedTemporaryFile("w+") as log:
        words = [sys.executable, "-c", _START, "serve", "--model", model, "--port", "0", *options]
        process = subprocess.Popen(words, stderr=log, stdout=subprocess.DEVNULL)
        try:
            while "is ready" not in (told := Path(log.name).read_text()):
                if process.poll() is not None or time.perf_counter() - start > _WAIT:
                    raise RuntimeError(f"the server did not start: {told[-500:]}")
                time.sleep(0.05)
            warm = time.perf_counter() - start
            yield next(w for w in told.split() if w.startswith("http://")), process.pid, warm
            process.send_signal(signal.SIGTERM)
            if process.wait(60) != 0:
                raise RuntimeError(f"the server ended with {process.returncode}")
        finally:
            process.kill()
            process.wait()


def memory(process: int) -> float:
    """Resident megabytes of a process (Linux)."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def measure(
    model: str,
    source: Path,
    lines: int = 512,
    seconds: float = 20.0,
    clients: tuple[int, ...] = (1, 8, 64),
    overload: float = 2.0,
    options: str = "",
) -> None:
    """Measure a server; see the head of this file.

    Args:
        model: Folder of a run.
        source: UTF-8 text, a sentence a line.
        lines: Different lines of it that are sent, over and over.
        seconds: Of each closed loop; the open loop takes three times as long.
        clients: Of the closed loops.
        overload: Of the open loop, in multiples of the best closed loop.
        options: Further options of `tfm serve`: --options="--batch-size 64".
    """
    chosen = list(dict.fromkeys(line for line in text.read(source) if line.strip()))[:lines]
    translator = tfm.load(model)
    data = translator.experiment.data
    pair = (data.source, data.target)
    translator.translate(chosen)  # compiles
    start = time.perf_counter()
    answers = dict(zip(chosen, translator.translate(chosen), strict=True))
    offline = len(chosen) / (time.perf_counter() - start)
    del translator
    report: dict[str, Any] = {"lines": len(chosen), "offline_per_second": round(offline, 2)}
    with serving(model, tuple(shlex.split(options))) as (url, process, warm):
        report["seconds_until_warm"] = round(warm, 2)
        closed = []
        for count in clients:
            found = asyncio.run(closed_loop(url, answers, pair, count, seconds))
            closed.append(found | {"of_offline": round(found["per_second"] / offline, 3)})
        report["closed_loop"] = closed
        rate = overload * max(found["per_second"] for found in closed)
        before = memory(process)
        report["open_loop"] = asyncio.run(open_loop(url, answers, pair, rate, 3 * seconds))
        report["server_megabytes"] = {"before_overload": before, "after": memory(process)}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    terminal.use_huge_pages()
    tyro.cli(measure)
