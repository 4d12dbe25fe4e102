"""Packing: several short sentence pairs share one row of a batch, so that little is padding.

Choosing the pairs of a row is a subset-sum problem in two dimensions, the source and the target
length. Rows are short enough to solve it exactly.
"""

from collections.abc import Sequence

import numpy as np

from tfm.data import tokenizer
from tfm.transformer import Batch

PairIds = tuple[list[int], list[int]]  # Source and target ids of one pair, each with EOS.

_GAP = 64  # Tokens that the exact search fills; its work grows with their square.


def choose(lengths: Sequence[tuple[int, int]], source_length: int, target_length: int) -> list[int]:
    """Chooses the waiting pairs that share the next row: the oldest, then those that fill it best.

    Pairs are taken in order until about 64 free tokens are left. That gap is filled with the
    subset of the other pairs that has the most tokens, found exactly: the set of reachable sums
    (t, s) is one integer in which bit ``t·width + s`` stands for a sum, and adding a pair shifts
    it by the pair's lengths. Earlier pairs win ties, so no pair waits for long.

    Args:
      lengths: (source, target) tokens of each waiting pair, oldest first; each fits a row.
      source_length, target_length: tokens that a row holds, S and T.

    Returns:
      Indices into ``lengths``, ascending; 0 is always among them.
    """
    head, gap_s, gap_t = 0, source_length, target_length
    for s, t in lengths:
        if head and min(gap_s - s, gap_t - t) < _GAP:
            break
        head, gap_s, gap_t = head + 1, gap_s - s, gap_t - t
    width = 2 * gap_s + 1  # Sums over the gap land in the spare half and are masked off there.
    row = (1 << (gap_s + 1)) - 1
    inside = sum(row << (t * width) for t in range(gap_t + 1))
    full = 1 << (gap_t * width + gap_s)
    shifts = [t * width + s if s <= gap_s else 0 for s, t in lengths]
    reached = [1]
    for shift in shifts[head:]:
        if reached[-1] & full:
            break
        reached.append((reached[-1] | (reached[-1] << shift)) & inside)
    at = _fullest(reached[-1], width, row, gap_s, gap_t)
    chosen = []
    for i in range(len(reached) - 1, 0, -1):
        if not reached[i - 1] >> at & 1:
            chosen.append(head + i - 1)
            at -= shifts[head + i - 1]
    return [*range(head), *reversed(chosen)]


def _fullest(sums: int, width: int, row: int, gap_s: int, gap_t: int) -> int:
    """Index of the bit of ``sums`` with the largest t + s; ties go to the largest t."""
    best, at = -1, 0
    for t in range(gap_t, -1, -1):
        if t + gap_s <= best:
            break
        s = (sums >> (t * width) & row).bit_length() - 1
        if s >= 0 and t + s > best:
            best, at = t + s, t * width + s
    return at


def to_batch(rows: Sequence[Sequence[PairIds]], source_length: int, target_length: int) -> Batch:
    """Lays out rows of pairs as arrays.

    Args:
      rows: the pairs of each of the B rows; a row may be empty.
      source_length, target_length: S and T.

    Returns:
      A batch of NumPy arrays. The k-th pair of a row, from 1, is segment k on both sides.
    """
    source, source_segments, source_positions = _lay_out(
        [[pair[0] for pair in row] for row in rows], source_length
    )
    target, target_segments, target_positions = _lay_out(
        [[pair[1] for pair in row] for row in rows], target_length
    )
    shifted = np.roll(target, 1, axis=1)
    first = (target_positions == 0) & (target_segments > 0)
    target_input = np.where(first, tokenizer.BOS, shifted) * (target_segments > 0)
    return Batch(
        source=source,
        source_segments=source_segments,
        source_positions=source_positions,
        target_input=target_input.astype(np.int32),
        target_segments=target_segments,
        target_positions=target_positions,
        target=target,
    )


def _lay_out(
    rows: Sequence[Sequence[list[int]]], length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Concatenates the sentences of each row: ids, segments and positions, each [B, length]."""
    ids, segments, positions = np.zeros((3, len(rows), length), np.int32)
    for b, row in enumerate(rows):
        lengths = [len(sentence) for sentence in row]
        used = sum(lengths)
        ends = np.cumsum(lengths, dtype=np.int32)
        ids[b, :used] = [i for sentence in row for i in sentence]
        segments[b, :used] = np.repeat(np.arange(1, len(row) + 1), lengths)
        positions[b, :used] = np.arange(used) - np.repeat(ends - lengths, lengths)
    return ids, segments, positions
