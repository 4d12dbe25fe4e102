"""How far a row may move in one update: very frequent words take shorter steps.

A batch sums the gradients that a row gets from all its places, taken at one and the same point.
word2vec.c moves after every guess, and sees a word's vector settle. A sum of hundreds of steps
overshoots: "the" would swing ever further. So where the guesses that an update is expected to meet
a row in, times the learning rate, are more than ``FARTHEST``, the row's step is scaled down to it.
At a rate of 0.035 those are 46 guesses.
"""

import numpy as np

from tfm.params import Tree
from tfm.word2vec.corpus import keep_shares
from tfm.word2vec.huffman import Paths
from tfm.word2vec.model import Config, rate, tiles

FARTHEST = 1.6


def guesses(c: Config, counts_V: np.ndarray, paths: Paths | None) -> dict[str, np.ndarray]:
    """The guesses, right and wrong, that each row is expected to take part in, in one update.

    Returns:
      By table, [V] float64.
    """
    text_V = counts_V * keep_shares(counts_V, c.subsample)
    centres_V = tiles(c) * c.centres * text_V / text_V.sum()
    around = c.window + 1.0  # words around a centre: the mean reach on both sides
    right_V = centres_V * (around if c.method == "skipgram" else 1.0)
    if c.objective == "hierarchical":
        met_V = np.zeros(len(counts_V))
        real_VL = paths.turns_VL >= 0
        np.add.at(met_V, paths.nodes_VL[real_VL], np.repeat(right_V, real_VL.sum(axis=1)))
    elif c.objective == "softmax":
        met_V = 2 * right_V
    else:
        drawn_V = counts_V.astype(np.float64) ** c.exponent
        met_V = right_V + c.negatives * right_V.sum() * drawn_V / drawn_V.sum()
    each = met_V.sum() / right_V.sum()  # rows of the output table that a hidden vector meets
    read_V = right_V * each * (around if c.method == "cbow" and c.combine == "sum" else 1.0)
    if c.tables == "one":
        return {"input": read_V + met_V}
    return {"input": read_V, "output": met_V}


def paces(c: Config, counts_V: np.ndarray, paths: Paths | None = None) -> Tree:
    """What each row's steps are multiplied by: by table, [V] float32, at most 1."""
    return {
        name: np.minimum(1.0, FARTHEST / rate(c) / np.maximum(met_V, 1e-9)).astype(np.float32)
        for name, met_V in guesses(c, counts_V, paths).items()
    }
