import errno
import importlib.util
import logging
import os
import resource
from types import SimpleNamespace

import pytest

from tfm import storage, terminal


@pytest.fixture
def no_room():
    """``no_room(True)``: the kernel refuses to let a file grow, as a full disk does; and back."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)

    def switch(on):
        resource.setrlimit(resource.RLIMIT_FSIZE, (10 if on else most, most))

    yield switch
    switch(False)


def test_write_atomically_leaves_the_old_file_when_it_fails(tmp_path, no_room):
    path = tmp_path / "new" / "file"
    storage.write_atomically(path, b"old")
    no_room(True)
    with pytest.raises(OSError, match=f"too large: '{path}'"):
        storage.write_atomically(path, b"new and long")
    assert [(each.name, each.read_bytes()) for each in path.parent.iterdir()] == [("file", b"old")]


def test_a_growing_file_survives_a_full_disk_and_loses_nothing(tmp_path, no_room, caplog):
    path = tmp_path / "folder" / "metrics.tsv"
    for text in ("1234\n", "5678\n"):
        file = storage.Growing(path)
        file.write(text)
        file.flush()
        assert path.read_text().endswith(text)
    no_room(True)
    for i in range(3):
        file.write(f"line {i}\n")
        file.flush()
    (message,) = caplog.messages
    assert message.startswith(f"{path}: not written for now: ") and "too large" in message
    no_room(False)
    file.write("你好\n")
    file.close()
    assert path.read_text() == "1234\n5678\nline 0\nline 1\nline 2\n你好\n"


def test_a_log_that_cannot_be_written_says_so_once(tmp_path, no_room, capfd):
    path, log = tmp_path / "log.txt", logging.getLogger("tfm.test")
    with terminal.log_to_file(path):
        no_room(True)
        for i in range(20):
            log.info("line %d", i)
        no_room(False)
    assert "Traceback" not in capfd.readouterr().err
    lines = path.read_text().splitlines()
    assert [line.split()[-1] for line in lines if " line " in line] == [str(i) for i in range(20)]
    assert sum("not written for now" in line for line in lines) == 1


SYSTEM = "INTERNAL: Error writing x [os_error_code='{}'] [file='x']"


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "full"),
        (ValueError(SYSTEM.format(errno.ENOSPC)), "full"),
        (ValueError(SYSTEM.format(errno.EDQUOT)), "full"),
        (OSError(errno.EIO, "Input/output error"), "passing"),
        (ValueError(SYSTEM.format(errno.ESTALE)), "passing"),
        (ConnectionResetError("peer"), "passing"),
        (TimeoutError("waiting for a barrier"), "passing"),
        (ValueError("UNAVAILABLE: Error writing gs://x: HTTP response code: 503"), "passing"),
        (SimpleNamespace(code=429), "passing"),
        (SimpleNamespace(response=SimpleNamespace(status_code=503)), "passing"),
        (SimpleNamespace(code=403), "lasting"),
        (OSError(errno.EACCES, "Permission denied"), "lasting"),
        (OSError(errno.EROFS, "Read-only file system"), "lasting"),
        (ValueError("FAILED_PRECONDITION: dtype UNAVAILABLE"), "lasting"),
        (KeyError("no code"), "lasting"),
    ],
)
def test_what_is_worth_another_try(error, trouble):
    assert storage.trouble(error) == trouble


def test_of_a_system_error_only_the_reason_is_told():
    """tensorstore puts other notes before or after the code, from one time to the next."""
    for notes in ("[os_error_code='28']", "[spec='{}'] [os_error_code='28'] [file='x']"):
        error = ValueError(f"OUT_OF_RANGE: Error writing x: No space left on device {notes}")
        assert storage.reason(error) == "No space left on device"
    assert storage.reason(KeyError("no code")) == "KeyError: 'no code'"
    assert len(storage.reason(ValueError("long " * 100))) <= 160


def test_names_of_buckets(monkeypatch):
    assert storage.path("runs/a") == storage.path(os.path.join("runs", "a"))
    with pytest.raises(ValueError, match=r"s3://b/run: .* gs:// buckets only; mount another kind"):
        storage.path("s3://b/run")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"gs://b/run: .* pip install 'tfm\[bucket\]'"):
        storage.path("gs://b/run")
