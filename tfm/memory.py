"""How much memory is free, on a device or on this machine."""

import contextlib
import os
from pathlib import Path

import jax

_CGROUPS = (  # of a container: limit, usage and the file with what of it can be given back
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def free(device: jax.Device) -> int | None:
    """Bytes that can still be allocated on a device; None if it does not say."""
    if device.platform == "cpu":
        return free_on_machine()
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return None
    return stats["bytes_limit"] - stats.get("bytes_in_use", 0)


def free_on_machine(root: Path = Path("/")) -> int | None:
    """Bytes that a process can still allocate here: of the machine, or of its container if less.

    Memory that only caches files counts as free, and so does swap space.
    """
    found = [_free_by_kernel(root), *(_free_in_cgroup(root, names) for names in _CGROUPS)]
    known = [x for x in found if x is not None]
    return max(0, min(known)) if known else None


def in_words(size: float) -> str:
    """Bytes as text: "1.5 GiB", "20 MiB"."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"


def _free_by_kernel(root: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        sizes = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
        return 1024 * (sizes["MemAvailable"] + sizes.get("SwapFree", 0))
    with contextlib.suppress(OSError, ValueError, AttributeError):  # not Linux: all that it has
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _free_in_cgroup(root: Path, names: tuple[str, str, str]) -> int | None:
    limit, usage, statistics = (root / "sys/fs/cgroup" / name for name in names)
    with contextlib.suppress(OSError, ValueError):  # no such group, or its limit is "max"
        counts = dict(line.split() for line in statistics.read_text().splitlines())
        cached = sum(
            int(counts.get(f"total_{name}", counts.get(name, 0)))
            for name in ("active_file", "inactive_file")
        )
        return int(limit.read_text()) - int(usage.read_text()) + cached
    return None
