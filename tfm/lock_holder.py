"""Who holds a lock file (``lock_file``), and whether that process still lives."""

import dataclasses
import json
import os
import secrets
import socket
import subprocess
import time
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that holds a lock, as the lock file describes it in JSON.

    Attributes:
      pid: its number.
      host: the name of its machine, for people.
      machine: identifies the running system that ``pid`` is a number of: the machine since it was
        started, and the container.
      process_start: when the process started, to tell it from a later one with the same number.
      since: when it took the lock.
      token: a random number, different for each lock.
    """

    pid: int
    host: str
    machine: str
    process_start: str
    since: str
    token: str

    @classmethod
    def read(cls, content: bytes) -> "Holder | None":
        """The holder that a lock file names; None if the file is not complete."""
        try:
            values = json.loads(content)
            texts = [f.name for f in dataclasses.fields(cls) if f.name != "pid"]
            return cls(pid=int(values["pid"]), **{name: str(values[name]) for name in texts})
        except (ValueError, TypeError, KeyError):
            return None

    def is_alive(self) -> bool | None:
        """Whether the process still runs; None if that cannot be found out from here."""
        if self.machine != this_machine():
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):  # of another user; of another system
            pass
        start = _start_of(self.pid)
        if start is None or (start and not self.process_start):
            return None
        return bool(start) and start == self.process_start

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host} since {self.since}"


def describe_this_process() -> bytes:
    """The content of a new lock of this process: a ``Holder`` as JSON."""
    holder = Holder(
        pid=os.getpid(),
        host=socket.gethostname(),
        machine=this_machine(),
        process_start=_start_of(os.getpid()) or "",
        since=time.strftime("%Y-%m-%d %H:%M:%S %z"),
        token=secrets.token_hex(8),
    )
    return json.dumps(dataclasses.asdict(holder), indent=2).encode() + b"\n"


def this_machine() -> str:
    """Identifies what a pid is a number of; equal after no restart, and in no two containers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return socket.gethostname()


def _start_of(pid: int) -> str | None:
    """When a process started, in the system's own form; "" if it has ended, None if unknown."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _start_by_ps(pid)
    fields = status.rpartition(")")[2].split()  # the name before it may contain anything
    return "" if fields[0] in "ZX" else fields[19]  # zombies have ended; starttime, proc(5)


def _start_by_ps(pid: int) -> str | None:
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return None
