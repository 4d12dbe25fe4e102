"""The training stream: endless shuffled epochs, packed into batches; exactly resumable.

The elements of the stream are numbered: with N pairs that fit, element e is entry e % N of the
permutation drawn for epoch e // N; ``mixture`` has the order of several corpora. The rows of a
global batch are split among a fixed number of virtual shards, the lanes; lane l reads elements l,
l + lanes, l + 2·lanes, ... A host reads only the lanes of its own rows, so the global batches do
not depend on the number of hosts.
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
from tfm.data import corpus, mixture, packing
from tfm.data.scan import Scan, Tokenizers
from tfm.transformer import Batch

_MAX_LANES = 64  # And so the most hosts of a stream; each lane has a small pool of waiting pairs.
_EXTRA_WAITING = 16  # Pairs waiting beyond those of one mean row: enough to fill rows to 99 %.


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
    """Returns the endless stream of one host's rows of the global batches.

    Args:
      pairs: the corpus.
      scan: the result of ``tfm.data.scan`` for these pairs and tokenizers.
      tokenizers: of the source and the target.
      data: rows of the global batch and the seed; row lengths come from the scan.
      nbest, alpha: subword sampling, drawn afresh each epoch; an nbest of 1 turns it off.
      host, hosts: index of this host and number of hosts; host h gets the h-th block of rows.
      prefetch: batches that a thread prepares in advance; 0 prepares each on demand.

    Returns:
      An iterator of batches (see ``packing.to_batch``). ``get_state()`` returns a dict fit for
      JSON: the position after the last batch returned, not counting prefetched ones. Of several
      hosts each holds its own lanes; ``merge`` joins them into the state of the whole stream.
      ``set_state(state)`` moves to such a position, on any number of hosts if the state is of
      the whole stream. ``close()`` ends the thread.

    Raises:
      ValueError: the rows cannot be divided evenly among the hosts. Later, ``set_state`` raises
        it for a state of another corpus, config or set of lanes, and the first batch if
        ``nbest`` asks to sample from a vocabulary that is not unigram.
    """
    lanes = math.gcd(data.rows, _MAX_LANES)
    if lanes % hosts:
        raise ValueError(
            f"data.rows {data.rows}: {hosts} hosts cannot share them; the number of hosts must "
            f"divide {lanes}, the largest power of 2 in data.rows, {_MAX_LANES} at most"
        )
    order = mixture.order(pairs, scan.kept, data.seed)
    reader = _Reader(pairs, scan, tokenizers, order, data.clean, data.seed, nbest, alpha)
    own_lanes = range(host * lanes // hosts, (host + 1) * lanes // hosts)
    stream = _Stream(reader, lanes, own_lanes, data.rows // lanes)
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
    """Yields every pair that fits once, roughly in corpus order; shapes and hosts as in training.

    The last batch is filled up with empty rows. ``scan.dropped`` says what was left out.

    Raises:
      ValueError: the rows cannot be divided evenly among the hosts.
    """
    if data.rows % hosts:
        raise ValueError(f"data.rows {data.rows}: {hosts} hosts cannot share them evenly")
    block = slice(host * data.rows // hosts, (host + 1) * data.rows // hosts)
    order = mixture.order(pairs, scan.kept, data.seed)
    reader = _Reader(pairs, scan, tokenizers, order, data.clean, data.seed, nbest=1, alpha=0.0)
    rows = _rows_in_order(reader)
    while chunk := list(itertools.islice(rows, data.rows)):
        chunk += [[]] * (data.rows - len(chunk))
        yield packing.to_batch(chunk[block], scan.source_length, scan.target_length)


def merge(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Joins the states of all hosts at the same batch into the state that a checkpoint saves.

    Any number of hosts can resume from it.

    Raises:
      ValueError: the states are not of one stream at one batch.
    """
    if len({(state["fingerprint"], state["batch"]) for state in states}) != 1:
        raise ValueError("data states to merge: not of one stream at one batch")
    lanes = {lane: position for state in states for lane, position in state["lanes"].items()}
    return {**states[0], "lanes": lanes}


