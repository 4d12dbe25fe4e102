"""Files on a local disk or in a bucket: paths, atomic writes, appending, kinds of errors."""

import errno
import importlib.util
import logging
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Literal

from etils import epath

ErrorKind = Literal["full", "transient", "permanent"]

_log = logging.getLogger(__name__)

_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TRANSIENT_ERRNOS = {
    errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EPIPE, errno.ESTALE, errno.ETIMEDOUT,
    errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ENETDOWN, errno.ENETRESET, errno.ENETUNREACH,
}  # fmt: skip
_TRANSIENT_HTTP = {408, 429, 500, 502, 503, 504}
_TRANSIENT_STATUS = re.compile("(ABORTED|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|UNAVAILABLE)\\b")


def path(name: str | os.PathLike) -> epath.Path:
    """A path on a local disk, or in a bucket of Google Cloud Storage ("gs://BUCKET/...").

    Raises:
      ValueError: another kind of bucket, or the packages for buckets are not installed.
    """
    text = os.fspath(name)
    scheme, mark, _ = text.partition("://")
    if mark and scheme != "gs":
        raise ValueError(
            f"{text}: only local paths and gs:// buckets are supported; mount other storage as a "
            "local folder"
        )
    if mark and importlib.util.find_spec("gcsfs") is None:
        raise ValueError(f"{text}: buckets need more packages: pip install 'tfm[bucket]'")
    return epath.Path(name).expanduser()


def check_output(path: Path) -> None:
    """Checks that a local file can be written at ``path``, before time is spent on its content.

    Raises:
      OSError: it is a folder or another thing that is no file, its folder does not exist, or no
        file can be created there; the message names the path.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; name a file to write to")
    if path.exists() and not path.is_file():  # the finished file would replace a device or pipe
        raise OSError(f"{path}: is no regular file; name a file to write to")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: cannot be written, {path.parent} is no folder")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(f"{path}: cannot be written: {reason(error)}") from error


def make_folder(folder: str | os.PathLike, what: str) -> None:
    """Creates a folder, with its parents, if it is absent; in a bucket there are none.

    Args:
      what: the beginning of an error message: what the folder is for, and its name.

    Raises:
      OSError: it cannot be created, because it or a parent is a file, say.
    """
    path = epath.Path(folder)
    if in_bucket(path):
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        file = next((p for p in (path, *path.parents) if p.exists() and not p.is_dir()), path)
        raise NotADirectoryError(
            f"{what}: {file} is a file: name a folder, or move the file away"
        ) from error
    except OSError as error:
        raise OSError(f"{what}: cannot be created: {reason(error)}") from error


def write_atomically(path: str | os.PathLike, content: bytes | bytearray) -> None:
    """Writes a file completely or not at all, even if the process is killed.

    Raises:
      OSError: the file cannot be written; the message names it.
    """
    target = epath.Path(path)
    if in_bucket(target):  # an object appears only when its upload is complete
        try:
            target.write_bytes(content)
        except Exception as error:  # each client library has its own
            raise OSError(f"{path}: {reason(error)}") from error
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)  # mkstemp makes private files; others may read a cache
        os.replace(temporary, target)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError):  # the error of a full disk names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


class AppendFile:
    """A file that is appended to, such as a log.

    A failed write, on a full disk say, is reported once and its content kept for the next
    ``flush``, so that a run does not end because of its log. Objects in a bucket cannot be appended
    to: there the whole file is written again, at most every ``pause`` seconds and when closed.
    """

    def __init__(self, path: str | os.PathLike, pause: float = 60.0) -> None:
        """Opens the file for appending; it is created if absent."""
        self._path, self._pause, self._failing = epath.Path(path), pause, False
        self._unwritten, self._last_write = bytearray(), time.monotonic()
        self._file = None
        if in_bucket(self._path):
            self._written = bytearray(self._path.read_bytes() if self._path.exists() else b"")
        else:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115

    def write(self, content: str | bytes) -> None:
        """Buffers text (as UTF-8) or bytes until the next ``flush``."""
        self._unwritten += content.encode() if isinstance(content, str) else content

    def flush(self, now: bool = False) -> None:
        """Writes what is buffered; in a bucket only every ``pause`` seconds, unless ``now``."""
        if now or self._file or time.monotonic() - self._last_write >= self._pause:
            self._write()

    def close(self) -> None:
        """Writes what is buffered and closes the file."""
        self._write()
        if self._file:
            self._file.close()

    def _write(self) -> None:
        self._last_write = time.monotonic()
        try:
            if self._file:
                while self._unwritten:
                    del self._unwritten[: self._file.write(self._unwritten)]
            elif self._unwritten:
                self._path.write_bytes(bytes(self._written + self._unwritten))
                self._written += self._unwritten
                self._unwritten.clear()
        except Exception as error:  # each storage has its own
            failing, self._failing = self._failing, True
            if not failing:  # the warning itself is written here where this file is the log
                _log.warning(f"{self._path}: not written for now: {error}")
        else:
            self._failing = False


def error_kind(error: BaseException) -> ErrorKind:
    """Whether a storage error means a full disk, may go away when retried, or is permanent.

    Full: no space left, a quota or a limit on file size. Transient: input/output errors, time-outs,
    lost connections, and a server's answers under load (HTTP 408, 429, 5xx).
    """
    code = _system_code(error)
    if code in _FULL_ERRNOS:
        return "full"
    answers = (error, getattr(error, "response", None))
    http = {getattr(a, name, None) for a in answers for name in ("code", "status", "status_code")}
    transient = (
        code in _TRANSIENT_ERRNOS
        or isinstance(error, ConnectionError | TimeoutError)
        or any(isinstance(answer, int) and answer in _TRANSIENT_HTTP for answer in http)
        or _TRANSIENT_STATUS.match(str(error))
    )
    return "transient" if transient else "permanent"


def reason(error: BaseException) -> str:
    """A short description of an error; for a system error, the system's message alone."""
    code = _system_code(error)
    text = os.strerror(code) if code else f"{type(error).__name__}: {error}"
    text = " ".join(text.split())
    return text if len(text) <= 160 else text[:158] + " …"


def _system_code(error: BaseException) -> int | None:
    """The errno, if any; tensorstore writes it into its message, among other notes."""
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return int(code[1])
    return error.errno if isinstance(error, OSError) else None


def in_bucket(path: epath.Path) -> bool:
    return "://" in str(path)
