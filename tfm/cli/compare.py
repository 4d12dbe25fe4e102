"""``tfm compare``: several systems on one test set."""

import json
from pathlib import Path
from typing import Annotated

import tyro

from tfm import signals, storage
from tfm.cli.evaluate import parallel
from tfm.cli.options import UNCHANGED, Decoding, ModelOptions, given
from tfm.data import text
from tfm.ranges import Length, Range
from tfm.run_folder import RunFolder


def compare(
    systems: Annotated[tuple[Annotated[str, Length(1)], ...], tyro.conf.Positional, Length(2)],
    source: Path,
    reference: Path,
    target_language: str = "",
    resamples: Annotated[int, Range(least=100, most=100_000)] = 1000,
    examples: Annotated[int, Range(least=0, most=1000)] = 10,
    page: Path | None = None,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    decode: Decoding = UNCHANGED,
) -> int:
    """Compare systems on a test set: scores with paired bootstrap, by length, by rare words, and
    the sentences that differ most.

    Args:
        systems: Folders of runs, or files of translations, line by line; the first one is what the
            others are compared with.
        source: UTF-8 text, a sentence a line, plain or .gz.
        reference: Human translations, line by line.
        target_language: Its code, which selects BLEU's tokenizer; a run's own by default.
        resamples: Of the bootstrap.
        examples: Sentences shown in each direction.
        page: Write an HTML page here too.
        as_json: Print one JSON object instead of lines.
        decode: How runs decode; what is not given is the run's own.
    """
    from tfm import comparison

    if page is not None:
        storage.check_output(page)
    sources, references = parallel(source, reference)
    outputs: dict[str, list[str]] = {}
    for name in systems:
        if RunFolder(name).config.is_file():
            translator = ModelOptions(name).load()
            target_language = target_language or translator.experiment.data.target
            outputs[_unused(name, outputs)] = translator.translate(sources, **given(decode))
        else:
            outputs[_unused(name, outputs)] = list(text.read(Path(name)))
    if not target_language:
        raise ValueError("--target-language: name it, no run among the systems says it")
    found = signals.interruptible(
        lambda: comparison.compare(
            sources, references, outputs, target_language, resamples=resamples, examples=examples
        )
    )
    print(json.dumps(comparison.as_data(found), ensure_ascii=False, indent=2) if as_json
          else comparison.text(found))  # fmt: skip
    if page is not None:
        storage.write_atomically(page, comparison.html(found).encode())
    return 0


def _unused(name: str, taken: dict) -> str:
    """A short name for a system: the last part of its path, or the whole if that is taken."""
    short = Path(name).name
    return short if short not in taken else name if name not in taken else f"{name} (2)"
