"""``tfm translate``, ``tfm score`` and ``tfm evaluate``: a trained run at work on files."""

import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import tyro

from tfm.data import text

LengthNorm = Literal["power", "gnmt"]


def translate(
    model: str,
    input: Path | None = None,
    output: Path | None = None,
    batch_size: int | None = None,
    beam_size: int | None = None,
    length_penalty: float | None = None,
    length_norm: LengthNorm | None = None,
    max_length_factor: float | None = None,
    max_length_offset: int | None = None,
    n_best: int = 1,
    alignment: bool = False,
    source_length: int | None = None,
    rotary_scaling: float | None = None,
) -> int:
    """Translate text, a line at a time: for every line in, one line out.

    Args:
        model: Folder of a run, local or in a bucket.
        input: UTF-8 text, plain or .gz; stdin if not given.
        output: Where translations go; stdout if not given.
        batch_size: Sentences translated together. This and the next five default to the run's own.
        beam_size: Hypotheses a sentence; 1 is greedy.
        length_penalty: Alpha of the length normalisation.
        length_norm: power is length^alpha, gnmt is ((5+length)/6)^alpha.
        max_length_factor: At most this times the source's pieces are written ...
        max_length_offset: ... plus this.
        n_best: Translations a line. Above 1, a line of output holds line number, score, natural-log
            probability and text, separated by tabs.
        alignment: Follow each translation by a tab and which piece of the line each of its pieces
            comes from (0-0 1-2: source-target, counted from 0), a tab and the line's pieces, a tab
            and its own.
        source_length: The most pieces of a line that are translated in one; a longer line is cut
            in parts. The run's own by default.
        rotary_scaling: Divides the places of rotary positions; 2 reads twice the trained length.
    """
    from tfm import translator

    if alignment and n_best > 1:
        raise ValueError("--alignment is of the best translation: leave --n-best at 1")
    decode = _given(
        batch_size=batch_size,
        beam_size=beam_size,
        length_penalty=length_penalty,
        length_norm=length_norm,
        max_length_factor=max_length_factor,
        max_length_offset=max_length_offset,
    )
    opened = translator.load(model, source_length, rotary_scaling=rotary_scaling)
    at_once = 16 * (batch_size or opened.config.decode.batch_size)
    with _reading(input) as (lines, is_terminal), _writing(output) as out:
        numbered = enumerate(lines, 1)
        while chunk := list(itertools.islice(numbered, 1 if is_terminal else at_once)):
            numbers, texts = zip(*chunk, strict=True)
            found = opened.n_best(texts, n_best, **decode)
            if n_best > 1:
                rows = itertools.chain(*map(_n_best_rows, numbers, found))
            else:
                rows = [best[0].text for best in found]
            if alignment:
                rows = map("\t".join, zip(rows, *_alignments(opened, texts, rows), strict=True))
            out.write("".join(f"{row}\n" for row in rows).encode())
            out.flush()
    return 0


def score(
    model: str,
    source: Path,
    target: Path,
    source_length: int | None = None,
    target_length: int | None = None,
    rotary_scaling: float | None = None,
) -> int:
    """Print the natural-log probability of each target line given its source line.

    Args:
        model: Folder of a run, local or in a bucket.
        source: UTF-8 text, a sentence a line, plain or .gz.
        target: Its translation, line by line.
        source_length: Longest source, in pieces. This and the next default to the run's own.
        target_length: Longest target.
        rotary_scaling: Divides the places of rotary positions; 2 reads twice the trained length.
    """
    from tfm import translator

    opened = translator.load(model, source_length, target_length, rotary_scaling)
    for value in opened.score(*_parallel(source, target)):
        print(f"{value:.6f}")
    return 0


