"""Two languages, two spaces, one rotation: words that mean the same come to stand together."""

from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import sparse

from tfm.word2vec.vectors import Vectors, units

_AT_ONCE = 1024  # words whose scores against all others exist at one time

Dictionary = list[tuple[str, str]]


def cooccurring(
    source_sentences: Iterable[Sequence[str]],
    target_sentences: Iterable[Sequence[str]],
    source: Vectors,
    target: Vectors,
    least: int = 5,
    threshold: float = 0.3,
) -> Dictionary:
    """A dictionary from sentences and their translations: mutual best by Dice's coefficient.

    Dice is 2·n(a,b) / (n(a) + n(b)), n = sentence pairs that hold the words (Smadja 1996; Melamed
    2000 for taking only pairs that choose each other). Only words with vectors are looked at.

    Args:
      least: pairs of sentences in which two words must meet.
      threshold: the smallest Dice.

    Returns:
      (source word, target word), the most certain first; a word stands in one pair only.

    Raises:
      ValueError: not as many sentences on one side as on the other.
    """
    a_PV, b_PV = _presence(source_sentences, source), _presence(target_sentences, target)
    if a_PV.shape[0] != b_PV.shape[0]:
        raise ValueError(
            f"align: {a_PV.shape[0]:,} source sentences but {b_PV.shape[0]:,} target sentences: "
            "sentence N of one must translate sentence N of the other"
        )
    alone_a, alone_b = (np.asarray(x.sum(axis=0)).ravel() for x in (a_PV, b_PV))
    met = (a_PV.T @ b_PV).tocoo()
    often = met.data >= least
    a, b, n = met.row[often], met.col[often], met.data[often]
    dice = 2 * n / (alone_a[a] + alone_b[b])
    best_a, best_b = np.zeros(len(alone_a)), np.zeros(len(alone_b))
    np.maximum.at(best_a, a, dice)
    np.maximum.at(best_b, b, dice)
    mutual = np.flatnonzero((dice >= threshold) & (dice == best_a[a]) & (dice == best_b[b]))
    pairs, used = [], (set(), set())
    for i in mutual[np.argsort(-dice[mutual], kind="stable")]:  # of equals the first
        if a[i] not in used[0] and b[i] not in used[1]:
            pairs.append((source.words[a[i]], target.words[b[i]]))
            used[0].add(a[i])
            used[1].add(b[i])
    return pairs


def _presence(sentences: Iterable[Sequence[str]], vectors: Vectors) -> sparse.csr_array:
    """Which sentence holds which word, [P,V] int32 of 0 and 1."""
    columns, ends = array("i"), array("q", [0])
    for words in sentences:
        columns.extend(sorted({vectors.ids[word] for word in words if word in vectors.ids}))
        ends.append(len(columns))
    data = np.ones(len(columns), np.int32)
    shape = (len(ends) - 1, len(vectors.words))
    return sparse.csr_array((data, np.array(columns), np.array(ends)), shape=shape)


def read_dictionary(lines: Iterable[str]) -> Dictionary:
    """A source word and a target word a line, white space between; several lines a word may be.

    Raises:
      ValueError: a line does not hold two words.
    """
    pairs = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if words and len(words) != 2:
            raise ValueError(f"dictionary, line {number}: {len(words)} words where 2 belong")
        if words:
            pairs.append((words[0], words[1]))
    return pairs


