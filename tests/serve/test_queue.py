"""The queue of the device: bounded, fair, and nothing lost, with backends that need no model."""

import random
import threading
import time

import pytest

from tfm.serve.queue import DeviceQueue, Piece
from tfm.serve.refusal import Refusal


class Upper:
    """A backend of batches that writes capitals; ``hold`` keeps it from running."""

    def __init__(self, size=4):
        self.size, self.held, self.batches = size, [], []
        self.hold = threading.Event()
        self.hold.set()

    def kind(self, text):
        return len(text)

    def warm_up(self):
        self.hold.wait(10)

    def room(self):
        return self.size - len(self.held)

    def add(self, piece):
        self.held.append(piece)

    def busy(self):
        return bool(self.held)

    def step(self):
        self.hold.wait(10)
        pieces, self.held = self.held, []
        self.batches.append([piece.text for piece in pieces])
        return [(piece, piece.text.upper()) for piece in pieces]

    def drop(self, piece):
        return False


class Slots(Upper):
    """Continuous batching: every step a random one of the pieces ends, and others can join."""

    def step(self):
        self.hold.wait(10)
        piece = self.held.pop(random.randrange(len(self.held)))
        self.batches.append([piece.text])
        return [(piece, piece.text.upper())]

    def drop(self, piece):
        self.held.remove(piece)
        return True


@pytest.fixture(params=[Upper, Slots])
def backend(request):
    return request.param()


@pytest.fixture
def start():
    queues = []

    def run(backend, capacity=100, **more):
        queue = DeviceQueue({"a": backend} | more.pop("others", {}), capacity, **more)
        queues.append((queue, backend))
        queue.start()
        return queue

    yield run
    for queue, backend in queues:
        backend.hold.set()
        queue.close()
        assert queue.join(10)


