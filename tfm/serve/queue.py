"""One thread that owns the device, behind a bounded queue of pieces.

A piece is a text, or a part of one that is too long for the model. Pieces of one lane (a model with
its settings of search) and of one kind (a padded length) run together. The order is fair among
requests: the first piece of a new request goes before the second one of all others.
"""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tfm import signals
from tfm.serve.refusal import Refusal

_log = logging.getLogger(__name__)

_SMOOTHING = 0.2  # the weight of the newest measurement of the rate


@dataclass(eq=False)
class Piece:
    """One text for the device.

    Attributes:
      lane: the name of the backend that translates it.
      kind: pieces of the same lane and kind can run together; see ``Backend.kind``.
      done: called once, on the device's thread, with what was found or the exception.
      n: how many translations.
      annotate: whether alignment and probabilities are wanted too.
    """

    text: str
    lane: str
    kind: Hashable
    done: Callable[[Any], None]
    n: int = 1
    annotate: bool = False
    arrived: float = field(default_factory=time.monotonic)
    state: str = "new"  # waiting, running, done, cancelled


class Backend(Protocol):
    """What runs the pieces of a lane: plain batches, or an engine of continuous batching.

    Only ``kind`` is called outside the device's thread.
    """

    def kind(self, text: str) -> Hashable:
        """What a text has in common with those that it can run with."""

    def warm_up(self) -> None:
        """Compiles everything that the other methods need."""

    def room(self) -> int:
        """How many further pieces it can take now."""

    def add(self, piece: Piece) -> None:
        """Takes one piece; of those that it holds all have the same kind."""

    def busy(self) -> bool:
        """Whether it holds pieces."""

    def step(self) -> Sequence[tuple[Piece, Any]]:
        """Does some work; returns pieces that are finished, each with a result or an exception."""

    def drop(self, piece: Piece) -> bool:
        """Forgets a piece whose client has gone; False if it cannot and will finish it."""


