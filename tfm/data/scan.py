"""The scan of a corpus before training: token counts, row lengths, and which pairs are dropped."""

import dataclasses
import hashlib
import io

import numpy as np

from tfm import config, storage
from tfm.data import corpus, tokenizer

_CHUNK = 16384  # Pairs tokenised at a time.
_SLICE = 1 << 20  # Pairs whose lengths are in memory at a time.
_MAX_LENGTH = 65535  # Longer sentences are recorded with this length.

Tokenizers = tuple[tokenizer.Tokenizer, tokenizer.Tokenizer]


@dataclasses.dataclass(frozen=True, eq=False)
class Scan:
    """The result of a scan; it takes 4 bytes of memory a pair.

    Attributes:
      kept: uint32, indices of the pairs that fit a row, ascending.
      lengths: uint16 [pairs, 2], tokens of each side with EOS, 65535 at most; a file mapped into
        memory.
      source_length, target_length: tokens that a row holds, S and T, as given or as chosen.
      source_tokens, target_tokens: sums over the pairs kept, EOS included.
      dropped: number of pairs left out, by reason: "undecodable" and "empty" (from conversion),
        "blank" (a side has no token), "cleaned" (see ``cleaning``) and "too long".
      first_dropped: line number of the first pair left out for a reason, where known.
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
        """Number of pairs of mean length in a row, limited by the side that is full first."""
        mean_source = self.source_tokens / len(self.kept)
        mean_target = self.target_tokens / len(self.kept)
        return min(self.source_length / mean_source, self.target_length / mean_target)

    def resolved(self, data: config.Data) -> config.Data:
        """Returns ``data`` with this scan's row lengths, for the dev set and the model."""
        return dataclasses.replace(
            data, source_length=self.source_length, target_length=self.target_length
        )

    def report(self) -> str:
        """Returns a line for the log: pairs kept, pairs dropped by reason, mean lengths."""
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


def scan(
    pairs: corpus.Pairs,
    tokenizers: Tokenizers,
    data: config.Data,
    faults: np.ndarray | None = None,
) -> Scan:
    """Counts the tokens of every pair and decides which pairs fit a row.

    Token counts are cached on disk by corpus and tokenizers. A row length of 0 in ``data`` is
    chosen here, as a multiple of 8 such that pairs of mean length fill both sides alike.

    Args:
      faults: of each pair, as of ``cleaning.faults``; pairs with one are dropped.

    Raises:
      ValueError: both row lengths are 0, or no pair fits.
    """
    lengths = _lengths(pairs, tokenizers, data)
    limits = _row_lengths(lengths, data)
    kept = np.empty(len(lengths), np.uint32)
    sums, count, blank, cleaned = np.zeros(2, np.int64), 0, 0, 0
    for start in range(0, len(lengths), _SLICE):
        part = lengths[start : start + _SLICE]
        filled = (part > 1).all(axis=1)
        fits = filled & (part <= limits).all(axis=1)
        if faults is not None:
            clean = faults[start : start + _SLICE] == 0
            cleaned += int((filled & ~clean).sum())
            fits &= clean
        found = np.flatnonzero(fits)
        kept[count : count + len(found)] = found + start
        count, blank = count + len(found), blank + int((~filled).sum())
        sums += part[fits].sum(axis=0, dtype=np.int64)
    if count == 0:
        raise ValueError(
            f"none of {len(lengths):,} pairs fits rows of {limits[0]}/{limits[1]} tokens; raise "
            "data.source_length and data.target_length"
        )
    dropped = {**pairs.dropped, "blank": blank, "cleaned": cleaned}
    dropped["too long"] = len(lengths) - blank - cleaned - count
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
    """Returns the token counts, uint16 [pairs, 2], mapped from a file that is computed once."""
    names = [pairs.fingerprint, *(side.digest for side in tokenizers)]
    key = hashlib.sha256("\n".join(names).encode()).hexdigest()[:24]
    path = corpus.cache_dir(data) / "lengths" / f"{key}.npy"
    if not path.exists():
        header = io.BytesIO()
        array_type = {"descr": "<u2", "fortran_order": False, "shape": (len(pairs), 2)}
        np.lib.format.write_array_header_1_0(header, array_type)
        # The array is a view into the file's content: np.save would need the memory twice.
        content = bytearray(header.tell() + 4 * len(pairs))
        content[: header.tell()] = header.getvalue()
        lengths = np.frombuffer(content, "<u2", offset=header.tell()).reshape(-1, 2)
        for start in range(0, len(pairs), _CHUNK):
            chunk = pairs.__getitems__(range(start, min(start + _CHUNK, len(pairs))))
            for side in (0, 1):
                ids = tokenizers[side].encode_batch([pair[side] for pair in chunk])
                column = [min(len(tokens), _MAX_LENGTH) for tokens in ids]
                lengths[start : start + len(chunk), side] = column
        storage.write_atomically(path, content)
    return np.load(path, mmap_mode="r")


def _row_lengths(lengths: np.ndarray, data: config.Data) -> tuple[int, int]:
    """Returns (S, T); one that is 0 follows from the other and the ratio of token counts."""
    limits = [data.source_length, data.target_length]
    if all(limits):
        return limits[0], limits[1]
    if not any(limits):
        raise ValueError("data.source_length and data.target_length: at most one may be 0")
    given = int(np.argmax(limits))
    sums = np.zeros(2, np.int64)
    for start in range(0, len(lengths), _SLICE):
        part = lengths[start : start + _SLICE]
        sums += part[part[:, given] <= limits[given]].sum(axis=0, dtype=np.int64)
    ideal = limits[given] * sums[1 - given] / max(sums[given], 1)
    # Rounding down leaves tokens of the given side unused; 4 % of them are acceptable.
    below = int(ideal // 8) * 8
    limits[1 - given] = below if below >= 0.96 * ideal and below > 0 else below + 8
    return limits[0], limits[1]
