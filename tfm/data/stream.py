"""The training stream: endless shuffled epochs, packed into batches; exact and resumable.

Every element of the stream has a number: element e belongs to epoch e // N and is the pair at
place e % N of that epoch's shuffle, N being the pairs that fit. The rows of a global batch are
dealt to a fixed number of lanes, and lane l reads elements l, l + lanes, l + 2·lanes, ... A host
reads only the lanes whose rows it holds, so the global batches do not depend on how many hosts
there are.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import grain.experimental
import numpy as np

from tfm import config
from tfm.data import corpus, packing
from tfm.data.scan import Scan, Tokenizers

Batch = dict[str, np.ndarray]

_MOST_LANES = 64  # Hosts that can share a stream; each lane keeps a small pool of waiting pairs.
_SPARE = 16  # Pairs waiting beyond those of one mean row: enough to fill rows to 99 %.
_TABLE = 1 << 16  # Up to so many pairs an epoch's order is kept as a table.


def batches(
    pairs: corpus.Pairs,
    scan: Scan,
    tokenizers: Tokenizers,
    data: config.Data,
    *,
    nbest: int = 1,
    alpha: float = 0.0,
    host: int = 0,
    hosts: int = 1,
    prefetch: int = 4,
) -> grain.experimental.ThreadPrefetchDatasetIterator[Batch]:
    """The endless stream of one host's share of the global batches.

    Args:
      pairs, tokenizers: the corpus.
      scan: what ``tfm.data.scan`` found in them.
      data: rows of the global batch and the seed; the row lengths are the scan's.
      nbest, alpha: of subword sampling, drawn afresh each epoch; an nbest of 1 is off.
      host, hosts: this host's number and their count; host h holds the h-th block of rows.
      prefetch: batches made ahead by a thread; 0 makes them when asked.

    Returns:
      An iterator of batches (see ``packing.to_batch``). ``get_state()`` is a dict fit for JSON
      that counts what was handed out, not what was made ahead; of several hosts it holds one's
      lanes, and ``merge`` makes those of all whole. ``set_state(state)`` goes there, with a
      whole state on any number of hosts; ``close()`` ends the thread.

    Raises:
      ValueError: the hosts cannot share the rows evenly; later, from ``set_state``, the state is
        of another corpus, configuration or share; from the first batch, sampling from a
        vocabulary that is not unigram.
    """
    lanes = math.gcd(data.rows, _MOST_LANES)
    if lanes % hosts:
        raise ValueError(
            f"data.rows {data.rows}: {hosts} hosts cannot share them; the number of hosts must "
            f"divide {lanes}, the largest power of 2 in data.rows, {_MOST_LANES} at most"
        )
    reader = _Reader(pairs, scan, tokenizers, data.seed, nbest, alpha)
    mine = range(host * lanes // hosts, (host + 1) * lanes // hosts)
    stream = _Stream(reader, lanes, mine, data.rows // lanes)
    return grain.experimental.ThreadPrefetchDatasetIterator(stream, prefetch)


def eval_batches(
    pairs: corpus.Pairs,
    scan: Scan,
    tokenizers: Tokenizers,
    data: config.Data,
    *,
    host: int = 0,
    hosts: int = 1,
) -> Iterator[Batch]:
    """Every pair that fits, once, about in corpus order; shapes and host shares as in training.

    The last batch is filled up with empty rows. ``scan.dropped`` says what was left out.

    Raises:
      ValueError: the hosts cannot share the rows evenly.
    """
    if data.rows % hosts:
        raise ValueError(f"data.rows {data.rows}: {hosts} hosts cannot share them evenly")
    block = slice(host * data.rows // hosts, (host + 1) * data.rows // hosts)
    reader = _Reader(pairs, scan, tokenizers, data.seed, nbest=1, alpha=0.0)
    rows = _rows_in_order(reader)
    while chunk := list(itertools.islice(rows, data.rows)):
        chunk += [[]] * (data.rows - len(chunk))
        yield packing.to_batch(chunk[block], scan.source_length, scan.target_length)


def merge(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One state from those of all hosts at the same batch, for any other number of hosts: what a
    checkpoint keeps.

    Raises:
      ValueError: the states are not of one stream at one batch.
    """
    if len({(state["fingerprint"], state["batch"]) for state in states}) != 1:
        raise ValueError("data states to merge: not of one stream at one batch")
    lanes = {lane: place for state in states for lane, place in state["lanes"].items()}
    return {**states[0], "lanes": lanes}