def evaluate(
    model: str,
    source: Path,
    reference: Path,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    batch_size: int | None = None,
    beam_size: int | None = None,
    length_penalty: float | None = None,
    length_norm: LengthNorm | None = None,
    source_length: int | None = None,
    rotary_scaling: float | None = None,
) -> int:
    """Translate a test set; print BLEU and chrF with their signatures, and the speed.

    Args:
        model: Folder of a run, local or in a bucket.
        source: UTF-8 text, a sentence a line, plain or .gz.
        reference: Human translations, line by line.
        as_json: Print one JSON object instead of lines.
        batch_size: Sentences translated together. This and the next three default to the run's own.
        beam_size: Hypotheses a sentence; 1 is greedy.
        length_penalty: Alpha of the length normalisation.
        length_norm: power is length^alpha, gnmt is ((5+length)/6)^alpha.
        source_length: The most pieces of a line that are translated in one.
        rotary_scaling: Divides the places of rotary positions; 2 reads twice the trained length.
    """
    from tfm import evaluation, translator

    decode = _given(
        batch_size=batch_size,
        beam_size=beam_size,
        length_penalty=length_penalty,
        length_norm=length_norm,
    )
    sources, references = _parallel(source, reference)
    opened = translator.load(model, source_length, rotary_scaling=rotary_scaling)
    start = time.perf_counter()
    hypotheses = opened.translate(sources, **decode)
    seconds = time.perf_counter() - start - opened.compile_seconds
    scores = [
        evaluation.bleu(hypotheses, references, opened.config.data.target),
        evaluation.chrf(hypotheses, references),
        evaluation.exact_match(hypotheses, references),
    ]
    speed = {
        "sentences": len(sources),
        "seconds": round(seconds, 3),
        "sentences_per_second": round(len(sources) / seconds, 3),
        "compile_seconds": round(opened.compile_seconds, 3),
    }
    settings = dataclasses.asdict(dataclasses.replace(opened.config.decode, **decode))
    settings |= _given(source_length=source_length, rotary_scaling=rotary_scaling)
    if as_json:
        found = {s.name: {"value": s.value, "signature": s.signature} for s in scores}
        print(json.dumps({"scores": found, "decode": settings} | speed, indent=2))
        return 0
    print("\n".join(map(str, scores)))
    print("decode " + ", ".join(f"{name} {value}" for name, value in settings.items()))
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in speed.items()))
    return 0


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _alignments(opened: Any, texts: tuple[str, ...], translations: list[str]) -> list[list[str]]:
    """Pairs in the Pharaoh format, source pieces and target pieces of every line."""
    from tfm import inspect

    found = inspect.align(opened, texts, translations)
    return [
        [str(a) for a in found],
        [" ".join(a.source) for a in found],
        [" ".join(a.target) for a in found],
    ]


def _n_best_rows(number: int, found: list) -> list[str]:
    return [f"{number}\t{t.score:.4f}\t{t.log_prob:.4f}\t{t.text}" for t in found]


@contextmanager
def _reading(path: Path | None) -> Iterator[tuple[Iterator[str], bool]]:
    """Lines of a file or of stdin, and whether a person is typing them."""
    if path is None:
        yield text.decode(text.split(sys.stdin.buffer), "stdin"), sys.stdin.isatty()
    else:
        yield text.decode(text.lines(path), str(path)), False


@contextmanager
def _writing(path: Path | None) -> Iterator[BinaryIO]:
    """A file that appears only when it is whole, or stdout."""
    if path is None:
        yield sys.stdout.buffer
        return
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        if error.filename not in (None, str(part)):  # then it is not about the output
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        part.unlink(missing_ok=True)


def _parallel(source: Path, target: Path) -> tuple[list[str], list[str]]:
    """Both files' lines, as many in one as in the other."""
    sides = [list(text.decode(text.lines(path), str(path))) for path in (source, target)]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(
            f"{source} has {len(sides[0]):,} lines but {target} has {len(sides[1]):,}: "
            "line N of one must belong to line N of the other"
        )
    return sides[0], sides[1]
