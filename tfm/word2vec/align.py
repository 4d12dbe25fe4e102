"""Alignment of two languages' word vectors by a rotation, after which translations are close."""

from array import array
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import sparse

from tfm.word2vec.vectors import Vectors, units

_CHUNK = 1024  # Words whose scores against all others are in memory at a time.

Dictionary = list[tuple[str, str]]


def cooccurring(
    source_sentences: Iterable[Sequence[str]],
    target_sentences: Iterable[Sequence[str]],
    source: Vectors,
    target: Vectors,
    least: int = 5,
    threshold: float = 0.3,
) -> Dictionary:
    """Extracts a dictionary from sentences and their translations: mutual best by Dice.

    Dice's coefficient is 2·n(a,b) / (n(a) + n(b)), where n counts the sentence pairs that contain
    the words (Smadja 1996). Only pairs of words that are each other's best are taken (Melamed
    2000). Words without vectors are ignored.

    Args:
      source_sentences, target_sentences: words of each sentence; sentence N of one translates
        sentence N of the other.
      source, target: the vectors.
      least: the smallest number of sentence pairs in which two words occur together.
      threshold: the smallest Dice coefficient.

    Returns:
      (source word, target word), by falling coefficient; a word occurs in one pair only.

    Raises:
      ValueError: the numbers of sentences differ.
    """
    a_PV, b_PV = _occurrences(source_sentences, source), _occurrences(target_sentences, target)
    if a_PV.shape[0] != b_PV.shape[0]:
        raise ValueError(
            f"align: {a_PV.shape[0]:,} source sentences but {b_PV.shape[0]:,} target sentences: "
            "sentence N of one must translate sentence N of the other"
        )
    counts_a, counts_b = (np.asarray(x.sum(axis=0)).ravel() for x in (a_PV, b_PV))
    together = (a_PV.T @ b_PV).tocoo()
    often = together.data >= least
    a, b, n = together.row[often], together.col[often], together.data[often]
    dice = 2 * n / (counts_a[a] + counts_b[b])
    best_a, best_b = np.zeros(len(counts_a)), np.zeros(len(counts_b))
    np.maximum.at(best_a, a, dice)
    np.maximum.at(best_b, b, dice)
    mutual = np.flatnonzero((dice >= threshold) & (dice == best_a[a]) & (dice == best_b[b]))
    chosen_a: dict[int, int] = {}
    chosen_b: set[int] = set()
    for i in mutual[np.argsort(-dice[mutual], kind="stable")]:  # Ties keep their order.
        if a[i] not in chosen_a and b[i] not in chosen_b:
            chosen_a[a[i]] = b[i]
            chosen_b.add(b[i])
    return [(source.words[i], target.words[j]) for i, j in chosen_a.items()]


def _occurrences(sentences: Iterable[Sequence[str]], vectors: Vectors) -> sparse.csr_array:
    """Returns which sentence contains which word, [P,V] int32 of 0 and 1."""
    columns, ends = array("i"), array("q", [0])
    for words in sentences:
        columns.extend(sorted({vectors.ids[word] for word in words if word in vectors.ids}))
        ends.append(len(columns))
    data = np.ones(len(columns), np.int32)
    shape = (len(ends) - 1, len(vectors.words))
    return sparse.csr_array((data, np.array(columns), np.array(ends)), shape=shape)


def read_dictionary(lines: Iterable[str]) -> Dictionary:
    """Parses lines of a source and a target word; a word may have several lines.

    Raises:
      ValueError: a line does not have two words.
    """
    pairs = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if words and len(words) != 2:
            raise ValueError(f"dictionary, line {number}: {len(words)} words instead of 2")
        if words:
            pairs.append((words[0], words[1]))
    return pairs


def split(dictionary: Dictionary, share: float, seed: int) -> tuple[Dictionary, Dictionary]:
    """Splits a dictionary into a part to learn from and a held-out part.

    Translations of one source word stay together. At least one word is left to learn from.

    Args:
      share: of the source words to hold out, in [0, 1).

    Raises:
      ValueError: the share is out of range.
    """
    if not 0 <= share < 1:
        raise ValueError(f"align: a held-out share of {share}; it must be at least 0 and below 1")
    sources = sorted({a for a, _ in dictionary})
    order = np.random.default_rng(seed).permutation(len(sources))
    count = min(round(share * len(sources)), max(len(sources) - 1, 0))
    held = {sources[i] for i in order[:count]}
    return [p for p in dictionary if p[0] not in held], [p for p in dictionary if p[0] in held]