class _Lane:
    """The waiting pieces of one backend by kind, each kind a heap of (order, number, piece)."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.kinds: dict[Hashable, list[tuple[float, int, Piece]]] = {}

    def push(self, order: float, number: int, piece: Piece) -> None:
        heapq.heappush(self.kinds.setdefault(piece.kind, []), (order, number, piece))

    def head(self) -> tuple[float, int, Piece] | None:
        """The first of all pieces that still wait."""
        for kind, heap in list(self.kinds.items()):
            while heap and heap[0][2].state != "waiting":
                heapq.heappop(heap)
            if not heap:
                del self.kinds[kind]
        return min((heap[0] for heap in self.kinds.values()), default=None)


class DeviceQueue:
    """Pieces from many threads, run by one.

    Attributes:
      pending: pieces that wait or run.
      warm: whether all backends are compiled.
      failure: what ended the thread, if something did.
    """

    def __init__(
        self,
        backends: dict[str, Backend],
        capacity: int,
        window: float = 0.005,
        on_step: Callable[[str, int, float], None] = lambda lane, finished, seconds: None,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Starts nothing yet.

        Args:
          backends: by the names of their lanes.
          capacity: the most pieces that wait or run.
          window: seconds that a backend which could take more waits for them.
          on_step: called with lane, finished pieces and seconds of each step.
          on_failure: called when the thread ends with an exception.
        """
        self._lanes = {name: _Lane(backend) for name, backend in backends.items()}
        self._capacity, self._window = capacity, window
        self._on_step, self._on_failure = on_step, on_failure
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._order = 0.0  # of the piece that was started last
        self._running: set[Piece] = set()
        self._dropped: list[Piece] = []  # running when their client left
        self._closed = False
        self._rate: float | None = None  # pieces a second
        self.pending, self.warm = 0, False
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="tfm device", daemon=True)

    def start(self) -> None:
        """Starts the thread, which compiles first."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def wait_seconds(self, more: int = 0) -> float:
        """About how long the pieces here, and so many more, will take."""
        return (self.pending + more) / self._rate if self._rate else 1.0

    def submit(self, pieces: Sequence[Piece]) -> None:
        """Takes all pieces of a request, or none.

        Raises:
          Refusal: the queue is full, not warm yet, or closed.
        """
        with self._changed:
            if self._closed or self.failure:
                raise Refusal(503, "the server is shutting down", 5)
            if not self.warm:
                raise Refusal(503, "the server is still compiling its models", 5)
            if len(pieces) > self._capacity:
                raise Refusal(
                    413, f"{len(pieces):,} pieces; this server takes {self._capacity:,} at once"
                )
            if self.pending + len(pieces) > self._capacity:
                excess = self.pending + len(pieces) - self._capacity
                wait = excess / self._rate if self._rate else 1.0
                raise Refusal(503, "the server is busy: its queue is full", wait)
            for i, piece in enumerate(pieces):
                piece.state = "waiting"
                self._lanes[piece.lane].push(self._order + i, next(self._numbers), piece)
            self.pending += len(pieces)
            self._changed.notify()

    def cancel(self, pieces: Iterable[Piece]) -> None:
        """Gives the places of these pieces free, of running ones as soon as the backend can."""
        with self._changed:
            for piece in pieces:
                if piece.state == "waiting":
                    self.pending -= 1
                elif piece.state == "running":
                    self._dropped.append(piece)
                else:
                    continue
                piece.state = "cancelled"
            self._changed.notify()

    def close(self) -> None:
        """Takes no more pieces; the thread ends when those here are finished."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def join(self, seconds: float) -> bool:
        """Waits for the thread to end; whether it did. If not, ``signals.leave`` abandons it."""
        self._thread.join(seconds)
        if self.alive:
            self._thread.name = signals.NATIVE
        return not self.alive

    def _main(self) -> None:
        try:
            for lane in self._lanes.values():
                if self._closed:
                    return
                lane.backend.warm_up()
            self.warm = True
            while self._fill():
                for name, lane in self._lanes.items():
                    if lane.backend.busy():
                        self._step(name, lane)
        except BaseException as error:
            self.failure = error
            _log.error("the device's thread ended: %s", type(error).__name__)
            self._fail_all(error)
            self._on_failure()

    def _step(self, name: str, lane: _Lane) -> None:
        start = time.monotonic()
        finished = lane.backend.step()
        seconds = time.monotonic() - start
        self._on_step(name, len(finished), seconds)
        with self._changed:
            if finished and seconds:
                rate = len(finished) / seconds
                old = self._rate or rate
                self._rate = old + _SMOOTHING * (rate - old)
            for piece, _ in finished:
                self._end(piece)
        for piece, found in finished:
            if piece.state == "running":
                piece.state = "done"
                piece.done(found)

    def _end(self, piece: Piece) -> None:
        """A piece that ran gives its place free."""
        self._running.discard(piece)
        self.pending -= 1

    def _fill(self) -> bool:
        """Waits for work and hands it to the backends; False when all is done and closed."""
        with self._changed:
            while True:
                while self._dropped:
                    piece = self._dropped.pop()
                    if piece in self._running and self._lanes[piece.lane].backend.drop(piece):
                        self._end(piece)
                soonest = self._take()
                if any(lane.backend.busy() for lane in self._lanes.values()):
                    return True
                if self._closed and not self.pending:
                    return False
                self._changed.wait(soonest)

    def _take(self) -> float | None:
        """Moves pieces to backends. Seconds until a piece must be started; None if none waits."""
        soonest = None
        for lane in self._lanes.values():
            backend = lane.backend
            head = lane.head()
            if head is None or not backend.room():
                continue
            order, _, first = head
            heap = lane.kinds[first.kind]
            left = first.arrived + self._window - time.monotonic()
            if not backend.busy() and len(heap) < backend.room() and left > 0 and not self._closed:
                soonest = min(left, soonest or left)
                continue
            while heap and backend.room():
                piece = heapq.heappop(heap)[2]
                if piece.state == "waiting":
                    piece.state = "running"
                    self._running.add(piece)
                    backend.add(piece)
            self._order = max(self._order, order)
        return soonest

    def _fail_all(self, error: BaseException) -> None:
        with self._changed:
            heaps = [heap for lane in self._lanes.values() for heap in lane.kinds.values()]
            left = [piece for heap in heaps for _, _, piece in heap] + list(self._running)
            left = [piece for piece in left if piece.state in ("waiting", "running")]
            self.pending = 0
        for piece in left:
            piece.state = "done"
            piece.done(error)
