"""A file that only one of several processes can create, on a local disk or in a bucket.

Its content names the holder, and the time of its last refreshing shows whether the holder lives.
``training/lock.py`` decides by them.
"""

import contextlib
import email.utils
import fcntl
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from etils import epath

from tfm import storage


class Found(NamedTuple):
    """A lock file as it was read.

    Attributes:
      content: what its creator wrote.
      version: what tells this file from an earlier or later one of the same name.
      refreshed: another value after each refresh.
      age: seconds since it was created or last refreshed, by the clock of the storage, which is the
        same for all hosts.
    """

    content: bytes
    version: Any
    refreshed: Any
    age: float


class LockFile(Protocol):
    """What a local disk and a bucket offer alike; errors of the storage are raised as they are."""

    def create(self, content: bytes) -> Any | None:
        """Creates the file and returns its version; None if there is one already."""

    def read(self) -> Found | None:
        """The file; None if there is none."""

    def refresh(self, version: Any) -> bool:
        """Sets its time to now; False if there is no file of this version."""

    def remove(self, version: Any) -> bool:
        """Removes it; False if there is no file of this version."""


def at(path: epath.Path) -> LockFile:
    """The lock file of this path; creates nothing."""
    return _InBucket(path) if storage.in_bucket(path) else _OnDisk(path)


class _OnDisk:
    """Created with O_EXCL, which is atomic on local disks and on NFS; its mtime is the heartbeat.

    Refreshing writes no data, so that it works on a full disk. The version is the content, which
    its creator must make unique.
    """

    def __init__(self, path: epath.Path) -> None:
        self._path = os.fspath(path)

    def create(self, content: bytes) -> bytes | None:
        try:
            handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return None
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
        except BaseException:
            os.unlink(self._path)
            raise
        return content

    def read(self) -> Found | None:
        try:
            with open(self._path, "rb") as file:
                content, changed = file.read(), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None
        return Found(content, content, changed, self._now() - changed)

    def refresh(self, version: bytes) -> bool:
        found = self.read()
        if found is None or found.version != version:
            return False
        os.utime(self._path)
        return True

    def remove(self, version: bytes) -> bool:
        """Removes the file by renaming it first, for only one process can rename a file.

        Between the look and the renaming, another process can have replaced the file by its own.
        Of the processes of one machine only one at a time is here, so that this cannot happen.
        Those of several machines that take over a lock within milliseconds put back what they
        renamed.
        """
        with self._one_at_a_time():
            found = self.read()
            if found is None or found.version != version:
                return False
            moved = f"{self._path}.{secrets.token_hex(8)}"
            try:
                os.rename(self._path, moved)
            except FileNotFoundError:
                return False
            with open(moved, "rb") as file:
                content = file.read()
            if content != version:
                self.create(content)
            os.unlink(moved)
            return content == version

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Waits for the other processes of this machine that remove the file."""
        folder = os.open(os.path.dirname(self._path), os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network disks do not support it
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _now(self) -> float:
        """The time by the clock that gives files their mtime: of a network disk, the server's."""
        try:
            with tempfile.TemporaryFile(dir=os.path.dirname(self._path)) as probe:
                return os.fstat(probe.fileno()).st_mtime
        except OSError:
            return time.time()


class _InBucket:
    """An object that is created, refreshed and removed on conditions that the server checks.

    The version is the object's generation, which the conditions name: creation asks for generation
    0, "no object yet". A refresh changes the object's metadata, and with it the time of its last
    update.
    """

    def __init__(self, path: epath.Path) -> None:
        import fsspec

        self._files: Any = fsspec.filesystem("gcs")
        self._path = os.fspath(path)
        self._bucket, _, self._key = self._path.removeprefix("gs://").partition("/")

    def create(self, content: bytes) -> str | None:
        try:
            self._files.pipe_file(self._path, content, mode="create")
        except FileNotFoundError as error:
            raise OSError(f"there is no bucket {self._bucket}") from error
        except FileExistsError:  # perhaps our own: gcsfs repeats a request without an answer
            pass
        found = self.read()
        return found.version if found is not None and found.content == content else None

    def read(self) -> Found | None:
        try:
            # In this order: if the object changes in between, then by the old generation nobody
            # can remove the new one.
            metadata, now = self._metadata()
            content = self._files.cat_file(self._path)
        except FileNotFoundError:
            return None
        updated = datetime.fromisoformat(metadata["updated"])
        return Found(
            content,
            metadata["generation"],
            metadata["metageneration"],
            (now - updated).total_seconds(),
        )

    def refresh(self, version: str) -> bool:
        body = {"metadata": {"refreshed": str(time.time())}}
        return self._changed("PATCH", version, json=body)

    def remove(self, version: str) -> bool:
        return self._changed("DELETE", version)

    def _metadata(self) -> tuple[dict[str, Any], datetime]:
        """The object's metadata, and the time by the server's clock."""
        headers, body = self._files.call("GET", "b/{}/o/{}", self._bucket, self._key)
        return json.loads(body), email.utils.parsedate_to_datetime(headers["Date"])

    def _changed(self, method: str, version: str, **request: Any) -> bool:
        try:
            self._files.call(
                method, "b/{}/o/{}", self._bucket, self._key, ifGenerationMatch=version, **request
            )
        except (FileNotFoundError, FileExistsError):  # gone; the latter is "condition not met"
            return False
        return True