class _Waiting(NamedTuple):
    """A tokenised pair that waits for a row."""

    element: int
    ids: packing.PairIds


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Elements of the stream by number."""

    pairs: corpus.Pairs
    scan: Scan
    tokenizers: Tokenizers
    seed: int
    nbest: int
    alpha: float

    @property
    def pool_size(self) -> int:
        """Pairs that wait together, from which a row is chosen."""
        return math.ceil(self.scan.pairs_per_row) + _SPARE

    def read(self, elements: Sequence[int]) -> list[_Waiting]:
        """The given elements of the shuffled epochs, segmentations drawn if asked for."""
        places = [_place(element, len(self.scan.kept), self.seed) for element in elements]
        indices = [int(self.scan.kept[at]) for _, at in places]
        texts = self.pairs.__getitems__(indices)
        best = self._encode(texts)
        if self.nbest > 1:
            keys = [(epoch, index) for (epoch, _), index in zip(places, indices, strict=True)]
            best = list(map(self._sample, keys, texts, best))
        return list(map(_Waiting, elements, best))

    def read_in_order(self, places: Sequence[int]) -> list[_Waiting]:
        """The pairs that fit, by rank in the corpus, with their best segmentation."""
        texts = self.pairs.__getitems__([int(self.scan.kept[at]) for at in places])
        return list(map(_Waiting, places, self._encode(texts)))

    def take_row(self, pool: list[_Waiting]) -> list[packing.PairIds]:
        """Moves the pairs of one row out of ``pool``."""
        lengths = [(len(source), len(target)) for _, (source, target) in pool]
        chosen = packing.choose(lengths, self.scan.source_length, self.scan.target_length)
        row = [pool[i].ids for i in chosen]
        for i in reversed(chosen):
            del pool[i]
        return row

    def _encode(self, texts: Sequence[tuple[str, str]]) -> list[packing.PairIds]:
        sides = [
            self.tokenizers[side].encode_batch([text[side] for text in texts]) for side in (0, 1)
        ]
        return list(zip(*sides, strict=True))

    def _sample(
        self, key: tuple[int, int], texts: tuple[str, str], best: packing.PairIds
    ) -> packing.PairIds:
        """A segmentation of both sides drawn for (epoch, pair); the best where it does not fit."""
        rng = np.random.default_rng((self.seed, *key))
        limits = self.scan.source_length, self.scan.target_length
        drawn = [
            self.tokenizers[side].sample(texts[side], rng, self.nbest, self.alpha)
            for side in (0, 1)
        ]
        source, target = (
            drawn[side] if len(drawn[side]) <= limits[side] else best[side] for side in (0, 1)
        )
        return source, target


class _Stream:
    """The batches of some lanes, made when asked for: what the prefetching thread runs.

    Args:
      reader: the elements.
      lanes: lanes of the whole stream.
      mine: the lanes to read.
      rows: rows a lane fills in each batch.
    """

    def __init__(self, reader: _Reader, lanes: int, mine: range, rows: int) -> None:
        self._reader, self._lanes, self._rows = reader, lanes, rows
        self._batch = 0
        self._read = dict.fromkeys(mine, 0)  # Elements each lane has read.
        self._pools: dict[int, list[_Waiting]] = {lane: [] for lane in mine}

    def __next__(self) -> Batch:
        rows: dict[int, list[list[packing.PairIds]]] = {lane: [] for lane in self._pools}
        for _ in range(self._rows):
            self._refill()
            for lane, pool in self._pools.items():
                rows[lane].append(self._reader.take_row(pool))
        self._batch += 1
        scan = self._reader.scan
        flat = list(itertools.chain.from_iterable(rows.values()))
        return packing.to_batch(flat, scan.source_length, scan.target_length)

    def _refill(self) -> None:
        """Fills the pools of all lanes with one call of the tokenizers."""
        wanted = []
        for lane, pool in self._pools.items():
            count = self._reader.pool_size - len(pool)
            first = lane + self._lanes * self._read[lane]
            wanted += range(first, first + self._lanes * count, self._lanes)
            self._read[lane] += count
        for waiting in self._reader.read(wanted):
            self._pools[waiting.element % self._lanes].append(waiting)

    def get_state(self) -> dict[str, Any]:
        """Position after the last batch: for each lane the elements read, and those waiting."""
        lanes = {
            str(lane): [self._read[lane], [waiting.element for waiting in pool]]
            for lane, pool in self._pools.items()
        }
        return {"fingerprint": self._fingerprint, "batch": self._batch, "lanes": lanes}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position of this stream; what was waiting is read again."""
        if state["fingerprint"] != self._fingerprint:
            raise ValueError(
                "data position: of another corpus, tokenizer or data setting than this run's; "
                "restore those, or start in a new folder"
            )
        if missing := [lane for lane in self._pools if str(lane) not in state["lanes"]]:
            raise ValueError(
                f"data position: has no lane {missing[0]}; merge the positions of all hosts"
            )
        for lane in self._pools:
            self._read[lane], waiting = state["lanes"][str(lane)]
            self._pools[lane] = self._reader.read(waiting)
        self._batch = state["batch"]

    @functools.cached_property
    def _fingerprint(self) -> str:
        """Names everything the batches are a function of."""
        r = self._reader
        parts = [
            r.pairs.fingerprint,
            [side.digest for side in r.tokenizers],
            [len(r.scan.kept), r.scan.source_length, r.scan.target_length],
            [r.seed, r.nbest, r.alpha if r.nbest > 1 else 0.0],
            [self._lanes, self._rows],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _rows_in_order(reader: _Reader) -> Iterator[list[packing.PairIds]]:
    """Rows of pairs until each was used once; reads by the thousand, which is faster."""
    places = range(len(reader.scan.kept))
    chunks = (places[at : at + 1024] for at in range(0, len(places), 1024))
    rest = itertools.chain.from_iterable(map(reader.read_in_order, chunks))
    pool: list[_Waiting] = []
    while pool := pool + list(itertools.islice(rest, reader.pool_size - len(pool))):
        yield reader.take_row(pool)


def _place(element: int, count: int, seed: int) -> tuple[int, int]:
    """(epoch, rank of the pair among those that fit): a new permutation for each epoch."""
    epoch, at = divmod(element, count)
    if count <= _TABLE:
        return epoch, int(_permutation(seed, epoch, count)[at])
    # A cipher over the ranks: a permutation without a table (slow for a short corpus).
    key = int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
    return epoch, grain.experimental.index_shuffle(at, max_index=count - 1, seed=key, rounds=4)


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)
