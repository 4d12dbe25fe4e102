"""The Huffman tree of the hierarchical softmax: frequent words stand near the root."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Paths(NamedTuple):
    """Every word's way to the root.

    Attributes:
      nodes_VL: inner nodes, numbered from 0, int32; padded with 0.
      turns_VL: which way the word lies at each: 0 or 1; −1 is padding. int8.
    """

    nodes_VL: np.ndarray
    turns_VL: np.ndarray


def paths(counts: Sequence[int]) -> Paths:
    """Huffman's tree over words with these counts: V − 1 inner nodes, shortest mean path.

    Raises:
      ValueError: fewer than two words.
    """
    V = len(counts)
    if V < 2:
        raise ValueError(f"Huffman tree: needs at least two words, got {V}")
    parents, turns = np.zeros(2 * V - 1, np.int32), np.zeros(2 * V - 1, np.int8)
    heap = [(int(count), i) for i, count in enumerate(counts)]  # of equal ones the first made
    heapq.heapify(heap)
    for node in range(V, 2 * V - 1):
        (a, left), (b, right) = heapq.heappop(heap), heapq.heappop(heap)
        parents[[left, right]], turns[right] = node, 1
        heapq.heappush(heap, (a + b, node))

    nodes, ways, here = [], [], np.arange(V)
    root = 2 * V - 2
    while (here != root).any():
        above = here != root
        ways.append(np.where(above, turns[here], -1))
        here = np.where(above, parents[here], root)
        nodes.append(np.where(above, here - V, 0))
    return Paths(np.stack(nodes, 1).astype(np.int32), np.stack(ways, 1).astype(np.int8))