def split(dictionary: Dictionary, share: float, seed: int) -> tuple[Dictionary, Dictionary]:
    """A part to learn from, and a part held out; a source word's translations stay together.

    Raises:
      ValueError: the share is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"align: held out is a share of {share}; it must be at least 0, below 1")
    sources = sorted({a for a, _ in dictionary})
    order = np.random.default_rng(seed).permutation(len(sources))
    count = min(round(share * len(sources)), max(len(sources) - 1, 0))  # one is left to learn from
    held = {sources[i] for i in order[:count]}
    return [p for p in dictionary if p[0] not in held], [p for p in dictionary if p[0] in held]


def known(dictionary: Dictionary, source: Vectors, target: Vectors) -> Dictionary:
    """The pairs with a vector on both sides."""
    return [(a, b) for a, b in dictionary if a in source.ids and b in target.ids]


def normalise(table_VD: np.ndarray) -> np.ndarray:
    """Rows of length 1, centred, and of length 1 again (Xing 2015; Artetxe 2018, §3.1)."""
    unit_VD = units(table_VD)
    return units(unit_VD - unit_VD.mean(axis=0))


def procrustes(source_ND: np.ndarray, target_ND: np.ndarray) -> np.ndarray:
    """The rotation W [D,D] with the smallest ‖source W − target‖ (Schönemann 1966; Xing 2015).

    W = U Vᵀ of the singular value decomposition sourceᵀ target = U Σ Vᵀ; it changes no angle.
    """
    u_DD, _, v_DD = np.linalg.svd(source_ND.T.astype(np.float64) @ target_ND)
    return (u_DD @ v_DD).astype(np.float32)


def align(
    source: Vectors, target: Vectors, dictionary: Dictionary
) -> tuple[Vectors, Vectors, np.ndarray]:
    """Both spaces in one: each normalised, the source turned towards the target.

    Args:
      dictionary: pairs to learn from; those without vectors are left out.

    Returns:
      The source, the target, and the rotation [D,D].

    Raises:
      ValueError: the widths differ, or no pair has vectors on both sides.
    """
    widths = source.table_VD.shape[1], target.table_VD.shape[1]
    if widths[0] != widths[1]:
        raise ValueError(f"align: vectors of widths {widths[0]} and {widths[1]}")
    pairs = known(dictionary, source, target)
    if not pairs:
        raise ValueError(f"align: none of {len(dictionary)} pairs has vectors on both sides")
    x_VD, y_VD = normalise(source.table_VD), normalise(target.table_VD)
    turn_DD = procrustes(
        x_VD[[source.ids[a] for a, _ in pairs]], y_VD[[target.ids[b] for _, b in pairs]]
    )
    return Vectors(source.words, x_VD @ turn_DD), Vectors(target.words, y_VD), turn_DD


def _crowding(from_VD: np.ndarray, to_VD: np.ndarray, nearest: int) -> np.ndarray:
    """The mean cosine of each vector with its ``nearest`` nearest on the other side, [V]."""
    k = min(nearest, len(to_VD))
    parts = [
        np.partition(from_VD[i : i + _AT_ONCE] @ to_VD.T, -k, axis=1)[:, -k:].mean(axis=1)
        for i in range(0, len(from_VD), _AT_ONCE)
    ]
    return np.concatenate(parts)


def translate(
    source: Vectors, target: Vectors, words: Sequence[str], count: int, nearest: int = 10
) -> list[list[str]]:
    """The ``count`` best translations of each word, by CSLS (Conneau 2018, §2.3).

    2 cos(x, y) − r(x) − r(y), where r is a word's mean cosine with its ``nearest`` nearest on the
    other side: without it a few hubs would be everyone's neighbour. r(x) does not change an order.

    Args:
      source, target: in one space, as ``align`` gives them.
      nearest: k of CSLS; 0 is the plain cosine.
    """
    y_VD = target.units_VD
    crowded_V = _crowding(y_VD, source.units_VD, nearest) if nearest else np.zeros(len(y_VD))
    found = []
    for start in range(0, len(words), _AT_ONCE):
        rows = [source.ids[word] for word in words[start : start + _AT_ONCE]]
        scores_QV = 2 * source.units_VD[rows] @ y_VD.T - crowded_V
        best = np.argsort(-scores_QV, axis=1, kind="stable")[:, :count]
        found += [[target.words[i] for i in row] for row in best]
    return found


def precision(
    source: Vectors, target: Vectors, dictionary: Dictionary, count: int, nearest: int = 10
) -> float:
    """Precision@count: the share of source words with a right translation among the first.

    A word with several translations is right with any of them (Conneau 2018, §3). Pairs without
    vectors do not count.

    Raises:
      ValueError: no pair has vectors on both sides.
    """
    right: dict[str, set[str]] = {}
    for a, b in known(dictionary, source, target):
        right.setdefault(a, set()).add(b)
    if not right:
        raise ValueError(f"align: none of {len(dictionary)} pairs has vectors on both sides")
    found = translate(source, target, list(right), count, nearest)
    hits = [bool(right[word] & set(best)) for word, best in zip(right, found, strict=True)]
    return sum(hits) / len(hits)
