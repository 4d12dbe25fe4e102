"""Evaluation of word vectors: nearest neighbours, analogies, and similarity as people judge it."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import stats

from tfm.word2vec.vectors import Vectors, units

_CHUNK = 1024  # Questions whose scores against all words are in memory at a time.
_ROUNDING = 1e-6  # Norm below which a sum of unit vectors is zero but for rounding, a vector.


class Neighbour(NamedTuple):
    """A word and its cosine with the query."""

    word: str
    cosine: float


class Similarity(NamedTuple):
    """Spearman's rank correlation of cosines with human scores, over the pairs with vectors."""

    spearman: float
    known: int
    asked: int


class Analogies(NamedTuple):
    """Questions of one section: answered right, known (all four words have vectors), asked."""

    section: str
    right: int
    known: int
    asked: int


def neighbours(
    vectors: Vectors, query_D: np.ndarray, count: int, without: Iterable[str] = ()
) -> list[Neighbour]:
    """Returns the ``count`` words with the largest cosine with the query.

    Args:
      without: words to leave out, such as those of which the query is the sum.

    Raises:
      ValueError: the count is not positive.
    """
    if count < 1:
        raise ValueError(f"neighbours: a count of {count}; it must be at least 1")
    cosines_V = vectors.units_VD @ units(query_D)
    cosines_V[[row for row in map(vectors.row, without) if row is not None]] = -np.inf
    count = int(min(count, np.isfinite(cosines_V).sum()))
    best = np.argsort(-cosines_V, kind="stable")[:count]
    return [Neighbour(vectors.words[i], float(cosines_V[i])) for i in best]


def combination(vectors: Vectors, plus: Iterable[str], minus: Iterable[str] = ()) -> np.ndarray:
    """Returns a sum of unit vectors, [D], such as king − man + woman.

    Raises:
      ValueError: no word is given, a word has no vector, or the vectors cancel out.
    """
    signed = [(word, 1) for word in plus] + [(word, -1) for word in minus]
    if not signed:
        raise ValueError("no word given whose neighbours to find")
    for word, _ in signed:
        if vectors.row(word) is None:
            raise ValueError(f"the word {word!r} is not among the {len(vectors.words):,} vectors")
    sum_D = np.asarray(sum(sign * vectors.units_VD[vectors.row(word)] for word, sign in signed))
    if np.linalg.norm(sum_D) < _ROUNDING * len(signed):
        words = " ".join(f"{'+' if sign > 0 else '-'}{word}" for word, sign in signed)
        raise ValueError(f"{words} cancel out: a zero vector has no neighbours")
    return sum_D


def read_pairs(lines: Iterable[str]) -> list[tuple[str, str, float]]:
    """Parses a table of two words and a score, separated by tabs (SimLex-999, WordSim-353).

    Words are not lower-cased; ``Vectors.row`` looks them up as written first. Lines that start with
    "#" are skipped, and so is a heading (a line whose third column is not a number).

    Raises:
      ValueError: a line has fewer than three columns, or no line has a score.
    """
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = line.rstrip().split("\t")
        if len(cells) < 3:
            raise ValueError(f"similarity, line {number}: {len(cells)} columns instead of 3")
        try:
            pairs.append((cells[0], cells[1], float(cells[2])))
        except ValueError as error:
            if pairs:
                raise ValueError(f"similarity, line {number}: {cells[2]!r} is no number") from error
    if not pairs:
        raise ValueError("similarity: no pair of words with a score")
    return pairs


def similarity(vectors: Vectors, pairs: Iterable[tuple[str, str, float]]) -> Similarity:
    """Correlates cosines with human similarity scores (Hill 2015; Finkelstein 2002).

    Raises:
      ValueError: fewer than two pairs have vectors.
    """
    pairs = list(pairs)
    rows = [(vectors.row(a), vectors.row(b), score) for a, b, score in pairs]
    known = [row for row in rows if None not in row]
    if len(known) < 2:
        raise ValueError(f"similarity: {len(known)} of {len(pairs)} pairs have vectors")
    left, right, scores = map(np.array, zip(*known, strict=True))
    cosines = (vectors.units_VD[left] * vectors.units_VD[right]).sum(axis=1)
    return Similarity(float(stats.spearmanr(cosines, scores)[0]), len(known), len(pairs))


def read_questions(lines: Iterable[str]) -> dict[str, list[tuple[str, str, str, str]]]:
    """Parses analogies as in questions-words.txt and CA8.

    A line ": name" begins a section; a line "a b c d" is a question, a : b = c : d. Words are not
    lower-cased, as in ``read_pairs``.

    Raises:
      ValueError: a question does not have four words, or precedes the first section.
    """
    sections: dict[str, list[tuple[str, str, str, str]]] = {}
    questions = None
    for number, line in enumerate(lines, 1):
        words = line.split()
        if words[:1] == [":"]:
            questions = sections.setdefault(" ".join(words[1:]), [])
        elif words:
            if len(words) != 4 or questions is None:
                raise ValueError(f"analogies, line {number}: not four words in a section")
            a, b, c, d = words
            questions.append((a, b, c, d))
    return sections


def analogies(
    vectors: Vectors, sections: dict[str, list[tuple[str, str, str, str]]], most: int | None = None
) -> list[Analogies]:
    """Answers a : b = c : ? by the word nearest to b − a + c (Mikolov 2013c, "3CosAdd").

    The words a, b and c themselves are excluded as answers.

    Args:
      most: use only this many of the most frequent words; None uses all.
    """
    vectors = Vectors(vectors.words[:most], vectors.table_VD[:most])
    units_VD = vectors.units_VD
    scores = []
    for section, questions in sections.items():
        rows = ([vectors.row(word) for word in question] for question in questions)
        known = np.array([row for row in rows if None not in row], int).reshape(-1, 4)
        right = 0
        for start in range(0, len(known), _CHUNK):
            a, b, c, d = known[start : start + _CHUNK].T
            cosines_QV = units(units_VD[b] - units_VD[a] + units_VD[c]) @ units_VD.T
            for asked in (a, b, c):
                cosines_QV[np.arange(len(a)), asked] = -np.inf
            right += int((cosines_QV.argmax(axis=1) == d).sum())
        scores.append(Analogies(section, right, len(known), len(questions)))
    return scores
