"""What a run starts from: corpora, tokenizers, word vectors, and a folder of its own."""

import dataclasses
import logging
import math
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from etils import epath

from tfm import config, processes, transformer
from tfm.data import corpus, tokenizer
from tfm.data import scan as scanning
from tfm.data.tokenizer import Tokenizer
from tfm.terminal import duration
from tfm.training.step import State
from tfm.word2vec import tables, vectors

_log = logging.getLogger(__name__)

_MAY_CHANGE = (
    "train.stop", "train.log_every", "train.validate_every", "train.checkpoint_every",
    "train.patience", "train.dev_limit", "train.dev_beam", "train.bad_steps", "train.loss_chunk",
    "train.accumulate", "train.save_tries", "train.save_pause", "train.on_full_disk", "decode",
    "mesh", "data.test", "data.cache_dir", "model.unroll", "model.remat", "model.lookup",
    "model.implementation",
)  # fmt: skip


class Data(NamedTuple):
    """What training reads."""

    pairs: corpus.Pairs
    scan: scanning.Scan
    dev: corpus.Pairs | None
    tokenizers: scanning.Tokenizers


def open_data(
    c: config.Config, folder: epath.Path, group: processes.Group = processes.ALONE
) -> Data:
    """Opens the corpora, trains tokenizers where there are none, and says what is dropped.

    Of several processes, process 0 trains the tokenizers. Corpora are prepared once for every
    ``data.cache_dir``: by one process of each machine, or by process 0 where all share one.
    """
    start = time.monotonic()
    group.at("preparing the data", math.inf)
    fills = group.fills(epath.Path(corpus.cache_dir(c.data)))
    names = (c.data.train, c.data.dev) if c.data.dev else (c.data.train,)
    opened = group.in_turn(fills, lambda: [corpus.open_corpus(name, c.data) for name in names])
    pairs, dev = opened[0], opened[1] if c.data.dev else None
    train = lambda: tokenizer.prepare(c, pairs, folder / "tokenizers")  # noqa: E731
    tokenizers = group.in_turn(group.first, train)
    scan = group.in_turn(fills, lambda: scanning.scan(pairs, tokenizers, c.data))
    _log.info(f"training data: {scan.report()} ({duration(time.monotonic() - start)})")
    return Data(pairs, scan, dev, tokenizers)


def resolve(c: config.Config, data: Data) -> config.Config:
    """Fills in what follows from the data: vocabulary sizes and row lengths.

    Raises:
      ValueError: a row can hold a sentence longer than the table of learned positions.
    """
    source, target = data.tokenizers
    longest = max(data.scan.source_length, data.scan.target_length)
    if c.model.positions == "learned" and longest > c.model.max_length:
        raise ValueError(
            f"model.max_length {c.model.max_length}: rows hold up to {longest} tokens a sentence; "
            "raise it, or lower data.source_length and data.target_length"
        )
    model = dataclasses.replace(c.model, source_vocab=source.size, target_vocab=target.size)
    return dataclasses.replace(c, model=model, data=data.scan.resolved(c.data))


def check_same(c: config.Config, path: epath.Path) -> None:
    """Raises ValueError if ``path`` keeps the config of another run."""
    if not path.exists():
        return
    kept = config.read(path)
    for name, old, new in config.differences(kept, c):
        if not name.startswith(_MAY_CHANGE):
            raise ValueError(
                f"{path.parent} holds a run with {name} {old!r}, now {new!r}: "
                "set it back to go on, or train in another --workdir"
            )


def with_vectors(state: State, c: config.Config, tokenizers: tuple[Tokenizer, Tokenizer]) -> State:
    """The fresh state with the tables that ``model.embeddings.init`` asks for.

    One file serves both languages: a joint vocabulary, or two aligned spaces in one file. Of two,
    the first is the source's. Without any, the state as it is.

    Raises:
      ValueError: more than two files, vectors of another width than the model, two files for one
        shared table, or no piece covered.
    """
    files = c.model.embeddings.init
    if not files:
        return state
    if len(files) > 2:
        raise ValueError(f"model.embeddings.init: {len(files)} files, but two languages")
    names = transformer.table_names(c.model)[:2]
    if len(files) == 2 and names[0] == names[1]:
        raise ValueError(
            f"model.embeddings.init: two files, but tie={c.model.tie!r} has one table for both "
            "languages: give one file, or tie less"
        )
    named = dict(zip(names, (files[0], files[-1]), strict=True))
    spaces = {file: vectors.read(Path(file)) for file in files}
    drawn, coverage = tables.initial_tables(
        state.params["tables"],
        {name: spaces[file] for name, file in named.items()},
        {name: t.vocabulary for name, t in zip(names, tokenizers, strict=True)},
    )
    for name, share in coverage.items():
        _log.info(f"{name} table: {share:.1%} of the pieces start from {named[name]}")
    weights = state.params | {"tables": drawn}
    average = None if state.average is None else jax.tree.map(jnp.copy, weights)
    return state.replace(params=weights, average=average)
