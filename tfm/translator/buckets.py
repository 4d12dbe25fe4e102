"""Sentences in few shapes: each is padded to a bucket by its own length.

What a sentence is padded to does not depend on its neighbours, and the number of compiled shapes is
bounded.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfm.data.tokenizer import EOS


def length(pieces: int, limit: int) -> int:
    """The padded length of a sentence: 8, 16, 24, 32, 48, 64, 96, ... up to the model's limit."""
    power = max(8, 1 << (pieces - 1).bit_length())
    between = power * 3 // 4
    return min(limit, between if power > 16 and pieces <= between else power)


def lengths(limit: int) -> list[int]:
    """All padded lengths of sentences up to the model's limit, shortest first."""
    return sorted({length(pieces, limit) for pieces in range(1, limit + 1)})


def count(sentences: int, batch_size: int, shards: int = 1) -> int:
    """The padded number of sentences: 1, 4, 16, ... or a whole batch.

    Args:
      shards: of the batch over devices; the number is a multiple of them.
    """
    padded = min(batch_size, 4 ** math.ceil(math.log(sentences, 4))) if sentences > 1 else 1
    return -(-padded // shards) * shards


def group(sizes: Sequence[Any], batch_size: int) -> list[tuple[Any, list[int]]]:
    """Indices of equal size, at most ``batch_size`` together: [(size, indices), ...]."""
    order = sorted(range(len(sizes)), key=lambda i: (sizes[i], i))
    batches: list[tuple[Any, list[int]]] = []
    for i in order:
        if not batches or batches[-1][0] != sizes[i] or len(batches[-1][1]) == batch_size:
            batches.append((sizes[i], []))
        batches[-1][1].append(i)
    return batches


def pad(rows: Sequence[Sequence[int]], count: int, length: int) -> np.ndarray:
    """Ids in rows of one length with 0 behind them: [count,length] int32."""
    padded = np.zeros((count, length), np.int32)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


def crop(ids: list[int], limit: int) -> list[int]:
    """At most ``limit`` ids, the last of them eos.

    Texts are split to fit, but a single character may take more tokens than fit: its last ones are
    dropped.
    """
    return ids if len(ids) <= limit else [*ids[: limit - 1], EOS]
