"""``tfm inspect``: what happened to one sentence, as a page or as data."""

import json
import logging
from pathlib import Path
from typing import Annotated, Literal

import tyro

_log = logging.getLogger("tfm")


def inspect(
    sentence: Annotated[str, tyro.conf.Positional],
    model: str,
    reference: str | None = None,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    language: Literal["en", "zh"] = "en",
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    beam_size: int | None = None,
    source_length: int | None = None,
    target_length: int | None = None,
    rotary_scaling: float | None = None,
) -> int:
    """Translate one sentence and show every step of its way through the model.

    Args:
        sentence: Text in the source language.
        model: Folder of a run, local or in a bucket.
        reference: Somebody else's translation, to compare.
        output: The page, one HTML file; report.html if neither this nor --json is given.
        language: Of the page's own text.
        as_json: Print everything as one JSON object on stdout.
        beam_size: Hypotheses that search keeps; the run's own by default.
        source_length: Longest sentence, in pieces; the run's own by default.
        target_length: Longest reference.
        rotary_scaling: Divides the places of rotary positions; 2 reads twice the trained length.
    """
    from tfm import inspect, translator

    decode = {} if beam_size is None else {"beam_size": beam_size}
    opened = translator.load(model, source_length, target_length, rotary_scaling)
    trace = inspect.trace(opened, sentence, reference, **decode)
    if as_json:
        print(json.dumps(inspect.as_data(trace), ensure_ascii=False))
    if output is not None or not as_json:
        path = output or Path("report.html")
        path.write_text(inspect.page(trace, language), encoding="utf-8")
        _log.info(f"{trace.source.text} → {trace.target.text}: {path}")
    return 0
