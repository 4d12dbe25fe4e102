"""What a run starts from: its corpora and tokenizers, and a folder that holds no other run."""

import dataclasses
import logging
import math
import time
from typing import NamedTuple

from etils import epath

from tfm import config, processes
from tfm.data import corpus, tokenizer
from tfm.data import scan as scanning
from tfm.terminal import duration

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
