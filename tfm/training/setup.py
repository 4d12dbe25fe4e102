"""What a run needs before its first update: data, tokenizers, resolved sizes, initial state."""

import dataclasses
import functools
import logging
import math
import time
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from tfm import checkpoint, config, processes, signals, storage, transformer
from tfm.data import cleaning, corpus, mixture, stream, vocabulary
from tfm.data import scan as scanning
from tfm.data.tokenizer import Tokenizer
from tfm.run_folder import RunFolder
from tfm.sharding import Layout
from tfm.terminal import duration
from tfm.training import step
from tfm.training.step import State
from tfm.word2vec import tables, vectors

_log = logging.getLogger(__name__)

MAY_CHANGE = frozenset({
    "train.stop", "train.log_every", "train.validate_every", "train.checkpoint_every",
    "train.patience", "train.dev_limit", "train.dev_beam", "train.bad_steps", "train.loss_chunk",
    "train.accumulate", "train.save_tries", "train.save_pause", "train.on_full_disk", "decode",
    "mesh", "data.test", "data.cache_dir", "execution.unroll", "execution.remat",
    "execution.lookup", "execution.implementation", "execution.weights",
})  # fmt: skip
"""Fields, and whole sections, of the config that may differ when a run is resumed."""


class Data(NamedTuple):
    """The training and dev sets, the scan of the training set, and the tokenizers."""

    pairs: corpus.Pairs
    scan: scanning.Scan
    dev: corpus.Pairs | None
    tokenizers: scanning.Tokenizers


def open_data(
    experiment: config.Config, folder: str | PathLike, group: processes.Group = processes.ALONE
) -> Data:
    """Opens the corpora, trains tokenizers if there are none yet, and logs what is dropped.

    Of several processes, process 0 trains the tokenizers. Corpora are prepared once for each
    ``data.cache_dir``: by one process of each machine, or by process 0 where all share one.

    Args:
      folder: the run's folder.
    """
    data = experiment.data
    start = time.monotonic()
    storage.make_folder(corpus.cache_dir(data), f"data.cache_dir {corpus.cache_dir(data)}")
    group.set_stage("preparing the data", math.inf)
    prepares = group.is_primary_for(epath.Path(corpus.cache_dir(data)))
    open_dev = functools.partial(corpus.open_corpus, data.dev, data) if data.dev else lambda: None
    pairs, dev = group.primary_first(prepares, lambda: (mixture.open_training(data), open_dev()))
    tokenizers = group.primary_first(
        group.is_primary,
        lambda: vocabulary.prepare(experiment, pairs, RunFolder(folder).tokenizers),
    )
    scan = group.primary_first(
        prepares, lambda: scanning.scan(pairs, tokenizers, data, faults_of(pairs, data))
    )
    _log.info(f"training data: {scan.report()} ({duration(time.monotonic() - start)})")
    return Data(pairs, scan, dev, tokenizers)


def faults_of(pairs: corpus.Pairs, data: config.Data) -> np.ndarray | None:
    """What is wrong with each pair of the training set; None if nothing is looked for."""
    if data.clean == config.Cleaning():
        return None
    held_out = [corpus.open_corpus(spec, data) for spec in (data.dev, data.test) if spec]
    return cleaning.faults(pairs, data, held_out)


def resolve(experiment: config.Config, data: Data) -> config.Config:
    """The experiment with the sizes that follow from the data: vocabularies and row lengths.

    Raises:
      ValueError: a row can hold a sentence longer than the table of learned positions.
    """
    source, target = data.tokenizers
    arch = experiment.model
    longest, limit = max(data.scan.source_length, data.scan.target_length), arch.positions.longest
    if limit is not None and longest > limit:
        raise ValueError(
            f"model.positions: max_length {limit}, but rows hold {longest} tokens a sentence: "
            "raise it, or lower data.source_length and data.target_length"
        )
    return dataclasses.replace(
        experiment,
        model=dataclasses.replace(arch, source_vocab=source.size, target_vocab=target.size),
        data=data.scan.resolved(experiment.data),
    )


