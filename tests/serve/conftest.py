"""A service of small models, behind starlette's test client or a real socket."""

import asyncio
import contextlib
import threading
import time

import httpx
import jax
import pytest
import uvicorn

from tfm.serve import app, connections, models, server
from tfm.serve.metrics import Metrics
from tfm.serve.service import Service
from tfm.serve.settings import Clients, Limits


@pytest.fixture(scope="session")
def pair(untrained):
    """Translators with random weights: lower→upper and, with other weights, upper→lower."""
    there = untrained(data={"source": "lower", "target": "upper"})
    back = untrained(data={"source": "upper", "target": "lower"}, seed=1)
    return there, back


class Running:
    """A server in a thread, on a port of its own.

    Attributes:
      url: of it. client: httpx's client for it. service: behind it. translators: that it serves.
    """

    def __init__(self, translators, limits, clients, any_host=False, folder=None, batch_size=4):
        self.translators = translators
        served = [models.model(t, batch_size, limits.alternatives, folder) for t in translators]
        self.service = Service(models.Models(served), limits, Metrics())
        config = uvicorn.Config(
            app.application(self.service, clients, any_host),
            http=connections.protocol(limits), ws="none", lifespan="on", log_config=None,
            access_log=False, proxy_headers=False, timeout_graceful_shutdown=5,
        )  # fmt: skip
        self.server = server.Server(config, self.service)
        self.socket = server.listen("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        serve = lambda: asyncio.run(self.server.serve([self.socket]))  # noqa: E731
        self.thread = threading.Thread(target=serve)
        # Compiled quickly, as in the tests that ask; the setting is of the whole process.
        jax.config.update("jax_disable_most_optimizations", True)
        self.thread.start()
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def wait(self):
        end = time.monotonic() + 60
        while not self.service.ready:
            assert time.monotonic() < end
            time.sleep(0.01)
        jax.config.update("jax_disable_most_optimizations", False)
        return self

    def stop(self):
        self.client.close()
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()
        assert self.service.stop(20)


@pytest.fixture(scope="session")
def running(pair):
    """``with running(limits=..., clients=...) as server:`` starts one and waits for it."""

    @contextlib.contextmanager
    def start(translators=None, limits=None, clients=None, warm=True, **more):
        limits, clients = Limits(**limits or {}), Clients(**clients or {})
        server = Running(translators or pair, limits, clients, **more)
        try:
            yield server.wait() if warm else server
        finally:
            server.stop()

    return start


@pytest.fixture(scope="session")
def served(running):
    """One server that many tests share."""
    with running() as server:
        yield server
