"""``tfm inspect``: every step of one sentence through a model, as a page or as data."""

import json
import logging
from pathlib import Path
from typing import Annotated, Literal

import tyro

from tfm import signals, storage
from tfm.cli.options import UNCHANGED, Decoding, PairModel, given

_log = logging.getLogger("tfm")


def inspect(
    sentence: Annotated[str, tyro.conf.Positional],
    model: PairModel,
    reference: str | None = None,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    language: Literal["en", "zh"] = "en",
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    decode: Decoding = UNCHANGED,
) -> int:
    """Translate one sentence and show every step of its way through the model.

    Args:
        sentence: Text in the source language.
        model: The model.
        reference: Somebody else's translation, to compare.
        output: The page, one HTML file; report.html if neither this nor --json is given.
        language: Of the page's own text.
        as_json: Print everything as one JSON object on stdout.
        decode: How to decode; what is not given is the run's own. The page shows beam search.
    """
    from tfm import inspect

    path = Path("report.html") if output is None and not as_json else output
    if path is not None:
        storage.check_output(path)
    translator = model.load()
    trace = signals.interruptible(
        lambda: inspect.trace(translator, sentence, reference, **given(decode))
    )
    if as_json:
        print(json.dumps(inspect.as_data(trace), ensure_ascii=False))
    if path is not None:
        storage.write_atomically(path, inspect.page(trace, language).encode())
        _log.info(f"{trace.source.text} → {trace.target.text}: {path}")
    return 0
