"""Validation on the dev set: loss, translations and their scores."""

import dataclasses
import logging
from collections.abc import Sequence
from os import PathLike
from typing import Any

import jax
import numpy as np

from tfm import config, evaluation, memory, params, processes, signals, storage, transformer
from tfm.data import corpus, stream
from tfm.data import scan as scanning
from tfm.params import Tree
from tfm.run_folder import RunFolder
from tfm.sharding import NO_MESH, Layout
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
        layout: Layout = NO_MESH,
        group: processes.Group = processes.ALONE,
    ) -> None:
        """Scans the dev set.

        All devices of the mesh translate together: each with all weights if they fit, or else as
        the weights are sharded in training. Every process has all results.

        Args:
          experiment: with the sizes that follow from the data, see ``setup.resolve``.
          folder: the run's folder, in which the translations are saved.
          pairs, tokenizers: the dev set.
          layout: of training.
          group: the processes that the mesh belongs to.
        """
        alone = layout.mesh is None or layout.mesh.size == 1
        self._layout, self._group = NO_MESH if alone else layout, group
        self._search = {"strategy": "beam", "beam_size": experiment.train.dev_beam, "guard": "off"}
        self._experiment, self._folder = experiment, RunFolder(folder)
        self._pairs, self._tokenizers = pairs, tokenizers
        self._scan = scanning.scan(pairs, tokenizers, experiment.data)
        self._translator = Translator(
            experiment,
            None,  # every call brings the weights
            *tokenizers,
            self._layout,
            replicate=all(group.gather(_fits_one_device(experiment))),
        )
        self._translator.check_memory(self._sentences()[0], **self._search)
        self._compiled: jax.stages.Compiled | None = None

    def scores(self, update: int, weights: Tree) -> dict[str, float]:
        """Scores by name: loss (nats a token), bleu, chrf, exact (%).

        Args:
          weights: sharded as in training.

        Saves the translations as ``hypotheses/UPDATE.txt`` and logs three of them.
        """
        data = self._experiment.data
        sources, references = self._sentences()
        translator = self._translator.with_params(weights)
        hypotheses = translator.translate(sources, **self._search)
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
        host, hosts = self._layout.data_shard()
        batches = stream.eval_batches(
            self._pairs,
            self._scan,
            self._tokenizers,
            self._experiment.data,
            host=host,
            hosts=hosts,
        )
        sums = jax.device_get([self._batch_loss(weights, batch) for batch in batches])
        nll, tokens = np.sum([[float(s.nll), float(s.tokens)] for s in sums], axis=0)
        return float(nll / tokens)

    def _batch_loss(self, weights: Tree, batch: Batch) -> Any:
        """Sums over the tokens of a batch; all batches have one shape."""
        layout = self._layout
        batch = jax.tree.map(lambda x: layout.put(x, "batch", "length"), batch)
        if self._compiled is None:
            experiment = dataclasses.replace(self._experiment, execution=self._translator.execution)
            lowered = jax.jit(
                lambda weights, batch: step.token_loss(
                    weights, experiment, batch, None, 0.0, layout
                ),
                out_shardings=layout.sharding((), ()),
            ).lower(weights, batch)
            self._compiled = signals.interruptible(lowered.compile)
        return self._compiled(weights, batch)


def _fits_one_device(experiment: config.Config) -> bool:
    """Whether the weights take at most a quarter of what is free on this process's devices."""
    available = memory.free(jax.local_devices()[0])
    itemsize = transformer.compute_dtype(experiment.execution).itemsize
    size = params.count(transformer.declare(experiment.model)) * itemsize
    return available is None or 4 * size <= available
