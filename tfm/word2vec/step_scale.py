"""Smaller steps for the rows of very frequent words.

A batch sums the gradients of all uses of a row, all of them taken at the same point. word2vec.c
updates after every prediction, so that a word's vector converges within the same text. A sum of
hundreds of gradients overshoots: the vector of "the" would oscillate with growing amplitude. So a
row's step is scaled down where the expected number of predictions that use the row in an update,
times the learning rate, exceeds ``MAX_STEP``. At a rate of 0.035 that happens from 46 predictions.
"""

import numpy as np

from tfm.params import Tree
from tfm.word2vec.corpus import keep_probabilities
from tfm.word2vec.huffman import Paths
from tfm.word2vec.model import Config, learning_rate, tiles

MAX_STEP = 1.6


def expected_uses(
    config: Config, counts_V: np.ndarray, paths: Paths | None
) -> dict[str, np.ndarray]:
    """Returns how many predictions, positive and negative, use each row in an update, on average.

    Returns:
      By name of the table, [V] float64.
    """
    text_V = counts_V * keep_probabilities(counts_V, config.subsample)
    centres_V = tiles(config) * config.centres * text_V / text_V.sum()
    context = config.window + 1.0  # Mean number of context words, both sides together.
    positive_V = centres_V * (context if config.method == "skipgram" else 1.0)
    if config.objective == "hierarchical":
        outputs_V = np.zeros(len(counts_V))
        real_VL = paths.codes_VL >= 0
        np.add.at(outputs_V, paths.nodes_VL[real_VL], np.repeat(positive_V, real_VL.sum(axis=1)))
    elif config.objective == "softmax":
        outputs_V = 2 * positive_V
    else:
        drawn_V = counts_V.astype(np.float64) ** config.exponent
        negative_V = config.negatives * positive_V.sum() * drawn_V / drawn_V.sum()
        outputs_V = positive_V + negative_V
    per_prediction = outputs_V.sum() / positive_V.sum()  # Output rows scored for one target.
    is_sum = config.method == "cbow" and config.combine == "sum"
    inputs_V = positive_V * per_prediction * (context if is_sum else 1.0)
    if config.tables == "one":
        return {"input": inputs_V + outputs_V}
    return {"input": inputs_V, "output": outputs_V}


def step_scales(config: Config, counts_V: np.ndarray, paths: Paths | None = None) -> Tree:
    """Returns the factor of the learning rate for each row: by table, [V] float32, at most 1."""
    limit = MAX_STEP / learning_rate(config)
    return {
        name: np.minimum(1.0, limit / np.maximum(uses_V, 1e-9)).astype(np.float32)
        for name, uses_V in expected_uses(config, counts_V, paths).items()
    }
