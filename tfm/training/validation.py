"""How good the weights are now: loss, translations and scores on the dev set."""

import logging
from pathlib import Path

import jax
import numpy as np

from tfm import config, evaluation
from tfm.data import corpus, stream
from tfm.data import scan as scanning
from tfm.params import Tree
from tfm.training import step
from tfm.translator import Translator

_log = logging.getLogger(__name__)


class Validation:
    """The dev set of a run, and what is compiled for it."""

    def __init__(
        self,
        c: config.Config,
        folder: Path,
        pairs: corpus.Pairs,
        tokenizers: scanning.Tokenizers,
    ) -> None:
        """Takes the resolved config, and the run's folder for what is translated."""
        self._c, self._folder, self._pairs, self._tokenizers = c, folder, pairs, tokenizers
        self._scan = scanning.scan(pairs, tokenizers, c.data)
        self._translator = Translator(c, {}, *tokenizers)  # weights come with every call
        self._sums = jax.jit(lambda weights, batch: step.token_loss(weights, c, batch, None, 0.0))

    def scores(self, update: int, weights: Tree) -> dict[str, float]:
        """Scores by name: loss (nats a token), bleu, chrf, exact (%).

        Keeps the translations in ``hypotheses/UPDATE.txt`` and logs three of them.
        """
        count = self._c.train.dev_limit or len(self._pairs)
        pairs = [self._pairs[i] for i in range(min(len(self._pairs), count))]
        sources, references = zip(*pairs, strict=True)
        translator = self._translator.with_params(weights)
        hypotheses = translator.translate(sources, beam_size=self._c.train.dev_beam)
        text = "".join(f"{line}\n" for line in hypotheses)
        corpus.write_atomically(self._folder / "hypotheses" / f"{update}.txt", text.encode())
        for i in np.linspace(0, len(pairs) - 1, 3).astype(int):
            _log.info(f"  {sources[i]}\n    model: {hypotheses[i]}\n    human: {references[i]}")
        return {
            "loss": self._loss(weights),
            "bleu": evaluation.bleu(hypotheses, references, self._c.data.target).value,
            "chrf": evaluation.chrf(hypotheses, references).value,
            "exact": evaluation.exact_match(hypotheses, references).value,
        }

    def _loss(self, weights: Tree) -> float:
        """Mean nats a token over the pairs that fit, teacher-forced, without smoothing."""
        batches = stream.eval_batches(self._pairs, self._scan, self._tokenizers, self._c.data)
        sums = [self._sums(weights, batch) for batch in batches]
        return float(sum(s.nll for s in sums) / sum(s.tokens for s in sums))