class _Waiting(NamedTuple):
    """A tokenised pair that waits to be packed into a row."""

    element: int
    ids: packing.PairIds


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads and tokenises elements of the stream, given their numbers."""

    pairs: corpus.Pairs
    scan: Scan
    tokenizers: Tokenizers
    order: mixture.Order
    clean: config.Cleaning
    seed: int
    nbest: int
    alpha: float

    @property
    def pool_size(self) -> int:
        """Number of waiting pairs from which a row is chosen."""
        return math.ceil(self.scan.pairs_per_row) + _EXTRA_WAITING

    def read(self, elements: Sequence[int]) -> list[_Waiting]:
        """Reads elements of the shuffled epochs; samples their segmentation if nbest is over 1."""
        shuffled = [self.order.locate(element) for element in elements]
        indices = [int(self.scan.kept[rank]) for _, rank in shuffled]
        texts = self.pairs.__getitems__(indices)
        best = self._encode(texts)
        if self.nbest > 1:
            keys = [(epoch, index) for (epoch, _), index in zip(shuffled, indices, strict=True)]
            best = list(map(self._sample, keys, texts, best))
        return list(map(_Waiting, elements, best))

    def read_in_order(self, ranks: Sequence[int]) -> list[_Waiting]:
        """Reads pairs by their rank among those that fit, with their best segmentation."""
        texts = self.pairs.__getitems__([int(self.scan.kept[rank]) for rank in ranks])
        return list(map(_Waiting, ranks, self._encode(texts)))

    def take_row(self, pool: list[_Waiting]) -> list[packing.PairIds]:
        """Chooses the pairs of one row, removes them from ``pool`` and returns their ids."""
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
        """Samples a segmentation of both sides, seeded by (epoch, pair).

        A side whose sample does not fit a row keeps its best segmentation.
        """
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
    """Makes the batches of some lanes on demand; the prefetching thread iterates over it.

    Args:
      reader: reads the elements.
      lanes: number of lanes of the whole stream.
      own_lanes: the lanes to read.
      rows: rows that each lane contributes to a batch.
    """

    def __init__(self, reader: _Reader, lanes: int, own_lanes: range, rows: int) -> None:
        self._reader, self._lanes, self._rows = reader, lanes, rows
        self._batch = 0
        self._read = dict.fromkeys(own_lanes, 0)  # Elements that each lane has read.
        self._pools: dict[int, list[_Waiting]] = {lane: [] for lane in own_lanes}

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
        """Fills the pools of all lanes, with a single call of each tokenizer."""
        wanted: list[int] = []
        for lane, pool in self._pools.items():
            count = self._reader.pool_size - len(pool)
            first = lane + self._lanes * self._read[lane]
            wanted += range(first, first + self._lanes * count, self._lanes)
            self._read[lane] += count
        for waiting in self._reader.read(wanted):
            self._pools[waiting.element % self._lanes].append(waiting)

    def get_state(self) -> dict[str, Any]:
        """Returns the position after the last batch: per lane, elements read and those waiting."""
        lanes = {
            str(lane): [self._read[lane], [waiting.element for waiting in pool]]
            for lane, pool in self._pools.items()
        }
        return {"fingerprint": self._fingerprint, "batch": self._batch, "lanes": lanes}

    def set_state(self, state: dict[str, Any]) -> None:
        """Moves to a position of this stream; reads the pairs that were waiting there again."""
        if state["fingerprint"] != self._fingerprint:
            raise ValueError(
                "data position: it belongs to another corpus, tokenizer or data config than this "
                "run's; restore those, or start in a new folder"
            )
        if missing := [lane for lane in self._pools if str(lane) not in state["lanes"]]:
            raise ValueError(
                f"data position: it has no lane {missing[0]}; merge the positions of all hosts"
            )
        for lane in self._pools:
            self._read[lane], waiting = state["lanes"][str(lane)]
            self._pools[lane] = self._reader.read(waiting)
        self._batch = state["batch"]

    @functools.cached_property
    def _fingerprint(self) -> str:
        """Hash of everything that the batches are a function of."""
        r = self._reader
        parts = [
            r.pairs.fingerprint,
            [side.digest for side in r.tokenizers],
            [len(r.scan.kept), r.scan.source_length, r.scan.target_length],
            [r.seed, r.nbest, r.alpha if r.nbest > 1 else 0.0],
            [self._lanes, self._rows],
        ]
        if r.clean != config.Cleaning():
            parts.append(dataclasses.astuple(r.clean))
        if isinstance(r.pairs, mixture.Mixture):
            parts.append([[c.weight for c in r.pairs.corpora], r.pairs.temperature])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _rows_in_order(reader: _Reader) -> Iterator[list[packing.PairIds]]:
    """Yields rows until every pair was used once; reads chunks of 1,024, which is faster."""
    ranks = range(len(reader.scan.kept))
    chunks = (ranks[start : start + 1024] for start in range(0, len(ranks), 1024))
    rest = itertools.chain.from_iterable(map(reader.read_in_order, chunks))
    pool: list[_Waiting] = []
    while pool := pool + list(itertools.islice(rest, reader.pool_size - len(pool))):
        yield reader.take_row(pool)
