"""Validation on the dev set: loss, translations and their scores."""

import dataclasses
import itertools
import logging
from collections.abc import Sequence
from os import PathLike
from typing import Any

import jax
import numpy as np

from tfm import config, evaluation, processes, signals, storage
from tfm.data import corpus, stream
from tfm.data import scan as scanning
from tfm.params import Tree
from tfm.run_folder import RunFolder
from tfm.training import step
from tfm.transformer import Batch
from tfm.translator import Translator

_log = logging.getLogger(__name__)


class Validation:
    """The dev set of a run, and the programs compiled for it."""

    def __init__(
        self,
        experiment: config.Config,
        folder: str | PathLike,
        pairs: corpus.Pairs,
        tokenizers: scanning.Tokenizers,
        group: processes.Group = processes.ALONE,
    ) -> None:
        """Scans the dev set; each process translates and scores its part on one device.

        Args:
          experiment: with the sizes that follow from the data, see ``setup.resolve``.
          folder: the run's folder, in which the translations are saved.
          pairs, tokenizers: the dev set.
          group: the processes that share the work.
        """
        self._group = group
        self._search = {"strategy": "beam", "beam_size": experiment.train.dev_beam, "guard": "off"}
        self._experiment, self._folder = experiment, RunFolder(folder)
        self._pairs, self._tokenizers = pairs, tokenizers
        self._scan = scanning.scan(pairs, tokenizers, experiment.data)
        self._translator = Translator(
            experiment, None, *tokenizers
        )  # every call brings the weights
        self._translator.check_memory(self._sentences()[0], **self._search)
        self._compiled: jax.stages.Compiled | None = None

    def scores(self, update: int, weights: Tree) -> dict[str, float]:
        """Scores by name: loss (nats a token), bleu, chrf, exact (%).

        Saves the translations as ``hypotheses/UPDATE.txt`` and logs three of them.
        """
        data = self._experiment.data
        sources, references = self._sentences()
        mine = slice(self._group.index, None, self._group.count)
        translator = self._translator.with_params(weights)
        translated = translator.translate(sources[mine], **self._search)
        hypotheses = _interleave(self._group.gather(translated))
        self._save(update, hypotheses)
        for i in np.linspace(0, len(sources) - 1, 3).astype(int):
            _log.info(f"  {sources[i]}\n    model: {hypotheses[i]}\n    human: {references[i]}")
        return {
            "loss": self._loss(weights),
            "bleu": evaluation.bleu(hypotheses, references, data.target).value,
            "chrf": evaluation.chrf(hypotheses, references).value,
            "exact": evaluation.exact_match(hypotheses, references).value,
        }

    def _sentences(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Sources and targets that are translated at a validation."""
        count = min(len(self._pairs), self._experiment.train.dev_limit or len(self._pairs))
        sources, targets = zip(*(self._pairs[i] for i in range(count)), strict=True)
        return sources, targets

    def _save(self, update: int, hypotheses: Sequence[str]) -> None:
        if not self._group.is_primary:
            return
        text = "".join(f"{line}\n" for line in hypotheses)
        try:
            storage.write_atomically(self._folder.hypotheses(update), text.encode())
        except OSError as error:  # on a full disk the checkpoints decide whether the run stops
            _log.warning(f"translations of update {update:,} are not saved: {error}")

    def _loss(self, weights: Tree) -> float:
        """Mean loss (nats a token) of the pairs that fit a row, teacher-forced, unsmoothed."""
        batches = stream.eval_batches(
            self._pairs, self._scan, self._tokenizers, self._experiment.data
        )
        mine = itertools.islice(batches, self._group.index, None, self._group.count)
        sums = jax.device_get([self._batch_loss(weights, batch) for batch in mine])
        parts = self._group.gather([[float(s.nll), float(s.tokens)] for s in sums])
        nll, tokens = np.sum(_interleave(parts), axis=0)
        return float(nll / tokens)

    def _batch_loss(self, weights: Tree, batch: Batch) -> Any:
        """Sums over the tokens of a batch; all batches have one shape."""
        if self._compiled is None:
            experiment = dataclasses.replace(self._experiment, execution=self._translator.execution)
            lowered = jax.jit(
                lambda weights, batch: step.token_loss(weights, experiment, batch, None, 0.0)
            ).lower(weights, batch)
            self._compiled = signals.interruptible(lowered.compile)
        return self._compiled(weights, batch)


def _interleave(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """Items that were dealt to the processes one by one, in their original order."""
    missing = object()
    rounds = itertools.zip_longest(*parts, fillvalue=missing)
    return [x for x in itertools.chain.from_iterable(rounds) if x is not missing]
