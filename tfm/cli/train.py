"""``tfm demo``, ``tfm train`` and ``tfm check-data``."""

import logging
from pathlib import Path
from typing import Annotated

import tyro

from tfm import config, processes

_log = logging.getLogger("tfm")

_HOSTS = processes.Hosts()
Experiment = Annotated[config.Config, tyro.conf.arg(name="")]


def train(workdir: str, experiment: Experiment, hosts: processes.Hosts = _HOSTS) -> int:
    """Train an experiment, or go on with it where it stopped.

    Args:
        workdir: Folder of the run, local or in a bucket (gs://BUCKET/...): config, tokenizers,
            checkpoints, log.
        experiment: Fields of the experiment file, to be overridden one by one.
        hosts: The processes that share the run. Nothing need be set on one machine, a TPU pod or
            Slurm.
    """
    from tfm.training import loop

    with processes.joined(hosts) as group:
        outcome = loop.train(experiment, workdir, group)
    metric = experiment.train.metric
    best = "" if outcome.best is None else f"; best dev {metric} {outcome.best:.2f}"
    _log.info(f"stopped at update {outcome.step:,}: {outcome.reason}{best}")
    return loop.SIGTERM_EXIT if outcome.interrupted else 0


def check_data(experiment: Experiment, workdir: str | None = None) -> int:
    """Look at an experiment's data before training on it.

    Shows lengths, duplicates, what would be dropped, pieces a word, the density of packed batches
    and the memory that training will need.

    Args:
        experiment: Fields of the experiment file, to be overridden one by one.
        workdir: Folder of a run whose tokenizers to use; by default they are trained and forgotten.
    """
    from tfm import transformer
    from tfm.training import data_report

    transformer.check(experiment.model, vocabularies=False)  # before the data is prepared
    print(data_report.report(experiment, workdir))
    return 0


def demo(workdir: Path = Path("runs/demo"), minutes: float = 5.0) -> int:
    """Train the built-in Chinese-English phrasebook, score it on unseen pairs, and translate.

    Args:
        workdir: Folder of the run.
        minutes: Train no longer than this; two cores need about three.
    """
    from tfm import demo as demonstration

    demonstration.run(workdir, minutes)
    return 0