def check_same(experiment: config.Config, path: epath.Path) -> None:
    """Raises ValueError if ``path`` holds a config that the experiment cannot resume."""
    if not path.exists():
        return
    for name, old, new in config.differences(config.read(path), experiment):
        if not may_change(name):
            raise ValueError(
                f"{path.parent} holds a run with {name} {old!r}, now {new!r}: "
                "set it back to resume the run, or train in another --workdir"
            )


def may_change(name: str) -> bool:
    """Whether a field ("train.stop") or a section above it may differ when a run is resumed."""
    parts = name.split(".")
    return any(".".join(parts[:n]) in MAY_CHANGE for n in range(1, len(parts) + 1))


def open_checkpoints(
    experiment: config.Config, folder: epath.Path, keep: int, group: processes.Group
) -> checkpoint.CheckpointManager:
    """Opens a folder of checkpoints, of which the ``keep`` newest are kept."""
    return checkpoint.CheckpointManager(
        folder,
        keep,
        tries=experiment.train.save_tries,
        pause=experiment.train.save_pause,
        on_full_disk=experiment.train.on_full_disk,
        group=group,
    )


def open_batches(experiment: config.Config, data: Data, layout: Layout) -> Any:
    """The iterator of this process's rows of the training batches; see ``stream.batches``."""
    shard, shards = layout.data_shard()
    return stream.batches(
        data.pairs,
        data.scan,
        data.tokenizers,
        experiment.data,
        nbest=experiment.tokenizer.sample_nbest,
        alpha=experiment.tokenizer.sample_alpha,
        host=shard,
        hosts=shards,
    )


def initial_state(
    experiment: config.Config,
    rule: optax.GradientTransformation,
    abstract_state: State,
    tokenizers: scanning.Tokenizers,
) -> State:
    """The state before the first update, sharded as ``abstract_state`` is."""
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state)
    init = functools.partial(step.init_state, experiment, rule)
    state = signals.interruptible(jax.jit(init, out_shardings=shardings).lower().compile)()
    state = with_vectors(state, experiment, tokenizers)
    return jax.device_put(state, shardings)


def with_vectors(
    state: State, experiment: config.Config, tokenizers: tuple[Tokenizer, Tokenizer]
) -> State:
    """The initial state with embedding tables from the files of ``train.init_embeddings``.

    One file serves both languages: a joint vocabulary, or two aligned spaces in one file. Of two,
    the first is for the source. Without files the state is returned unchanged.

    Raises:
      ValueError: more than two files, vectors of another width than the model, two files for one
        shared table, or no piece that has a vector.
    """
    files = experiment.train.init_embeddings
    if not files:
        return state
    if len(files) > 2:
        raise ValueError(f"train.init_embeddings: {len(files)} files, but two languages")
    names = transformer.table_names(experiment.model)[:2]
    if len(files) == 2 and names[0] == names[1]:
        raise ValueError(
            f"train.init_embeddings: two files, but tie={experiment.model.tie!r} has one table for "
            "both languages: give one file, or tie less"
        )
    file_of = dict(zip(names, (files[0], files[-1]), strict=True))
    spaces = {file: vectors.read(Path(file)) for file in files}
    initial, coverage = tables.initial_tables(
        state.params["tables"],
        {name: spaces[file] for name, file in file_of.items()},
        {name: t.vocabulary for name, t in zip(names, tokenizers, strict=True)},
    )
    for name, share in coverage.items():
        _log.info(f"{name} table: {share:.1%} of the pieces start from {file_of[name]}")
    weights = state.params | {"tables": initial}
    average = None if state.average is None else jax.tree.map(jnp.copy, weights)
    return dataclasses.replace(state, params=weights, average=average)
