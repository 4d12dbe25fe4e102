"""Text as a stream of ids on disk, and the batches made from it.

The stream is a file of int32: the ids of a sentence's words, then ``END``. It is read in chunks, so
memory does not grow with the corpus.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfm.word2vec.model import Batch, Config, learning_rate, replicas, samples, tiles

END = -1
_CHUNK = 1 << 20  # Ids read or written at a time.
_MIN_TABLE = 1 << 22  # Smallest size of the table that negative samples are drawn from.


@dataclass(frozen=True)
class Vocabulary:
    """Words and their counts, the most frequent first.

    Attributes:
      words: V words.
      counts_V: int64.
    """

    words: tuple[str, ...]
    counts_V: np.ndarray


def count(sentences: Iterable[Sequence[str]], min_count: int) -> Vocabulary:
    """Counts words and keeps those with at least ``min_count``; ties keep the order of the text.

    Raises:
      ValueError: fewer than two words are left.
    """
    counter: Counter[str] = Counter()
    for sentence in sentences:
        counter.update(sentence)
    kept = [(word, n) for word, n in counter.most_common() if n >= min_count]
    if len(kept) < 2:
        raise ValueError(
            f"word vectors: of {len(counter):,} different words {len(kept)} occur at least "
            f"{min_count} times; lower min_count or add text"
        )
    words, counts = zip(*kept, strict=True)
    return Vocabulary(words, np.array(counts, np.int64))


def write(sentences: Iterable[Sequence[str]], vocabulary: Vocabulary, path: Path) -> np.ndarray:
    """Writes the stream to ``path``; words that are not in the vocabulary are left out.

    Returns:
      The stream, mapped from the file: [n] int32.
    """
    ids = {word: i for i, word in enumerate(vocabulary.words)}
    buffer: list[int] = []  # Writing each sentence would cost more than looking up its words.
    with path.open("wb") as file:
        for sentence in sentences:
            buffer += [ids[word] for word in sentence if word in ids]
            buffer.append(END)
            if len(buffer) >= _CHUNK:
                np.array(buffer, np.int32).tofile(file)
                buffer.clear()
        np.array(buffer, np.int32).tofile(file)
    return np.memmap(path, np.int32, "r")


def keep_probabilities(counts_V: np.ndarray, subsample: float) -> np.ndarray:
    """Returns the probability that subsampling keeps an occurrence of each word, [V] float32.

    It is (√(f/t) + 1) · t/f for a word of frequency f > t: word2vec.c's form of Mikolov 2013b,
    eq. 5.
    """
    if subsample == 0:
        return np.ones(len(counts_V), np.float32)
    ratio = counts_V / (subsample * counts_V.sum())
    return np.minimum(1.0, (np.sqrt(ratio) + 1) / ratio).astype(np.float32)


def negative_table(counts_V: np.ndarray, exponent: float) -> np.ndarray:
    """Returns a table of ids, from which a uniform draw is a negative sample.

    Each id occurs in proportion to count^exponent, but at least once.
    """
    weights = counts_V.astype(np.float64) ** exponent
    size = max(_MIN_TABLE, 16 * len(counts_V))
    times = np.maximum(1, np.round(weights / weights.sum() * size)).astype(np.int64)
    return np.repeat(np.arange(len(counts_V), dtype=np.int32), times)


def batches(
    config: Config, stream: np.ndarray, counts_V: np.ndarray, updates: int
) -> Iterator[tuple[float, Batch]]:
    """Yields the text of all epochs in rounds: the fraction of the work done after it, and batches.

    A round has ``updates`` batches for each replica: its leaves are [R,M,B,...]. After subsampling
    the text continues across sentences, replicas and epochs; a window ends where its sentence ends
    or, rarely, where a round ends. The last round is filled up with padding, after equal parts of
    the text for all replicas. The learning rate falls from update to update.
    """
    rng = np.random.default_rng(config.seed)
    negatives = negative_table(counts_V, config.exponent)
    J = samples(config) if config.objective == "negative" else 0
    shape = R, M, B = replicas(config), updates, tiles(config)
    size = R * M * B * config.centres
    for words, sentences, before, after in _rounds(config, stream, counts_V, size, rng):
        full = len(words) / size  # Below 1 in the last round, whose last updates are padding.
        done_M = np.minimum(1, before + (after - before) / full * np.arange(M) / M)
        rates_M = (learning_rate(config) * np.maximum(1e-3, 1 - done_M)).astype(np.float32)
        windows = (R, M, B, config.centres)
        batch = Batch(
            _to_tiles(config, words, shape),
            _to_tiles(config, sentences, shape),
            rng.integers(1, config.window + 1, size=windows, dtype=np.int32),
            negatives[rng.integers(len(negatives), size=(R, M, B, J), dtype=np.int32)],
            np.tile(rates_M, (R, 1)),
        )
        yield after, batch


def _to_tiles(config: Config, x: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Splits the words of a round, or their sentence numbers, into tiles, [R,M,B,S].

    Neighbouring tiles overlap by 2W words. Every replica gets an equal part, padded with zeros.
    """
    R, M, B = shape
    T, W = config.centres, config.window
    parts = [np.pad(part, (0, M * B * T - len(part))) for part in np.array_split(x, R)]
    padded = np.pad(np.concatenate(parts), W)
    windows = np.lib.stride_tricks.sliding_window_view(padded, T + 2 * W)
    return windows[::T].reshape(R, M, B, -1)


def _rounds(
    config: Config, stream: np.ndarray, counts_V: np.ndarray, size: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, float, float]]:
    """Subsamples the text and splits it into rounds of ``size`` words, the last one smaller.

    Yields:
      Ids, the numbers of their sentences, and the fraction of the work done before and after.
    """
    keep_V = keep_probabilities(counts_V, config.subsample)
    words = sentences = np.zeros(0, np.int32)
    number, total, before = 1, config.epochs * len(stream), 0.0
    for epoch_start in range(0, total, len(stream)):
        for start in range(0, len(stream), _CHUNK):
            chunk = np.asarray(stream[start : start + _CHUNK])
            numbers = number + np.cumsum(chunk == END, dtype=np.int32)
            number = numbers[-1]
            kept = (rng.random(len(chunk), dtype=np.float32) < keep_V[chunk]) & (chunk != END)
            words = np.concatenate([words, chunk[kept]])
            sentences = np.concatenate([sentences, numbers[kept]])
            full = len(words) - len(words) % size
            per_word = ((epoch_start + start + len(chunk)) / total - before) / max(len(words), 1)
            for i in range(0, full, size):
                after = min(1.0, before + size * per_word)
                yield words[i : i + size], sentences[i : i + size], before, after
                before = after
            words, sentences = words[full:], sentences[full:]
    if len(words):
        yield words, sentences, before, 1.0
