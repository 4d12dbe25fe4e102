"""The files of a run, on a local disk or in a bucket: named, written and grown in one way each."""

import errno
import importlib.util
import logging
import os
import re
import tempfile
import time
from typing import Literal

from etils import epath

Trouble = Literal["full", "passing", "lasting"]

_log = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PASSING = {
    errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EPIPE, errno.ESTALE, errno.ETIMEDOUT,
    errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH,
}  # fmt: skip
_PASSING_HTTP = {408, 429, 500, 502, 503, 504}
_PASSING_STATUS = re.compile("(ABORTED|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|UNAVAILABLE)\\b")


def path(name: str | os.PathLike) -> epath.Path:
    """A path on a local disk, or in a bucket of Google Cloud Storage ("gs://BUCKET/...").

    Raises:
      ValueError: another kind of bucket, or the packages for buckets are not installed.
    """
    text = os.fspath(name)
    scheme, mark, _ = text.partition("://")
    if mark and scheme != "gs":
        raise ValueError(
            f"{text}: checkpoints can be kept in gs:// buckets only; mount another kind as a folder"
        )
    if mark and importlib.util.find_spec("gcsfs") is None:
        raise ValueError(f"{text}: buckets need more packages: pip install 'tfm[bucket]'")
    return epath.Path(name).expanduser()


def write_atomically(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file that is either whole or absent, even if the process is killed.

    Raises:
      OSError: it cannot be written; the message names the file.
    """
    path = epath.Path(path)
    if _in_bucket(path):  # an object comes into being when it is whole
        try:
            path.write_bytes(content)
        except Exception as error:  # of whatever client
            raise OSError(f"{path}: {reason(error)}") from error
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)  # mkstemp makes private files; a cache may be shared.
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError):  # a full disk does not say which file was too much
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


class Growing:
    """A file to which is added, such as a log.

    What cannot be written, on a full disk say, is reported once and kept for the next ``flush``:
    a run does not die of its log. A bucket's objects cannot grow: there all of it is written anew,
    at most every ``pause`` seconds and when closed.
    """

    def __init__(self, path: str | os.PathLike, pause: float = 60.0) -> None:
        """Opens the file, made if absent, to add to what it holds."""
        self._path, self._pause, self._failing = epath.Path(path), pause, False
        self._waiting, self._written = bytearray(), time.monotonic()
        self._file = None
        if _in_bucket(self._path):
            self._all = bytearray(self._path.read_bytes() if self._path.exists() else b"")
        else:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115

    def write(self, content: str | bytes) -> None:
        """Adds text (as UTF-8) or bytes, to be written by the next ``flush``."""
        self._waiting += content.encode() if isinstance(content, str) else content

    def flush(self, now: bool = False) -> None:
        """Writes what was added; in a bucket only once in a while, unless ``now``."""
        if now or self._file or time.monotonic() - self._written >= self._pause:
            self._write()

    def close(self) -> None:
        """Writes what was added, and ends."""
        self._write()
        if self._file:
            self._file.close()

    def _write(self) -> None:
        self._written = time.monotonic()
        try:
            if self._file:
                while self._waiting:
                    del self._waiting[: self._file.write(self._waiting)]
            elif self._waiting:
                self._path.write_bytes(bytes(self._all + self._waiting))
                self._all += self._waiting
                self._waiting.clear()
        except Exception as error:  # from whatever storage
            failing, self._failing = self._failing, True
            if not failing:  # the warning may come back here, if this is the log
                _log.warning(f"{self._path}: not written for now: {error}")
        else:
            self._failing = False


def trouble(error: BaseException) -> Trouble:
    """What an error of storage calls for: "full" room, "passing" patience, "lasting" a person.

    Full are a disk, a quota and a limit on file size. Passing are input/output errors, time-outs,
    lost connections, and what a server answers when it has too much to do (HTTP 408, 429, 5xx).
    """
    code = _system_code(error)
    if code in _FULL:
        return "full"
    answers = (error, getattr(error, "response", None))
    http = {getattr(a, name, None) for a in answers for name in ("code", "status", "status_code")}
    passing = (
        code in _PASSING
        or isinstance(error, ConnectionError | TimeoutError)
        or any(isinstance(answer, int) and answer in _PASSING_HTTP for answer in http)
        or _PASSING_STATUS.match(str(error))
    )
    return "passing" if passing else "lasting"


def reason(error: BaseException) -> str:
    """An error in a few words: of a system error only what the system says."""
    code = _system_code(error)
    text = os.strerror(code) if code else f"{type(error).__name__}: {error}"
    text = " ".join(text.split())
    return text if len(text) <= 160 else text[:158] + " …"


def _system_code(error: BaseException) -> int | None:
    """The errno; tensorstore puts it among other notes of the message."""
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return int(code[1])
    return error.errno if isinstance(error, OSError) else None


def _in_bucket(path: epath.Path) -> bool:
    return "://" in str(path)
