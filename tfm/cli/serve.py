"""``tfm serve``: trained models behind HTTP, with a page."""

import itertools
import logging
import os
import webbrowser
from pathlib import Path
from typing import Annotated

import tyro

from tfm import ranges
from tfm.config import SENTENCE_LENGTH
from tfm.ranges import Range
from tfm.serve.settings import Clients, Limits

_log = logging.getLogger("tfm")

_KEYS_VARIABLE = "TFM_API_KEYS"
_LIMITS = Limits()


def serve(
    model: Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction] = (),
    demo: bool = False,
    host: str = "127.0.0.1",
    port: Annotated[int, Range(least=0, most=65535, note="0 takes any that is free")] = 5000,
    open_page: Annotated[bool, tyro.conf.arg(name="open")] = False,
    batch_size: Annotated[int, Range(least=1, most=1024)] = 16,
    source_length: Annotated[int, SENTENCE_LENGTH] | None = None,
    api_keys: Path | None = None,
    rate: Annotated[float, Range(least=0, most=1e6, note="0 is no limit")] = 0.0,
    proxies: tuple[str, ...] = (),
    cors_origins: tuple[str, ...] = (),
    allowed_hosts: tuple[str, ...] = (),
    limits: Annotated[Limits, tyro.conf.arg(name="")] = _LIMITS,
) -> int:
    """Serve translations over HTTP, with a page in the browser, until SIGTERM or Ctrl-C.

    Speaks its own API (/v1/...), LibreTranslate's, DeepL's (/v2/...), and those of Immersive
    Translate (/immersive) and KISS Translator (/kiss). A model searches with the settings of its
    run, but decodes nothing again (--guard off), since that would compile; everything is compiled
    before the first request is taken.

    Args:
        model: Folders of runs, each for another pair of languages.
        demo: Serve the model of ``tfm demo`` in runs/demo; if it is not there, train it first.
        host: Address to listen at. Only this machine can reach the default.
        port: Port to listen at.
        open_page: Open the page in a browser.
        batch_size: Pieces of text that run together.
        source_length: The most tokens of a piece; a longer text is split. The run's own by default.
        api_keys: File of API keys, one a line; or put them into the variable TFM_API_KEYS,
            separated by spaces. Without keys, anybody who reaches the server may ask.
        rate: Requests a minute of a key, or of an address where there are no keys; 0 is no limit.
        proxies: Addresses or networks of proxies whose X-Forwarded-For is believed.
        cors_origins: Origins whose pages may read answers ("https://example.org").
        allowed_hosts: Further names that a Host header may have while only this machine can reach
            the server, as behind a proxy.
        limits: Bounds of requests.
    """
    try:
        from tfm.serve import access, models, server
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ValueError(f"{error.name} is not installed: pip install 'tfm[serve]'") from error
    from tfm import translator

    folders = list(itertools.chain(*model))
    if not folders and not demo:
        raise ValueError("no model: give --model RUN, or --demo")
    keys = access.read_keys(api_keys) if api_keys else ()
    keys += tuple(os.environ.get(_KEYS_VARIABLE, "").split())
    clients = Clients(keys, rate, proxies, cors_origins, allowed_hosts)
    ranges.check(clients)
    access.Access(clients)  # refused before models are read
    if demo:
        folders.insert(0, str(_demo()))
    _keep_compiled()
    with server.listen(host, port) as listening:
        options = {} if source_length is None else {"source_length": source_length}
        served = [
            models.model(
                translator.load(folder, **options), batch_size, limits.alternatives, folder, options
            )
            for folder in folders
        ]
        name = f"[{host}]" if ":" in host else host
        url = f"http://{name}:{listening.getsockname()[1]}/"
        if not server.local(host) and not keys:
            _log.warning("%s can be reached from other machines, and needs no API key", url)
        _log.info("%s answers 503 until its models are compiled", url)

        def warm() -> None:
            _log.info("%s is ready", url)
            if open_page:
                webbrowser.open(url)

        return server.run(models.Models(served), limits, clients, listening, host, warm)


def _demo() -> Path:
    """The folder of the demo's model, trained if it is not there."""
    from tfm import demo
    from tfm.run_folder import RunFolder

    folder = Path("runs/demo")
    if not RunFolder(folder).best.is_dir():
        code = demo.run(folder, 5.0)
        if code:
            raise SystemExit(code)
    return folder


def _keep_compiled() -> None:
    """Compiled programs are kept for the next start, unless the environment says where."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base) / "tfm" / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _log.warning("compiled programs are not kept: %s", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
