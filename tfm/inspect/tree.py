"""The beam as a tree: every prefix that search kept, and the prefix that it extends."""

import flax.struct
import numpy as np

from tfm.data.tokenizer import BOS, Tokenizer
from tfm.inspect.beam import Beam


@flax.struct.dataclass
class SearchTree:
    """P prefixes of translations; number 0 is bos alone, parents come before children.

    Attributes:
      tokens_P: the last piece of each.
      parents_P: the number of the prefix without that piece; -1 for the first.
      log_probs_P: natural-log probability of the prefix.
      scores_P: by which finished translations were ranked; nan for the others.
      best_P: whether it is a prefix of the best translation.
      names, texts: the last piece, and the prefix as text.
    """

    tokens_P: np.ndarray
    parents_P: np.ndarray
    log_probs_P: np.ndarray
    scores_P: np.ndarray
    best_P: np.ndarray
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)
    texts: tuple[str, ...] = flax.struct.field(pytree_node=False)


def grow(beam: Beam, tokenizer: Tokenizer) -> SearchTree:
    """Joins live hypotheses of all steps and finished ones by their common prefixes."""
    log_probs, scores = {(): 0.0}, {}
    alive = [()] * beam.tokens_QR.shape[1]
    for q in range(1, len(beam.tokens_QR)):
        tokens, parents = beam.tokens_QR[q].tolist(), beam.parents_QR[q].tolist()
        alive = [(*alive[p], t) for t, p in zip(tokens, parents, strict=True)]
        for prefix, log_prob in zip(alive, beam.log_probs_QR[q].tolist(), strict=True):
            if np.isfinite(log_prob):
                log_probs[prefix] = log_prob
    done = beam.finished
    for r in np.flatnonzero(done.lengths).tolist():
        sentence = tuple(done.tokens[r, : done.lengths[r]].tolist())
        log_probs[sentence], scores[sentence] = float(done.log_probs[r]), float(done.scores[r])
    best = done.tokens[0, : done.lengths[0]].tolist()

    number = {prefix: i for i, prefix in enumerate(log_probs)}
    tokens = [prefix[-1] if prefix else BOS for prefix in number]
    return SearchTree(
        tokens_P=np.array(tokens, np.int32),
        parents_P=np.array([number[b[:-1]] if b else -1 for b in number], np.int32),
        log_probs_P=np.array(list(log_probs.values())),
        scores_P=np.array([scores.get(b, np.nan) for b in number]),
        best_P=np.array([list(b) == best[: len(b)] for b in number]),
        names=tuple(tokenizer.id_to_piece(tokens)),
        texts=tuple(tokenizer.decode(b) for b in number),
    )