def until(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def pieces(texts, found, lane="a"):
    return [
        Piece(t, lane, len(t), lambda x, i=i: found.append((i, x))) for i, t in enumerate(texts)
    ]


def test_every_piece_is_answered_once_with_its_own_result(start, backend):
    queue = start(backend, 10_000)
    until(lambda: queue.warm)
    rng, threads, all_found = random.Random(0), [], []

    def client(texts):
        found = []
        queue.submit(pieces(texts, found))
        until(lambda: len(found) == len(texts))
        all_found.append((texts, found))

    for _ in range(20):
        texts = ["x" * rng.randint(1, 3) + str(rng.random()) for _ in range(rng.randint(1, 30))]
        threads.append(threading.Thread(target=client, args=(texts,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert len(all_found) == 20
    for texts, found in all_found:
        assert sorted(found) == [(i, text.upper()) for i, text in enumerate(texts)]
    assert queue.pending == 0


def test_a_batch_has_one_kind_and_at_most_its_size(start):
    backend = Upper(size=3)
    queue, found = start(backend), []
    until(lambda: queue.warm)
    queue.submit(pieces(["a", "bb", "c", "dd", "e", "f", "g"], found))
    until(lambda: len(found) == 7)
    assert all(len(batch) <= 3 and len(set(map(len, batch))) == 1 for batch in backend.batches)
    assert backend.batches == [["a", "c", "e"], ["bb", "dd"], ["f", "g"]]


def test_the_window_lets_requests_share_a_batch(start):
    backend = Upper()
    queue, found = start(backend, window=0.5), []
    until(lambda: queue.warm)
    for text in "abc":
        queue.submit(pieces([text], found))
    until(lambda: len(found) == 3)
    assert backend.batches == [["a", "b", "c"]]
    before = time.monotonic()
    queue.submit(pieces("defg", found))  # a full batch waits for nothing
    until(lambda: len(found) == 7)
    assert time.monotonic() - before < 0.4


def test_a_full_queue_refuses_whole_requests_and_says_when_to_come_back(start, backend):
    queue, found = start(backend, capacity=6), []
    until(lambda: queue.warm)
    backend.hold.clear()
    queue.submit(pieces("abcd", found))
    with pytest.raises(Refusal) as refused:
        queue.submit(pieces("efg", found))
    assert refused.value.status == 503 and refused.value.retry_after >= 1
    queue.submit(pieces("ef", found))
    assert queue.pending == 6
    with pytest.raises(Refusal) as refused:  # never, however long one waits
        queue.submit(pieces("abcdefg", found))
    assert refused.value.status == 413
    backend.hold.set()
    until(lambda: len(found) == 6 and queue.pending == 0)


def test_a_small_request_does_not_wait_for_all_of_a_large_one(start):
    backend = Upper(size=1)
    queue, large, small = start(backend), [], []
    until(lambda: queue.warm)
    backend.hold.clear()
    queue.submit(pieces("abcdefghijklmnop", large))
    until(lambda: backend.held)
    queue.submit(pieces("z", small))
    backend.hold.set()
    until(lambda: len(large) == 16)
    assert [x for (x,) in backend.batches].index("z") <= 2


def test_who_leaves_frees_the_places(start, backend):
    queue, left, stays = start(backend, capacity=8), [], []
    until(lambda: queue.warm)
    backend.hold.clear()
    gone = pieces("abcdefgh", left)
    queue.submit(gone)
    until(lambda: backend.held)
    queue.cancel(gone)
    queue.cancel(gone)
    running = sum(piece in backend.held for piece in gone)
    assert queue.pending <= running
    queue.submit(pieces("wxyz"[: 8 - running], stays))
    backend.hold.set()
    until(lambda: len(stays) == min(4, 8 - running) and queue.pending == 0)
    assert left == []


def test_before_it_is_warm_and_after_it_is_closed_it_refuses(start, backend):
    backend.hold.clear()
    queue, found = start(backend), []
    with pytest.raises(Refusal, match="compiling"):
        queue.submit(pieces("a", found))
    backend.hold.set()
    until(lambda: queue.warm)
    backend.hold.clear()
    queue.submit(pieces("abc", found))
    queue.close()
    with pytest.raises(Refusal, match="shutting down"):
        queue.submit(pieces("d", found))
    backend.hold.set()
    assert queue.join(10)
    assert sorted(x for _, x in found) == ["A", "B", "C"]  # what was taken is finished


def test_lanes_take_turns(start):
    first, second, found = Upper(size=1), Upper(size=1), []
    second.batches = first.batches  # in one order
    queue = start(first, others={"b": second})
    until(lambda: queue.warm)
    first.hold.clear()
    queue.submit(pieces("abcdef", found))
    queue.submit(pieces("xyz", found, "b"))
    until(lambda: first.held)
    first.hold.set()
    until(lambda: len(found) == 9)
    order = "".join(text for (text,) in first.batches)
    assert order.index("z") <= 6


def test_when_the_backend_breaks_all_are_told(start):
    class Broken(Upper):
        def step(self):
            raise RuntimeError("the device is lost")

    failed, found = threading.Event(), []
    queue = start(Broken(size=2), on_failure=failed.set)
    until(lambda: queue.warm)
    queue.submit(pieces("abc", found))
    assert failed.wait(10)
    until(lambda: len(found) == 3)
    assert all(isinstance(x, RuntimeError) for _, x in found) and not queue.alive
    with pytest.raises(Refusal):
        queue.submit(pieces("a", found))


def test_the_rate_tells_how_long_to_wait(start):
    class Slow(Upper):
        def step(self):
            time.sleep(0.05)
            return super().step()

    backend = Slow(size=1)
    queue, found = start(backend, capacity=30), []
    until(lambda: queue.warm)
    queue.submit(pieces("a" * 20, found))
    until(lambda: len(found) == 5)
    assert 0.3 < queue.wait_seconds() < 3  # 15 pieces at 20 a second
    until(lambda: len(found) == 20)
