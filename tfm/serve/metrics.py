"""What a service counts, in the text format of Prometheus.

No label holds a text, a key or an address: labels are routes, statuses, models and reasons.
"""

import threading
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfm.serve.queue import DeviceQueue

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds
Labels = tuple[tuple[str, str], ...]


class Histogram:
    """Counts of values up to each of ``_BOUNDS``, by labels."""

    def __init__(self) -> None:
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def add(self, labels: Labels, value: float) -> None:
        """Counts one value."""
        counts = self._counts.setdefault(labels, [0] * (len(_BOUNDS) + 1))
        counts[next((i for i, bound in enumerate(_BOUNDS) if value <= bound), len(_BOUNDS))] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + value

    def lines(self, name: str) -> Iterator[str]:
        """The lines of the text format."""
        for labels, counts in self._counts.items():
            total = 0
            for bound, count in zip((*map(str, _BOUNDS), "+Inf"), counts, strict=True):
                total += count
                yield f"{name}_bucket{_shown((*labels, ('le', bound)))} {total}"
            yield f"{name}_sum{_shown(labels)} {self._sums[labels]:.6f}"
            yield f"{name}_count{_shown(labels)} {total}"


class Metrics:
    """All of a service's metrics; methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: DeviceQueue | None = None
        self._counters: dict[str, Counter[Labels]] = {name: Counter() for name in _COUNTERS}
        self._histograms = {name: Histogram() for name in _HISTOGRAMS}

    def observe_queue(self, queue: "DeviceQueue") -> None:
        """The queue whose length is reported."""
        self._queue = queue

    def requested(self, route: str, status: int, seconds: float) -> None:
        """One request was answered or refused."""
        with self._lock:
            labels = (("route", route), ("status", str(status)))
            self._counters["tfm_requests_total"][labels] += 1
            self._histograms["tfm_request_seconds"].add((("route", route),), seconds)

    def refused(self, status: int) -> None:
        """One request was refused."""
        with self._lock:
            self._counters["tfm_refusals_total"][("status", str(status)),] += 1

    def abandoned(self) -> None:
        """One client left before its answer."""
        with self._lock:
            self._counters["tfm_abandoned_total"][()] += 1

    def translated(self, model: str, texts: int, pieces: int, seconds: float) -> None:
        """The pieces of a request came back from the queue after so many seconds."""
        with self._lock:
            labels = (("model", model),)
            self._counters["tfm_texts_total"][labels] += texts
            self._counters["tfm_pieces_total"][labels] += pieces
            self._histograms["tfm_queue_seconds"].add(labels, seconds)

    def stepped(self, lane: str, pieces: int, seconds: float) -> None:
        """The device worked for so many seconds and finished so many pieces."""
        with self._lock:
            labels = (("lane", lane),)
            self._counters["tfm_batches_total"][labels] += 1
            self._counters["tfm_batch_pieces_total"][labels] += pieces
            self._histograms["tfm_device_seconds"].add(labels, seconds)

    def compiled(self) -> None:
        """One more program is compiled."""
        with self._lock:
            self._counters["tfm_compiled_total"][()] += 1

    def text(self) -> str:
        """Everything, as Prometheus reads it."""
        with self._lock:
            lines = []
            for name, meaning in _COUNTERS.items():
                lines += [f"# HELP {name} {meaning}", f"# TYPE {name} counter"]
                found = self._counters[name] or {(): 0}
                lines += [f"{name}{_shown(labels)} {n}" for labels, n in found.items()]
            for name, meaning in _HISTOGRAMS.items():
                lines += [f"# HELP {name} {meaning}", f"# TYPE {name} histogram"]
                lines += self._histograms[name].lines(name)
            if self._queue is not None:
                lines += ["# HELP tfm_queue_pieces Pieces that wait or run.",
                          "# TYPE tfm_queue_pieces gauge",
                          f"tfm_queue_pieces {self._queue.pending}",
                          "# HELP tfm_warm Whether everything is compiled.",
                          "# TYPE tfm_warm gauge",
                          f"tfm_warm {int(self._queue.warm)}"]  # fmt: skip
        return "\n".join(lines) + "\n"


_COUNTERS = {
    "tfm_requests_total": "Requests by route and status.",
    "tfm_refusals_total": "Requests that were refused, by status.",
    "tfm_abandoned_total": "Requests whose client left before the answer.",
    "tfm_texts_total": "Texts that were translated.",
    "tfm_pieces_total": "Pieces that were translated: texts, or parts of long ones.",
    "tfm_batches_total": "Steps of the device.",
    "tfm_batch_pieces_total": "Pieces that these finished: by step, how full batches are.",
    "tfm_compiled_total": "Compiled programs: constant once the server is warm.",
}
_HISTOGRAMS = {
    "tfm_request_seconds": "From a request's headers to the end of its answer.",
    "tfm_queue_seconds": "From the queue's entry to a request's last piece.",
    "tfm_device_seconds": "Of each step of the device.",
}


def _shown(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}" if labels else ""