def known(dictionary: Dictionary, source: Vectors, target: Vectors) -> Dictionary:
    """Returns the pairs with a vector on both sides."""
    return [(a, b) for a, b in dictionary if a in source.ids and b in target.ids]


def _require_known(dictionary: Dictionary, source: Vectors, target: Vectors) -> Dictionary:
    pairs = known(dictionary, source, target)
    if not pairs:
        raise ValueError(f"align: none of {len(dictionary)} pairs has vectors on both sides")
    return pairs


def normalise(table_VD: np.ndarray) -> np.ndarray:
    """Scales rows to norm 1, centres them, and scales again (Xing 2015; Artetxe 2018, §3.1)."""
    unit_VD = units(table_VD)
    return units(unit_VD - unit_VD.mean(axis=0))


def procrustes(source_ND: np.ndarray, target_ND: np.ndarray) -> np.ndarray:
    """Returns the orthogonal W [D,D] that minimises ‖source W − target‖.

    With the singular value decomposition sourceᵀ target = U Σ Vᵀ it is W = U Vᵀ (Schönemann 1966;
    Xing 2015).
    """
    u_DD, _, v_DD = np.linalg.svd(source_ND.T.astype(np.float64) @ target_ND)
    return (u_DD @ v_DD).astype(np.float32)


def align(
    source: Vectors, target: Vectors, dictionary: Dictionary
) -> tuple[Vectors, Vectors, np.ndarray]:
    """Maps two languages into one space: normalises both and rotates the source onto the target.

    Args:
      dictionary: pairs to learn from; those without vectors are ignored.

    Returns:
      The source, the target, and the rotation [D,D].

    Raises:
      ValueError: the widths differ, or no pair has vectors on both sides.
    """
    widths = source.table_VD.shape[1], target.table_VD.shape[1]
    if widths[0] != widths[1]:
        raise ValueError(f"align: vectors of widths {widths[0]} and {widths[1]}")
    pairs = _require_known(dictionary, source, target)
    x_VD, y_VD = normalise(source.table_VD), normalise(target.table_VD)
    rotation_DD = procrustes(
        x_VD[[source.ids[a] for a, _ in pairs]], y_VD[[target.ids[b] for _, b in pairs]]
    )
    return Vectors(source.words, x_VD @ rotation_DD), Vectors(target.words, y_VD), rotation_DD


def _mean_similarity(from_VD: np.ndarray, to_VD: np.ndarray, nearest: int) -> np.ndarray:
    """Returns the mean cosine of each vector with its ``nearest`` neighbours in ``to_VD``, [V]."""
    k = min(nearest, len(to_VD))
    parts = [
        np.partition(from_VD[i : i + _CHUNK] @ to_VD.T, -k, axis=1)[:, -k:].mean(axis=1)
        for i in range(0, len(from_VD), _CHUNK)
    ]
    return np.concatenate(parts)


def translate(
    source: Vectors, target: Vectors, words: Sequence[str], count: int, nearest: int = 10
) -> list[list[str]]:
    """Returns the ``count`` best translations of each word, by CSLS (Conneau 2018, §2.3).

    The score is 2 cos(x, y) − r(x) − r(y), where r is a word's mean cosine with its ``nearest``
    neighbours in the other language. Without r, a few hubs would be near neighbours of most words.
    r(x) is left out, since it does not change the order.

    Args:
      source, target: in one space, as ``align`` returns them.
      nearest: k of CSLS; 0 gives the plain cosine.
    """
    y_VD = target.units_VD
    r_V = _mean_similarity(y_VD, source.units_VD, nearest) if nearest else np.zeros(len(y_VD))
    found = []
    for start in range(0, len(words), _CHUNK):
        rows = [source.ids[word] for word in words[start : start + _CHUNK]]
        scores_QV = 2 * source.units_VD[rows] @ y_VD.T - r_V
        best = np.argsort(-scores_QV, axis=1, kind="stable")[:, :count]
        found += [[target.words[i] for i in row] for row in best]
    return found


def precision(
    source: Vectors, target: Vectors, dictionary: Dictionary, count: int, nearest: int = 10
) -> float:
    """Computes precision@count: the share of source words with a translation among the best.

    Any of a word's translations counts as right (Conneau 2018, §3). Pairs without vectors are
    ignored.

    Raises:
      ValueError: no pair has vectors on both sides.
    """
    right: dict[str, set[str]] = {}
    for a, b in _require_known(dictionary, source, target):
        right.setdefault(a, set()).add(b)
    found = translate(source, target, list(right), count, nearest)
    hits = [bool(right[word] & set(best)) for word, best in zip(right, found, strict=True)]
    return sum(hits) / len(hits)
