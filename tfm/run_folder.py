"""The names of all files of a run, in one place."""

import os
from dataclasses import dataclass
from typing import Literal

from etils import epath

from tfm import storage


@dataclass(frozen=True)
class RunFolder:
    """The folder of one training run and the paths inside it; naming one creates nothing.

    ::

        config.json          the resolved experiment
        tokenizers/          source.model and target.model, or joint.model; of an imported model
                             source.json and target.json, perhaps with .spm beside them
        checkpoints/STEP/    training state, to resume from
        best/NUMBER/         the weights with the best dev score, to translate with
        hypotheses/STEP.txt  translations of the dev set at each validation
        metrics.tsv          metrics by update
        tensorboard/         the same as TensorBoard curves
        log.txt              log lines
        report.html          the page that ``tfm demo`` writes
        lock.json            who trains here now
        compiled/            programs that ``tfm translate --warm-up`` compiled, JAX's cache

    Attributes:
      path: of the folder, local or in a bucket ("gs://BUCKET/..."); see ``storage.path``.
    """

    path: epath.Path

    def __init__(self, path: str | os.PathLike) -> None:
        object.__setattr__(self, "path", storage.path(path))

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def create(self) -> None:
        """Creates the folder, with its parents, if it is absent.

        Raises:
          OSError: it cannot be created; the message says why.
        """
        storage.make_folder(self.path, f"workdir {self}")

    @property
    def config(self) -> epath.Path:
        """The resolved experiment, as JSON."""
        return self.path / "config.json"

    @property
    def tokenizers(self) -> epath.Path:
        """The folder of the tokenizers."""
        return self.path / "tokenizers"

    def tokenizer(self, side: Literal["source", "target", "joint"]) -> epath.Path:
        """The SentencePiece model of one language, or the one that both share."""
        return self.tokenizers / f"{side}.model"

    def imported_tokenizer(self, side: Literal["source", "target", "joint"]) -> epath.Path:
        """The tokenizer of one side of an imported model; a trained run has none."""
        return self.tokenizers / f"{side}.json"

    @property
    def checkpoints(self) -> epath.Path:
        """The checkpoints of the training state."""
        return self.path / "checkpoints"

    @property
    def best(self) -> epath.Path:
        """The checkpoint of the weights with the best dev score."""
        return self.path / "best"

    def hypotheses(self, update: int) -> epath.Path:
        """The translations of the dev set after so many updates."""
        return self.path / "hypotheses" / f"{update}.txt"

    @property
    def metrics(self) -> epath.Path:
        """Metrics by update: tab-separated rows of update, name, value."""
        return self.path / "metrics.tsv"

    @property
    def tensorboard(self) -> epath.Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def log(self) -> epath.Path:
        """Log lines of all starts of the run."""
        return self.path / "log.txt"

    @property
    def report(self) -> epath.Path:
        """The page about one sentence that ``tfm demo`` writes."""
        return self.path / "report.html"

    @property
    def lock(self) -> epath.Path:
        """The process that trains in this folder now; absent while none does."""
        return self.path / "lock.json"

    @property
    def compiled(self) -> epath.Path:
        """JAX's persistent cache of the programs that a model was warmed up with, if it was."""
        return self.path / "compiled"
