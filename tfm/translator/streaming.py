"""A translation piece by piece, as it is written: greedy or drawn."""

import dataclasses
import functools
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from tfm.data.languages import language
from tfm.data.tokenizer import EOS
from tfm.decoding import Decode, sample
from tfm.translator import buckets, programs
from tfm.translator.translator import Translator


def stream(model: Translator, text: str, **decode: Any) -> Iterator[str]:
    """Yields the pieces of one translation; joined, they are what ``translate`` gives.

    A piece is yielded when no later token can change it.

    Args:
      text: raw text; one that is too long for the model is translated in parts.
      decode: fields of ``Decode`` to override: ``strategy="sample"``, or ``beam_size=1``.

    Raises:
      ValueError: a strategy that keeps several hypotheses, of which the best is known at the end.
    """
    settings = model.decode_settings(**decode)
    if settings.hypotheses != 1 or settings.strategy not in ("beam", "sample"):
        raise ValueError(
            f"stream: strategy {settings.strategy} with {settings.hypotheses} hypotheses chooses "
            "at the end; set strategy sample with samples 1, or beam_size 1"
        )
    if settings.strategy == "beam":  # a beam of one is a chain of likeliest tokens
        free = {"top_p": 1.0, "epsilon": 0.0, "min_p": 0.0, "temperature": 1.0, "samples": 1}
        settings = dataclasses.replace(settings, strategy="sample", top_k=1, **free)
        settings = dataclasses.replace(settings, coverage_penalty=0.0)
    for i, part in enumerate(model.parts(text)):
        if i:
            yield language(model.experiment.data.target).joiner
        yield from _pieces(model, part, settings)


def _pieces(model: Translator, text: str, settings: Decode) -> Iterator[str]:
    limit = model.experiment.data.source_length
    ids = buckets.crop(model.source.encode(text), limit)
    source = buckets.pad([ids], 1, buckets.length(len(ids), limit))
    seeds = np.array([zlib.crc32(source[0].tobytes())], np.uint32)
    model.require_memory(settings, *source.shape)
    start, advance = _programs(model.arch, model.execution, settings)
    state, told = start(model.params, source, seeds), ""
    while bool(sample.running(state).any()):
        state = advance(model.params, state)
        tokens = np.asarray(state.hypotheses.tokens[0, 0, : int(state.hypotheses.lengths[0, 0])])
        written = model.target.decode(tokens)
        ended = tokens[-1] == EOS
        # Bytes of a character that is not complete are decoded as this mark.
        safe = written if ended else written.rstrip("\ufffd")
        if safe.startswith(told) and safe != told:
            yield safe[len(told) :]
            told = safe


@functools.lru_cache(maxsize=8)
def _programs(arch: Any, execution: Any, settings: Decode) -> tuple[Any, Any]:
    """The compiled start and step of a search, kept for the next texts."""
    static = {"arch": arch, "decode": settings, "execution": execution}
    start = jax.jit(functools.partial(programs.start, **static))
    return start, jax.jit(functools.partial(programs.advance, **static), donate_argnums=1)
