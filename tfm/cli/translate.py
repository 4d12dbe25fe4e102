"""``tfm translate``, ``tfm score`` and ``tfm evaluate``: a trained model used on files."""

import dataclasses
import itertools
import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import tyro

from tfm import signals, storage
from tfm.cli.options import UNCHANGED, Decoding, Model, PairModel, ServedModel, given
from tfm.data import text
from tfm.ranges import Range

_log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from tfm.translator import Translation, Translator


def translate(
    model: ServedModel,
    input: Path | None = None,
    output: Path | None = None,
    n_best: Annotated[int, Range(least=1)] = 1,
    alignment: bool = False,
    glossary: Path | None = None,
    warm_up: bool = False,
    decode: Decoding = UNCHANGED,
) -> int:
    """Translate text, a line at a time: for every line in, one line out.

    Args:
        model: The model.
        input: UTF-8 text, plain or .gz; stdin if not given.
        output: Where translations go; stdout if not given.
        n_best: Translations a line, at most the beam size or the number of samples. Above 1, a line
            of output holds line number, score, natural-log probability and text, separated by tabs.
        alignment: Follow each translation by a tab and which piece of the line each of its pieces
            comes from (0-0 1-2: source-target, counted from 0), a tab and the line's pieces, a tab
            and its own.
        glossary: Terms to be translated in a certain way: tab-separated columns, source term,
            translation, other forms of it; a source term alone is copied exactly. What a line's
            translation does not hold is reported on stderr.
        warm_up: Translate nothing, but compile all that these settings need for texts of any length
            into the folder of the run. Later commands with them then start without compiling.
        decode: How to decode; what is not given is the run's own.
    """
    if warm_up:
        model.load(warm_up=True).warm_up(**given(decode))
        return 0
    if alignment and n_best > 1:
        raise ValueError("--alignment is of the best translation: leave --n-best at 1")
    from tfm.translator.glossary import read as read_glossary

    if output is not None:
        storage.check_output(output)
    terms = None if glossary is None else read_glossary(glossary)
    translator, settings = model.load(), given(decode)
    batch_size = settings.get("batch_size", translator.experiment.decode.batch_size)
    with _reading(input) as (lines, is_terminal), _writing(output) as out:
        numbered = enumerate(lines, 1)
        while chunk := list(itertools.islice(numbered, 1 if is_terminal else 16 * batch_size)):
            numbers, texts = zip(*chunk, strict=True)
            found = translator.n_best(texts, n_best, constraints=terms, **settings)
            for number, best in zip(numbers, found, strict=True):
                if best[0].unmet:
                    _log.warning("line %d: lacks %s", number, ", ".join(best[0].unmet))
            rows = [best[0].text for best in found]
            if n_best > 1:
                rows = list(itertools.chain(*map(_n_best_rows, numbers, found)))
            if alignment:
                columns = _alignments(translator, [best[0] for best in found])
                rows = ["\t".join(row) for row in zip(rows, *columns, strict=True)]
            out.write("".join(f"{row}\n" for row in rows).encode())
            out.flush()
    return 0


def score(model: PairModel, source: Path, target: Path) -> int:
    """Print the natural-log probability of each target line given its source line.

    Args:
        model: The model.
        source: UTF-8 text, a sentence a line, plain or .gz.
        target: Its translation, line by line.
    """
    for value in model.load().score(*parallel(source, target)):
        print(f"{value:.6f}")
    return 0


def evaluate(
    model: Model,
    source: Path,
    reference: Path,
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    decode: Decoding = UNCHANGED,
) -> int:
    """Translate a test set; print BLEU and chrF with their signatures, and the speed.

    Args:
        model: The model.
        source: UTF-8 text, a sentence a line, plain or .gz.
        reference: Human translations, line by line.
        as_json: Print one JSON object instead of lines.
        decode: How to decode; what is not given is the run's own.
    """
    from tfm import evaluation

    sources, references = parallel(source, reference)
    translator = model.load()
    start = time.perf_counter()
    hypotheses = translator.translate(sources, **given(decode))
    seconds = time.perf_counter() - start - translator.compile_seconds
    scores = [
        evaluation.bleu(hypotheses, references, translator.experiment.data.target),
        evaluation.chrf(hypotheses, references),
        evaluation.exact_match(hypotheses, references),
    ]
    speed = {
        "sentences": len(sources),
        "seconds": round(seconds, 3),
        "sentences_per_second": round(len(sources) / seconds, 3),
        "compile_seconds": round(translator.compile_seconds, 3),
    }
    settings = dataclasses.asdict(translator.experiment.decode) | given(decode)
    lengths = given(model)
    settings |= {name: lengths[name] for name in lengths if name != "model"}
    if as_json:
        found = {s.name: {"value": s.value, "signature": s.signature} for s in scores}
        print(json.dumps({"scores": found, "decode": settings} | speed, indent=2))
        return 0
    print("\n".join(map(str, scores)))
    print("decode " + ", ".join(f"{name} {value}" for name, value in settings.items()))
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in speed.items()))
    return 0


def _alignments(translator: "Translator", found: list["Translation"]) -> list[list[str]]:
    """Pairs in the Pharaoh format, source pieces and target pieces of every line."""
    from tfm import inspect

    parts = [translation.parts for translation in found]
    alignments = signals.interruptible(lambda: inspect.align(translator, parts))
    return [
        [str(a) for a in alignments],
        [" ".join(a.source) for a in alignments],
        [" ".join(a.target) for a in alignments],
    ]


def _n_best_rows(number: int, found: list["Translation"]) -> list[str]:
    return [f"{number}\t{t.score:.4f}\t{t.log_prob:.4f}\t{t.text}" for t in found]


@contextmanager
def _reading(path: Path | None) -> Iterator[tuple[Iterator[str], bool]]:
    """Lines of a file or of stdin, and whether a person is typing them."""
    if path is None:
        yield text.decode(text.split(sys.stdin.buffer), "stdin"), sys.stdin.isatty()
    else:
        yield text.read(path), False


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


def parallel(source: Path, target: Path) -> tuple[list[str], list[str]]:
    """Both files' lines, as many in one as in the other."""
    sides = [list(text.read(path)) for path in (source, target)]
    if len(sides[0]) != len(sides[1]):
        raise ValueError(
            f"{source} has {len(sides[0]):,} lines but {target} has {len(sides[1]):,}: "
            "line N of one must belong to line N of the other"
        )
    return sides[0], sides[1]
