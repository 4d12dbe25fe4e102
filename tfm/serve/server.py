"""The process: sockets, signals, and the way down."""

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from tfm import signals
from tfm.serve.app import application
from tfm.serve.connections import protocol
from tfm.serve.metrics import Metrics
from tfm.serve.models import Models
from tfm.serve.service import Service
from tfm.serve.settings import Clients, Limits

_log = logging.getLogger(__name__)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
      OSError: the address is in use, or not of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise OSError(f"--host {host} --port {port}: {error.strerror or error}") from error


def local(host: str) -> bool:
    """Whether an address is reachable from this machine alone."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def run(
    models: Models,
    limits: Limits,
    clients: Clients,
    listening: socket.socket,
    host: str,
    on_warm: Callable[[], None] = lambda: None,
) -> int:
    """Serves until SIGTERM or Ctrl-C; then requests that are running are finished.

    Args:
      on_warm: called, in another thread, when everything is compiled.

    Returns:
      the exit code: 0 after SIGTERM, 130 after Ctrl-C, 1 if the device failed.
    """
    _keep_texts_out_of_the_log()
    servers: list[Server] = []

    def fail() -> None:
        for server in servers:
            server.fail()

    service = Service(models, limits, Metrics(), on_failure=fail)
    app = application(service, clients, any_host=not local(host))
    config = uvicorn.Config(
        app,
        http=protocol(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=max(1, round(limits.header_seconds)),
        timeout_graceful_shutdown=max(1, round(limits.drain_seconds)),
        h11_max_incomplete_event_size=16 * 1024,
    )
    server = Server(config, service)
    servers.append(server)
    threading.Thread(target=_tell, args=(service, on_warm), daemon=True).start()
    asyncio.run(server.serve([listening]))
    if not service.stop(limits.drain_seconds):
        _log.warning("the device is still at work; leaving")
    return server.exit_code


class Server(uvicorn.Server):
    """uvicorn's server, which tells its service when it ends and what exit code that means."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service, self.exit_code = service, 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On a signal. A second Ctrl-C waits for nothing."""
        if not self.should_exit:
            self.exit_code = signals.exit_code(sig) if sig == signal.SIGINT else 0
            self._service.draining = True
            _log.info("%s: finishing what is running", signal.Signals(sig).name)
        super().handle_exit(sig, frame)

    def fail(self) -> None:
        """The device failed: the process ends, so that whoever started it starts it again."""
        self.exit_code, self.should_exit = 1, True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles signals here; uvicorn's own raises them once more at the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {n: signal.signal(n, self.handle_exit) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _tell(service: Service, on_warm: Callable[[], None]) -> None:
    while not service.queue.warm:
        if service.draining or service.queue.failure:
            return
        threading.Event().wait(0.05)
    on_warm()


def _keep_texts_out_of_the_log() -> None:
    """The translator's warnings have texts in them: of these only that there was one is logged."""

    def without_text(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            record.msg, record.args = f"a warning at {record.module}:{record.lineno}", ()
        return True

    logging.getLogger("tfm.translator.translator").addFilter(without_text)
