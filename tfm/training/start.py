"""Where a fresh run starts: tables begun from word vectors, if the config names any."""

import logging
from pathlib import Path

import jax
import jax.numpy as jnp

from tfm import config, transformer
from tfm.data.tokenizer import Tokenizer
from tfm.training.step import State
from tfm.word2vec import start, vectors

_log = logging.getLogger(__name__)


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
    tables, coverage = start.initial_tables(
        state.params["tables"],
        {name: spaces[file] for name, file in named.items()},
        {name: t.vocabulary for name, t in zip(names, tokenizers, strict=True)},
    )
    for name, share in coverage.items():
        _log.info(f"{name} table: {share:.1%} of the pieces start from {named[name]}")
    weights = state.params | {"tables": tables}
    average = None if state.average is None else jax.tree.map(jnp.copy, weights)
    return state.replace(params=weights, average=average)
