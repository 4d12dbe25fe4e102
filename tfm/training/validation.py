"""How good the weights are now: loss, translations and scores on the dev set."""

import itertools
import logging
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from tfm import config, evaluation, processes, storage
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
        folder: epath.Path,
        pairs: corpus.Pairs,
        tokenizers: scanning.Tokenizers,
        group: processes.Group = processes.ALONE,
    ) -> None:
        """Takes the resolved config, and the run's folder for what is translated.

        Of several processes each translates and scores a part, on a device of its own.
        """
        self._group = group
        self._c, self._folder, self._pairs, self._tokenizers = c, folder, pairs, tokenizers
        self._scan = scanning.scan(pairs, tokenizers, c.data)
        self._translator = Translator(c, {}, *tokenizers)  # weights come with every call
        any_device = self._translator.config
        self._sums = jax.jit(
            lambda weights, batch: step.token_loss(weights, any_device, batch, None, 0.0)
        )

    def scores(self, update: int, weights: Tree) -> dict[str, float]:
        """Scores by name: loss (nats a token), bleu, chrf, exact (%).

        Keeps the translations in ``hypotheses/UPDATE.txt`` and logs three of them.
        """
        count = self._c.train.dev_limit or len(self._pairs)
        pairs = [self._pairs[i] for i in range(min(len(self._pairs), count))]
        sources, references = zip(*pairs, strict=True)
        mine = slice(self._group.index, None, self._group.count)
        translator = self._translator.with_params(weights)
        translated = translator.translate(sources[mine], beam_size=self._c.train.dev_beam)
        hypotheses = _interleaved(self._group.gather(translated))
        self._keep(update, hypotheses)
        for i in np.linspace(0, len(pairs) - 1, 3).astype(int):
            _log.info(f"  {sources[i]}\n    model: {hypotheses[i]}\n    human: {references[i]}")
        return {
            "loss": self._loss(weights),
            "bleu": evaluation.bleu(hypotheses, references, self._c.data.target).value,
            "chrf": evaluation.chrf(hypotheses, references).value,
            "exact": evaluation.exact_match(hypotheses, references).value,
        }

    def _keep(self, update: int, hypotheses: Sequence[str]) -> None:
        if not self._group.first:
            return
        text = "".join(f"{line}\n" for line in hypotheses)
        try:
            storage.write_atomically(self._folder / "hypotheses" / f"{update}.txt", text.encode())
        except OSError as error:  # a full disk: the checkpoints decide what follows from that
            _log.warning(f"translations of update {update:,} not kept: {error}")

    def _loss(self, weights: Tree) -> float:
        """Mean nats a token over the pairs that fit, teacher-forced, without smoothing."""
        batches = stream.eval_batches(self._pairs, self._scan, self._tokenizers, self._c.data)
        mine = itertools.islice(batches, self._group.index, None, self._group.count)
        sums = jax.device_get([self._sums(weights, batch) for batch in mine])
        parts = self._group.gather([[float(s.nll), float(s.tokens)] for s in sums])
        nll, tokens = np.sum(_interleaved(parts), axis=0)
        return float(nll / tokens)


def _interleaved(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """What was dealt out one by one, in its old order."""
    missing = object()
    rounds = itertools.zip_longest(*parts, fillvalue=missing)
    return [x for x in itertools.chain.from_iterable(rounds) if x is not missing]
