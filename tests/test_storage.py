import errno
import importlib.util
import logging
import os
import resource
from types import SimpleNamespace

import pytest

from tfm import storage, terminal


@pytest.fixture
def full_disk():
    """``full_disk(True)`` makes the kernel refuse to extend files, as on a full disk."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)

    def switch(on):
        resource.setrlimit(resource.RLIMIT_FSIZE, (10 if on else most, most))

    yield switch
    switch(False)


def test_write_atomically_leaves_the_old_file_when_it_fails(tmp_path, full_disk):
    path = tmp_path / "new" / "file"
    storage.write_atomically(path, b"old")
    full_disk(True)
    with pytest.raises(OSError, match=f"too large: '{path}'"):
        storage.write_atomically(path, b"new and long")
    assert [(each.name, each.read_bytes()) for each in path.parent.iterdir()] == [("file", b"old")]


def test_what_cannot_be_written_is_known_before_there_is_anything_to_write(tmp_path):
    (tmp_path / "file").write_text("old")
    os.mkfifo(tmp_path / "pipe")
    for good in ("file", "new"):
        storage.check_output(tmp_path / good)
    for path, message in (
        ("", "is a folder"),
        ("pipe", "is no regular file"),
        ("gone/new", "cannot be written, .*gone is no folder"),
        ("file/new", "cannot be written, .*file is no folder"),
        ("n" * 300, "File name too long"),
    ):
        with pytest.raises(OSError, match=message):
            storage.check_output(tmp_path / path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "pipe"]
    assert (tmp_path / "file").read_text() == "old"


def test_append_file_loses_nothing_on_a_full_disk(tmp_path, full_disk, caplog):
    path = tmp_path / "folder" / "metrics.tsv"
    for text in ("1234\n", "5678\n"):
        file = storage.AppendFile(path)
        file.write(text)
        file.flush()
        assert path.read_text().endswith(text)
    full_disk(True)
    for i in range(3):
        file.write(f"line {i}\n")
        file.flush()
    (message,) = caplog.messages
    assert message.startswith(f"{path}: not written for now: ") and "too large" in message
    full_disk(False)
    file.write("你好\n")
    file.close()
    assert path.read_text() == "1234\n5678\nline 0\nline 1\nline 2\n你好\n"


def test_log_that_cannot_be_written_is_reported_once(tmp_path, full_disk, capfd):
    path, log = tmp_path / "log.txt", logging.getLogger("tfm.test")
    with terminal.log_to_file(path):
        full_disk(True)
        for i in range(20):
            log.info("line %d", i)
        full_disk(False)
    assert "Traceback" not in capfd.readouterr().err
    lines = path.read_text().splitlines()
    assert [line.split()[-1] for line in lines if " line " in line] == [str(i) for i in range(20)]
    assert sum("not written for now" in line for line in lines) == 1


SYSTEM = "INTERNAL: Error writing x [os_error_code='{}'] [file='x']"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "full"),
        (ValueError(SYSTEM.format(errno.ENOSPC)), "full"),
        (ValueError(SYSTEM.format(errno.EDQUOT)), "full"),
        (OSError(errno.EIO, "Input/output error"), "transient"),
        (ValueError(SYSTEM.format(errno.ESTALE)), "transient"),
        (ConnectionResetError("peer"), "transient"),
        (TimeoutError("waiting for a barrier"), "transient"),
        (ValueError("UNAVAILABLE: Error writing gs://x: HTTP response code: 503"), "transient"),
        (SimpleNamespace(code=429), "transient"),
        (SimpleNamespace(response=SimpleNamespace(status_code=503)), "transient"),
        (SimpleNamespace(code=403), "permanent"),
        (OSError(errno.EACCES, "Permission denied"), "permanent"),
        (OSError(errno.EROFS, "Read-only file system"), "permanent"),
        (ValueError("FAILED_PRECONDITION: dtype UNAVAILABLE"), "permanent"),
        (KeyError("no code"), "permanent"),
    ],
)
def test_kinds_of_storage_errors(error, kind):
    assert storage.error_kind(error) == kind


def test_reason_of_a_system_error_is_the_systems_message():
    """tensorstore writes other notes before or after the code, in varying order."""
    for notes in ("[os_error_code='28']", "[spec='{}'] [os_error_code='28'] [file='x']"):
        error = ValueError(f"OUT_OF_RANGE: Error writing x: No space left on device {notes}")
        assert storage.reason(error) == "No space left on device"
    assert storage.reason(KeyError("no code")) == "KeyError: 'no code'"
    assert len(storage.reason(ValueError("long " * 100))) <= 160


def test_paths_in_buckets(monkeypatch):
    assert storage.path("runs/a") == storage.path(os.path.join("runs", "a"))
    with pytest.raises(ValueError, match=r"s3://b/text.zh: .* local paths and gs://") as error:
        storage.path("s3://b/text.zh")
    assert "checkpoint" not in str(error.value)  # it may be the path of anything
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"gs://b/run: .* pip install 'tfm\[bucket\]'"):
        storage.path("gs://b/run")
