"""Several corpora in one: their pairs one after another, and the order in which they are drawn.

Which corpus an element of the training stream comes from is read from a table of ``PERIOD``
entries, drawn once from the seed, in which every corpus has its share. The k-th element of a corpus
is the k-th of its own shuffled epochs, so that each of its pairs occurs once in each of them,
whatever happens to the other corpora.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Sequence

import grain.experimental
import numpy as np

from tfm import config
from tfm.data import corpus

PERIOD = 1 << 16
"""Elements after which the order of the corpora repeats; shares are multiples of 1/PERIOD."""

_MAX_TABLE = 1 << 16  # Up to so many pairs the permutation of an epoch is kept as a table.


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Corpora as one ``corpus.Pairs``, in the order given; a tag is written before the source.

    Attributes:
      parts: the corpora.
      corpora: what the config says of each.
      temperature: of the sizes; see ``shares``.
    """

    parts: tuple[corpus.Pairs, ...]
    corpora: tuple[config.Corpus, ...]
    temperature: float = 1.0

    @property
    def fingerprint(self) -> str:
        """Identifies content and tags; what changes their order alone is not part of it."""
        names = [[p.fingerprint, c.tag] for p, c in zip(self.parts, self.corpora, strict=True)]
        return f"mixture:{hashlib.sha256(json.dumps(names).encode()).hexdigest()}"

    @property
    def dropped(self) -> dict[str, int]:
        """Sums over the corpora."""
        reasons = dict.fromkeys(itertools.chain(*(part.dropped for part in self.parts)))
        return {reason: sum(p.dropped.get(reason, 0) for p in self.parts) for reason in reasons}

    @property
    def first_dropped(self) -> dict[str, int]:
        """Nothing: line numbers of several files would not say where."""
        return {}

    @property
    def starts(self) -> np.ndarray:
        """The index of each corpus's first pair, and the number of all pairs."""
        return np.cumsum([0, *map(len, self.parts)])

    def __len__(self) -> int:
        """Number of pairs."""
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> tuple[str, str]:
        """Returns one pair."""
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[str, str]]:
        """Returns many pairs, with one call for each corpus."""
        numbers, starts = np.asarray(indices, np.int64), self.starts
        owners = np.searchsorted(starts, numbers, side="right") - 1
        pairs: list[tuple[str, str]] = [("", "")] * len(numbers)
        for owner in np.unique(owners):
            where = np.flatnonzero(owners == owner)
            local = (numbers[where] - starts[owner]).tolist()
            tag = self.corpora[owner].tag
            for i, (source, target) in zip(
                where, self.parts[owner].__getitems__(local), strict=True
            ):
                pairs[i] = (f"{tag} {source}" if tag else source, target)
        return pairs

    def shares(self, counts: np.ndarray) -> np.ndarray:
        """The share of each corpus in the stream: weight · pairs^(1/temperature), normalised.

        With equal weights, a temperature of 1 draws all pairs equally often, and a higher one draws
        pairs of small corpora more often (Arivazhagan 2019, §4.2); 0 leaves the sizes out, so that
        the weights are the shares.

        Args:
          counts: pairs of each corpus that fit a row.
        """
        power = 1 / self.temperature if self.temperature else 0.0
        weights = np.array([c.weight for c in self.corpora])
        shares = weights * np.asarray(counts, float) ** power
        return shares / shares.sum()


class Order:
    """Which pair an element of the endless training stream is.

    Args:
      counts: pairs of each corpus that fit a row, numbered through.
      shares: of each corpus; they sum to 1.
      seed: of the order.
    """

    def __init__(self, counts: Sequence[int], shares: Sequence[float], seed: int) -> None:
        self._counts, self._seed = list(counts), seed
        self._starts = np.cumsum([0, *counts])[:-1].tolist()
        self._table = _table(np.asarray(shares), seed) if len(counts) > 1 else None

    def locate(self, element: int) -> tuple[int, int]:
        """An element's epoch, of the corpus that it comes from, and its rank among all pairs."""
        owner, position = 0, element
        if self._table is not None:
            period, entry = divmod(element, PERIOD)
            owners, before, per_period = self._table
            owner = int(owners[entry])
            position = period * int(per_period[owner]) + int(before[entry])
        epoch, entry = divmod(position, self._counts[owner])
        return epoch, self._starts[owner] + self._shuffled(owner, epoch, entry)

    def _shuffled(self, owner: int, epoch: int, entry: int) -> int:
        """Entry of the permutation of an epoch; each corpus and epoch has its own."""
        count = self._counts[owner]
        seeds = (self._seed, epoch, owner) if owner else (self._seed, epoch)
        if count <= _MAX_TABLE:
            return int(_permutation(seeds, count)[entry])
        # A block cipher over the ranks is a permutation without a table; slow for a short corpus.
        key = int(np.random.SeedSequence(seeds).generate_state(1)[0])
        return grain.experimental.index_shuffle(entry, max_index=count - 1, seed=key, rounds=4)


def order(pairs: corpus.Pairs, kept: np.ndarray, seed: int) -> Order:
    """The order of a corpus or a mixture of several, of which the pairs ``kept`` fit a row.

    Raises:
      ValueError: no pair of a corpus fits, or its share is less than 1/PERIOD.
    """
    if not isinstance(pairs, Mixture):
        return Order([len(kept)], [1.0], seed)
    counts = np.diff(np.searchsorted(kept, pairs.starts))
    shares = pairs.shares(np.maximum(counts, 1))
    for i, (count, share, spec) in enumerate(zip(counts, shares, pairs.corpora, strict=True)):
        if not count:
            raise ValueError(f"data.mixture[{i}] {spec.files}: none of its pairs fits a row")
        if share * PERIOD < 1:
            raise ValueError(
                f"data.mixture[{i}] {spec.files}: its share {share:.2e} is less than 1/{PERIOD}: "
                "raise its weight, or leave it out"
            )
    return Order(counts.tolist(), shares.tolist(), seed)


def open_training(data: config.Data) -> corpus.Pairs:
    """Opens the training corpus of an experiment, or the mixture of several."""
    if not data.mixture:
        return corpus.open_corpus(data.train, data)
    parts = tuple(corpus.open_corpus(c.files, data) for c in data.mixture)
    return Mixture(parts, data.mixture, data.temperature)


def _table(shares: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The corpus of each of PERIOD elements, how many of the same came before, and the totals."""
    ideal = shares * PERIOD
    totals = np.floor(ideal).astype(np.int64)
    most = np.argsort(totals - ideal, kind="stable")  # the largest remainders first
    totals[most[: PERIOD - totals.sum()]] += 1
    owners = np.repeat(np.arange(len(shares)), totals)
    np.random.default_rng((seed, len(shares))).shuffle(owners)
    before = np.empty(PERIOD, np.int64)
    for owner, total in enumerate(totals):
        before[owners == owner] = np.arange(total)
    return owners, before, totals


@functools.lru_cache(maxsize=64)
def _permutation(seeds: tuple[int, ...], count: int) -> np.ndarray:
    return np.random.default_rng(seeds).permutation(count)
