"""Text as a stream of ids on disk, and the batches cut from it.

The stream is a file of int32: the ids of a sentence's words, then ``END``. It is read in pieces,
so memory does not grow with the corpus.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tfm.word2vec.model import Batch, Config, rate, replicas, samples, tiles

END = -1
_CHUNK = 1 << 20  # ids looked at together
_DRAWS = 1 << 22  # entries of the table that negative samples are drawn from, at least


@dataclass(frozen=True)
class Vocabulary:
    """Words and how often each was seen, the most frequent first.

    Attributes:
      words: V of them. counts_V: int64.
    """

    words: tuple[str, ...]
    counts_V: np.ndarray


def count(sentences: Iterable[Sequence[str]], min_count: int) -> Vocabulary:
    """The words seen at least ``min_count`` times; of equally frequent ones the first seen first.

    Raises:
      ValueError: fewer than two words are left.
    """
    counter: Counter[str] = Counter()
    for sentence in sentences:
        counter.update(sentence)
    kept = [(word, n) for word, n in counter.most_common() if n >= min_count]
    if len(kept) < 2:
        raise ValueError(
            f"word vectors: of {len(counter):,} different words {len(kept)} come up at least "
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
    coming: list[int] = []  # a write for every sentence would cost more than finding its words
    with path.open("wb") as file:
        for sentence in sentences:
            coming += [ids[word] for word in sentence if word in ids]
            coming.append(END)
            if len(coming) >= _CHUNK:
                np.array(coming, np.int32).tofile(file)
                coming.clear()
        np.array(coming, np.int32).tofile(file)
    return np.memmap(path, np.int32, "r")


def keep_shares(counts_V: np.ndarray, subsample: float) -> np.ndarray:
    """The share of each word's occurrences that stays, [V] float32.

    (√(f/t) + 1) · t/f for a word of frequency f > t: word2vec.c's form of Mikolov 2013b, eq. 5.
    """
    if subsample == 0:
        return np.ones(len(counts_V), np.float32)
    over = counts_V / (subsample * counts_V.sum())
    return np.minimum(1.0, (np.sqrt(over) + 1) / over).astype(np.float32)


def negative_table(counts_V: np.ndarray, exponent: float) -> np.ndarray:
    """Ids, each as often as count^exponent asks, but at least once: a uniform draw is a sample."""
    weights = counts_V.astype(np.float64) ** exponent
    size = max(_DRAWS, 16 * len(counts_V))
    times = np.maximum(1, np.round(weights / weights.sum() * size)).astype(np.int64)
    return np.repeat(np.arange(len(counts_V), dtype=np.int32), times)


def batches(
    c: Config, stream: np.ndarray, counts_V: np.ndarray, length: int
) -> Iterator[tuple[float, Batch]]:
    """All epochs' text, a round at a time: the share of it done after, and the round's batches.

    A round has ``length`` batches for each replica: leaves are [R,M,B,...]. Thinned out, the text
    runs on through sentences, replicas and epochs; a window ends where its sentence ends, or,
    rarely, where a round does. The last round is filled up with padding, behind equal parts of the
    text for all replicas. The rate falls from update to update.
    """
    rng = np.random.default_rng(c.seed)
    negatives = negative_table(counts_V, c.exponent)
    drawn = samples(c) if c.objective == "negative" else 0
    W, (R, M, B) = c.window, (replicas(c), length, tiles(c))
    whole = R * M * B * c.centres
    for words, sentences, begun, done in _rounds(c, stream, counts_V, whole, rng):

        def cut(x: np.ndarray) -> np.ndarray:
            parts = [np.pad(part, (0, whole // R - len(part))) for part in np.array_split(x, R)]
            x = np.pad(np.concatenate(parts), W)
            windows = np.lib.stride_tricks.sliding_window_view(x, c.centres + 2 * W)
            return windows[:: c.centres].reshape(R, M, B, -1)

        full = len(words) / whole  # an update's share of the text, as far as there is text
        shares_M = np.minimum(1, begun + (done - begun) / full * np.arange(M) / M)
        rates_M = (rate(c) * np.maximum(1e-3, 1 - shares_M)).astype(np.float32)
        batch = Batch(
            cut(words),
            cut(sentences),
            rng.integers(1, W + 1, size=(R, M, B, c.centres), dtype=np.int32),
            negatives[rng.integers(len(negatives), size=(R, M, B, drawn), dtype=np.int32)],
            np.tile(rates_M, (R, 1)),
        )
        yield done, batch


def _rounds(
    c: Config, stream: np.ndarray, counts_V: np.ndarray, whole: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray, float, float]]:
    """The text in lots of ``whole`` words, the last one smaller.

    Yields:
      Ids, their sentences' numbers, and the shares of the work done before and after them.
    """
    shares_V = keep_shares(counts_V, c.subsample)
    words = sentences = np.zeros(0, np.int32)
    number, total, begun = 1, c.epochs * len(stream), 0.0
    for start in range(0, total, len(stream)):
        for at in range(0, len(stream), _CHUNK):
            chunk = np.asarray(stream[at : at + _CHUNK])
            numbers = number + np.cumsum(chunk == END, dtype=np.int32)
            number = numbers[-1]
            kept = (rng.random(len(chunk), dtype=np.float32) < shares_V[chunk]) & (chunk != END)
            words = np.concatenate([words, chunk[kept]])
            sentences = np.concatenate([sentences, numbers[kept]])
            cut = len(words) - len(words) % whole
            a_word = ((start + at + len(chunk)) / total - begun) / max(len(words), 1)
            for i in range(0, cut, whole):
                done = min(1.0, begun + whole * a_word)
                yield words[i : i + whole], sentences[i : i + whole], begun, done
                begun = done
            words, sentences = words[cut:], sentences[cut:]
    if len(words):
        yield words, sentences, begun, 1.0
