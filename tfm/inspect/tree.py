"""The beam as a tree: every beginning that search kept, and what each goes on from."""

import flax.struct
import numpy as np

from tfm.data.tokenizer import BOS, Tokenizer
from tfm.inspect.beam import Beam


@flax.struct.dataclass
class SearchTree:
    """P beginnings of a translation; number 0 is bos alone, parents come before children.

    Attributes:
      tokens_P: the last piece of each.
      parents_P: the number of the beginning without that piece; -1 for the first.
      log_probs_P: natural-log probability of the whole beginning.
      scores_P: what finished ones were ranked by; nan for the others.
      best_P: whether the translation starts so.
      names, texts: the last piece, and the whole as people read it.
    """

    tokens_P: np.ndarray
    parents_P: np.ndarray
    log_probs_P: np.ndarray
    scores_P: np.ndarray
    best_P: np.ndarray
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)
    texts: tuple[str, ...] = flax.struct.field(pytree_node=False)


def grow(beam: Beam, tokenizer: Tokenizer) -> SearchTree:
    """Joins what was kept at each step, and what was finished, where it begins alike."""
    log_probs, scores = {(): 0.0}, {}
    alive = [()] * beam.tokens_QR.shape[1]
    for q in range(1, len(beam.tokens_QR)):
        tokens, parents = beam.tokens_QR[q].tolist(), beam.parents_QR[q].tolist()
        alive = [(*alive[p], t) for t, p in zip(tokens, parents, strict=True)]
        for beginning, log_prob in zip(alive, beam.log_probs_QR[q].tolist(), strict=True):
            if np.isfinite(log_prob):
                log_probs[beginning] = log_prob
    done = beam.finished
    for r in np.flatnonzero(done.lengths).tolist():
        sentence = tuple(done.tokens[r, : done.lengths[r]].tolist())
        log_probs[sentence], scores[sentence] = float(done.log_probs[r]), float(done.scores[r])
    best = done.tokens[0, : done.lengths[0]].tolist()

    number = {beginning: i for i, beginning in enumerate(log_probs)}
    tokens = [beginning[-1] if beginning else BOS for beginning in number]
    return SearchTree(
        tokens_P=np.array(tokens, np.int32),
        parents_P=np.array([number[b[:-1]] if b else -1 for b in number], np.int32),
        log_probs_P=np.array(list(log_probs.values())),
        scores_P=np.array([scores.get(b, np.nan) for b in number]),
        best_P=np.array([list(b) == best[: len(b)] for b in number]),
        names=tuple(tokenizer.processor.id_to_piece(tokens)),
        texts=tuple(tokenizer.decode(b) for b in number),
    )
