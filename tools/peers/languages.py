"""The word vectors of two languages aligned: by tfm, and with gensim's vectors and SciPy."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import gensim
import numpy as np
import scipy

from peers.gensim_words import Sentences, by_gensim, by_tfm
from peers.measure import Row
from tfm.data import tokenizer
from tfm.word2vec import align, words
from tfm.word2vec.align import Dictionary
from tfm.word2vec.model import Config
from tfm.word2vec.vectors import Vectors

_log = logging.getLogger("tfm")

HELD_OUT = 0.2
NEAREST = 10  # neighbours of CSLS

Scores = dict[str, float]
Alignment = Callable[[Vectors, Vectors, Dictionary, Dictionary], Scores]


def read(paths: Sequence[Path], tokenizer_file: Path | None) -> Sentences:
    """The pieces of every line, or its words if there is no tokenizer."""
    words.check(paths, by_words=tokenizer_file is None)
    return list(words.sentences(paths, tokenizer_file and tokenizer.load(tokenizer_file)))


def with_tfm(source: Vectors, target: Vectors, learned: Dictionary, held: Dictionary) -> Scores:
    """Precision on ``held`` after ``tfm.word2vec.align`` on ``learned``."""
    aligned = align.align(source, target, learned)[:2]
    return {
        f"{name}@{count}": align.precision(*aligned, held, count, nearest)
        for name, nearest in (("csls", NEAREST), ("cosine", 0))
        for count in (1, 5)
    }


def with_scipy(source: Vectors, target: Vectors, learned: Dictionary, held: Dictionary) -> Scores:
    """The same by SciPy in float64, with the scores of all pairs of words in one matrix."""
    x_VD, y_VD = (_normalised(side.table_VD.astype(np.float64)) for side in (source, target))

    def rows(pairs: Dictionary) -> tuple[np.ndarray, np.ndarray]:
        a, b = zip(*pairs, strict=True)
        return np.array([source.ids[w] for w in a]), np.array([target.ids[w] for w in b])

    a, b = rows(learned)
    rotation_DD, _ = scipy.linalg.orthogonal_procrustes(x_VD[a], y_VD[b])
    cosines = x_VD @ rotation_DD @ y_VD.T
    density = np.partition(cosines, -NEAREST, axis=0)[-NEAREST:].mean(axis=0)
    a, b = rows(held)  # each word occurs in one pair only, so it has one translation
    scores = {}
    for name, table in (("csls", 2 * cosines - density), ("cosine", cosines)):
        better = (table[a] > table[a, b][:, None]).sum(axis=1)
        scores |= {f"{name}@{count}": float((better < count).mean()) for count in (1, 5)}
    return scores


def _normalised(table_VD: np.ndarray) -> np.ndarray:
    unit_VD = table_VD / np.linalg.norm(table_VD, axis=1, keepdims=True)
    centred_VD = unit_VD - unit_VD.mean(axis=0)
    return centred_VD / np.linalg.norm(centred_VD, axis=1, keepdims=True)


def compare(
    config: Config, source: Sentences, target: Sentences, seeds: Sequence[int], workers: int
) -> list[Row]:
    """Mean precision over seeds; sentence N of ``target`` translates sentence N of ``source``.

    The dictionary is found once, since the vocabularies depend neither on the side nor on the seed,
    and a fifth of it is held out.

    Args:
      workers: threads of gensim.
    """
    gensim_name = f"gensim {gensim.__version__}"
    scipy_name = f"{gensim_name}, SciPy {scipy.__version__}"
    scores: dict[str, list[Scores]] = {"tfm": [], f"{gensim_name}, tfm": [], scipy_name: []}
    texts = [list(filter(None, side)) for side in (source, target)]
    halves = None
    for seed in seeds:
        seeded = replace(config, seed=seed)
        ours = [by_tfm(seeded, text).vectors for text in texts]
        theirs = [by_gensim(workers, seeded, text).vectors for text in texts]
        halves = halves or align.split(align.cooccurring(source, target, *ours), HELD_OUT, 0)
        for side, vectors, alignment in zip(
            scores, (ours, theirs, theirs), (with_tfm, with_tfm, with_scipy), strict=True
        ):
            scores[side].append(alignment(*vectors, *halves))
            _log.info(f"{config.method}, seed {seed}, {side}: {scores[side][-1]}")
    learned, held = halves
    work = f"{config.method} vectors, {len(learned):,} pairs to align; precision on {len(held):,}"
    return [
        Row(work, side, len(seeds), 0.0, 0.0, details=_means(found), unit="words/s")
        for side, found in scores.items()
    ]


def _means(scores: list[Scores]) -> Scores:
    return {name: mean(one[name] for one in scores) for name in scores[0]}
