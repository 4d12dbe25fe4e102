"""``tfm demo``, ``tfm train`` and ``tfm check-data``."""

import logging
from pathlib import Path
from typing import Annotated

import tyro

from tfm import config, processes
from tfm.ranges import Range

_log = logging.getLogger("tfm")

_HOSTS = processes.Hosts()
Experiment = Annotated[config.Config, tyro.conf.arg(name="")]


def train(workdir: str, experiment: Experiment, hosts: processes.Hosts = _HOSTS) -> int:
    """Train an experiment, or resume it where it stopped.

    Args:
        workdir: Folder of the run, local or in a bucket (gs://BUCKET/...): config, tokenizers,
            checkpoints, log.
        experiment: Fields of the experiment file; each can be overridden.
        hosts: The processes of the run. Not needed on one machine, a TPU pod or Slurm.
    """
    from tfm.training import loop

    with processes.joined(hosts) as group:
        outcome = loop.train(experiment, workdir, group)
    metric = experiment.train.metric
    best = "" if outcome.best is None else f"; best dev {metric} {outcome.best:.2f}"
    _log.info(f"stopped at update {outcome.step:,}: {outcome.reason}{best}")
    return outcome.exit_code


def check_data(experiment: Experiment, workdir: str | None = None) -> int:
    """Report on an experiment's data before training on it.

    Shows lengths, duplicates, what is dropped, pieces a word, the density of packed batches and the
    memory that training needs.

    Args:
        experiment: Fields of the experiment file; each can be overridden.
        workdir: Folder of a run whose tokenizers to use; by default temporary ones are trained.
    """
    from tfm import transformer
    from tfm.training import data_report

    # Before time is spent on the data.
    transformer.validate(experiment.model, experiment.execution, vocabularies=False)
    print(data_report.report(experiment, workdir))
    return 0


def demo(
    workdir: Path = Path("runs/demo"), minutes: Annotated[float, Range(least=0.01, most=1e6)] = 5.0
) -> int:
    """Train on the built-in Chinese-English phrasebook, score unseen pairs, and translate some.

    Args:
        workdir: Folder of the run.
        minutes: Longest training time; two CPU cores need about three.
    """
    from tfm import demo as demonstration

    return demonstration.run(workdir, minutes)
