"""The Huffman tree of the hierarchical softmax, in which frequent words are near the root."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Paths(NamedTuple):
    """The path of every word from its leaf up to the root of the tree.

    Attributes:
      nodes_VL: the inner nodes on the path, numbered from 0; padded with 0. int32.
      codes_VL: the word's Huffman code, a bit for each of these nodes: whether the path comes from
        the node's left (0) or right (1) child; padded with −1. int8.
    """

    nodes_VL: np.ndarray
    codes_VL: np.ndarray


def paths(counts: Sequence[int]) -> Paths:
    """Builds Huffman's tree over words with these counts: V − 1 inner nodes, shortest mean path.

    Raises:
      ValueError: fewer than two words.
    """
    V = len(counts)
    if V < 2:
        raise ValueError(f"Huffman tree: needs at least two words, got {V}")
    parents, bits = np.zeros(2 * V - 1, np.int32), np.zeros(2 * V - 1, np.int8)
    heap = [(int(count), i) for i, count in enumerate(counts)]  # Ties go to the smaller number.
    heapq.heapify(heap)
    for node in range(V, 2 * V - 1):
        (a, left), (b, right) = heapq.heappop(heap), heapq.heappop(heap)
        parents[[left, right]], bits[right] = node, 1
        heapq.heappush(heap, (a + b, node))

    nodes, codes, current = [], [], np.arange(V)
    root = 2 * V - 2
    while (current != root).any():
        below_root = current != root
        codes.append(np.where(below_root, bits[current], -1))
        current = np.where(below_root, parents[current], root)
        nodes.append(np.where(below_root, current - V, 0))
    return Paths(np.stack(nodes, 1).astype(np.int32), np.stack(codes, 1).astype(np.int8))
