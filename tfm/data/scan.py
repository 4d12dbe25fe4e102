"""One look at the whole corpus before training: what fits the rows, what is dropped, how long."""

import dataclasses
import hashlib
import io

import numpy as np

from tfm import config, storage
from tfm.data import corpus, tokenizer

_CHUNK = 16384  # Pairs tokenised at a time.

Tokenizers = tuple[tokenizer.Tokenizer, tokenizer.Tokenizer]


@dataclasses.dataclass(frozen=True, eq=False)
class Scan:
    """What the stream needs to know about a corpus; 4 bytes of memory a pair.

    Attributes:
      kept: uint32, indices of the pairs that fit, ascending.
      lengths: uint16 [pairs, 2], tokens of each side with EOS (65535 stands for more);
        mapped from disk, not held in memory.
      source_length, target_length: cells of a row, S and T, as given or as chosen.
      source_tokens, target_tokens: sums over ``kept``, EOS included.
      dropped: pairs left out, by reason: "undecodable" and "empty" (from conversion),
        "blank" (no token on a side), "too long".
      first_dropped: the first line of a reason, where known.
    """

    kept: np.ndarray
    lengths: np.ndarray
    source_length: int
    target_length: int
    source_tokens: int
    target_tokens: int
    dropped: dict[str, int]
    first_dropped: dict[str, int]

    @property
    def pairs_per_row(self) -> float:
        """Pairs of mean length that fill a row, by the side that is full first."""
        mean_source = self.source_tokens / len(self.kept)
        mean_target = self.target_tokens / len(self.kept)
        return min(self.source_length / mean_source, self.target_length / mean_target)

    def resolved(self, data: config.Data) -> config.Data:
        """``data`` with the row lengths of this scan, for the dev set and the model."""
        lengths = {"source_length": self.source_length, "target_length": self.target_length}
        return dataclasses.replace(data, **lengths)

    def report(self) -> str:
        """One line for the log: pairs kept, pairs dropped and why, mean lengths."""
        total = len(self.kept) + sum(self.dropped.values())
        parts = [f"{len(self.kept):,} kept"]
        for reason, count in self.dropped.items():
            note = f" (first: line {first:,})" if (first := self.first_dropped.get(reason)) else ""
            if reason == "too long":
                note = f" (over {self.source_length}/{self.target_length} tokens)"
            parts.append(f"{count:,} {reason}{note}")
        means = self.source_tokens / len(self.kept), self.target_tokens / len(self.kept)
        return (
            f"{total:,} pairs: {', '.join(parts)}; tokens a pair {means[0]:.1f}/{means[1]:.1f}; "
            f"rows of {self.source_length}/{self.target_length}"
        )


def scan(pairs: corpus.Pairs, tokenizers: Tokenizers, data: config.Data) -> Scan:
    """Counts the tokens of every pair, once for a corpus and its tokenizers, and sorts them out.

    A row length of 0 in ``data`` is chosen here, a multiple of 8, so that the mean pair fills
    both sides alike.

    Raises:
      ValueError: both row lengths are 0, or no pair fits.
    """
    lengths = _lengths(pairs, tokenizers, data)
    limits = _row_lengths(lengths, data)
    kept = np.empty(len(lengths), np.uint32)
    sums, count, blank = np.zeros(2, np.int64), 0, 0
    for start in range(0, len(lengths), 1 << 20):
        part = lengths[start : start + (1 << 20)]
        filled = (part > 1).all(axis=1)
        fits = filled & (part <= limits).all(axis=1)
        found = np.flatnonzero(fits)
        kept[count : count + len(found)] = found + start
        count, blank = count + len(found), blank + int((~filled).sum())
        sums += part[fits].sum(axis=0, dtype=np.int64)
    if count == 0:
        raise ValueError(
            f"none of {len(lengths):,} pairs fits rows of {limits[0]}/{limits[1]} tokens; raise "
            "data.source_length and data.target_length"
        )
    dropped = {**pairs.dropped, "blank": blank, "too long": len(lengths) - blank - count}
    return Scan(
        kept=kept[:count],
        lengths=lengths,
        source_length=limits[0],
        target_length=limits[1],
        source_tokens=int(sums[0]),
        target_tokens=int(sums[1]),
        dropped={reason: number for reason, number in dropped.items() if number},
        first_dropped=pairs.first_dropped,
    )


def _lengths(pairs: corpus.Pairs, tokenizers: Tokenizers, data: config.Data) -> np.ndarray:
    """uint16 [pairs, 2]; computed once, then mapped from the cache."""
    names = [pairs.fingerprint, *(side.digest for side in tokenizers)]
    key = hashlib.sha256("\n".join(names).encode()).hexdigest()[:24]
    path = corpus.cache_dir(data) / "lengths" / f"{key}.npy"
    if not path.exists():
        header = io.BytesIO()
        kind = {"descr": "<u2", "fortran_order": False, "shape": (len(pairs), 2)}
        np.lib.format.write_array_header_1_0(header, kind)
        # The whole file in one piece of memory: np.save of an array would need it twice.
        content = bytearray(header.tell() + 4 * len(pairs))
        content[: header.tell()] = header.getvalue()
        lengths = np.frombuffer(content, "<u2", offset=header.tell()).reshape(-1, 2)
        for start in range(0, len(pairs), _CHUNK):
            chunk = pairs.__getitems__(range(start, min(start + _CHUNK, len(pairs))))
            for side in (0, 1):
                ids = tokenizers[side].encode_batch([pair[side] for pair in chunk])
                column = [min(len(tokens), 65535) for tokens in ids]
                lengths[start : start + len(chunk), side] = column
        storage.write_atomically(path, content)
    return np.load(path, mmap_mode="r")


def _row_lengths(lengths: np.ndarray, data: config.Data) -> tuple[int, int]:
    """(S, T); the one that is 0 follows from the other and the ratio of the tokens."""
    limits = [data.source_length, data.target_length]
    if all(limits):
        return limits[0], limits[1]
    if not any(limits):
        raise ValueError("data.source_length and data.target_length: at most one may be 0")
    given = int(np.argmax(limits))
    sums = np.zeros(2, np.int64)
    for start in range(0, len(lengths), 1 << 20):
        part = lengths[start : start + (1 << 20)]
        sums += part[part[:, given] <= limits[given]].sum(axis=0, dtype=np.int64)
    ideal = limits[given] * sums[1 - given] / max(sums[given], 1)
    # The multiple of 8 below costs cells of the given side; it may cost 4 % of them.
    below = int(ideal // 8) * 8
    limits[1 - given] = below if below >= 0.96 * ideal and below > 0 else below + 8
    return limits[0], limits[1]
