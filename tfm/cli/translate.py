"""``tfm translate``, ``tfm score`` and ``tfm evaluate``: a trained model used on files."""

import dataclasses
import functools
import io
import itertools
import json
import logging
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import tyro

from tfm import signals, storage, terminal
from tfm.cli.options import UNCHANGED, Decoding, Model, PairModel, ServedModel, given
from tfm.data import languages, text
from tfm.ranges import Range
from tfm.translator import bulk, document, formats

if TYPE_CHECKING:
    from tfm.translator import Glossary, Translation, Translator

_log = logging.getLogger(__name__)
_SCORED_TOGETHER = 1024  # pairs


@dataclass(frozen=True)
class Output:
    """What is read, and how results are written.

    Attributes:
        input_format: Lines of text, rows of tab-separated values, or JSON lines. What stands beside
            the text is passed through.
        field: What is translated: of TSV, the number of a column, from 1; of JSON lines, the name
            of a field. By default column 1 and "text".
        output_format: Lines of text, rows, JSON lines, or n-best lists as of Moses. The input's by
            default.
        n_best: Translations a line, at most the beam size or the number of samples. Above 1, a line
            of text holds line number, score, natural-log probability and text, separated by tabs.
        alignment: Add which piece of the line each piece of the translation comes from (0-0 1-2:
            source-target, counted from 0), the line's pieces, and its own; in tab-separated columns
            or in the JSON object.
        word_scores: Add the words of the translation and the natural-log probability of each.
        document: Translate sentence by sentence, and keep every line break, indent and column, the
            marks that begin lines of Markdown, and tags of HTML between sentences.
        detokenize: Write text; or, if not, the model's pieces with spaces between them.
    """

    input_format: formats.InputFormat = "text"
    field: str = ""
    output_format: formats.OutputFormat | None = None
    n_best: Annotated[int, Range(least=1)] = 1
    alignment: bool = False
    word_scores: bool = False
    document: bool = False
    detokenize: bool = True

    @property
    def needs_pieces(self) -> bool:
        return not self.detokenize or self.written == "jsonl"

    @property
    def written(self) -> formats.OutputFormat:
        return self.output_format or self.input_format

    def records(self, lines: Iterable[str], name: str, first: int = 1) -> Iterator[formats.Record]:
        kind, field, ends = self.input_format, self.field, self.keeps_ends
        return formats.records(lines, name, kind, field, ends, first)

    @property
    def keeps_ends(self) -> bool:
        """Whether a line of output ends as its line of input does."""
        return self.document and self.input_format == "text"


def translate(
    model: ServedModel,
    input: tuple[str, ...] = (),
    output: Path | None = None,
    output_dir: str | None = None,
    block_lines: Annotated[int, Range(least=1)] = 1000,
    glossary: Path | None = None,
    warm_up: bool = False,
    format: Annotated[Output, tyro.conf.arg(name="")] = Output(),
    decode: Decoding = UNCHANGED,
) -> int:
    """Translate text, a line at a time: for every line in, one line out.

    Args:
        model: The model.
        input: UTF-8 text, plain or .gz; stdin if not given. Several files need --output-dir.
        output: Where translations go, compressed if it ends in .gz; stdout if not given.
        output_dir: A folder, local or in a bucket, for one output a file, of the same name. The
            same command, started again after it was killed, goes on; on several hosts at once they
            share the work.
        block_lines: With --output-dir, lines that a process takes at a time.
        glossary: Terms to be translated in a certain way: tab-separated columns, source term,
            translation, other forms of it; a source term alone is copied exactly. What a line's
            translation does not hold is reported on stderr.
        warm_up: Translate nothing, but compile all that these settings need for texts of any length
            into the folder of the run. Later commands with them then start without compiling.
        format: What is read and written.
        decode: How to decode; what is not given is the run's own.
    """
    if warm_up:
        model.load(warm_up=True).warm_up(**given(decode))
        return 0
    if format.alignment and format.n_best > 1:
        raise ValueError("--alignment is of the best translation: leave --n-best at 1")
    if not format.detokenize and format.document:
        raise ValueError("--no-detokenize: a document is text; leave out --document")
    if output_dir is not None and (output is not None or not input):
        raise ValueError("--output-dir: takes the place of --output, and needs --input")
    if output_dir is None and len(input) > 1:
        raise ValueError("--input: several files need --output-dir")
    from tfm.translator.glossary import read as read_glossary

    if output is not None:
        storage.check_output(output)
    terms = None if glossary is None else read_glossary(glossary)
    translator, settings = model.load(), given(decode)
    if output_dir is not None:
        return _translate_files(
            translator, input, output_dir, format, settings, block_lines, given(model), terms
        )
    batch_size = settings.get("batch_size", translator.experiment.decode.batch_size)
    done = _Done()
    with (
        _reading(*map(Path, input), keep_ends=format.keeps_ends) as (lines, name, is_terminal),
        _writing(output) as out,
    ):
        records = format.records(lines, name)
        while chunk := list(itertools.islice(records, 1 if is_terminal else 16 * batch_size)):
            out.write(_written(translator, chunk, format, settings, done, terms))
            out.flush()
    done.log()
    return 0


def _translate_files(
    translator: "Translator",
    input: tuple[str, ...],
    folder: str,
    format: Output,
    settings: dict,
    block_lines: int,
    model: dict,
    terms: "Glossary | None",
) -> int:
    """Many files, in blocks that several processes share."""
    done = _Done()

    def write(lines: list[str], name: str, first: int) -> bytes:
        packed = io.BytesIO()
        with formats.writing(packed, name) as file:
            records = list(format.records(lines, name, first))
            if records:
                file.write(_written(translator, records, format, settings, done, terms))
        return packed.getvalue()

    decode = dataclasses.asdict(translator.decode_settings(**settings))
    job = {"model": model, "decode": decode, "format": dataclasses.asdict(format)}
    job["glossary"] = None if terms is None else dict(terms.terms)
    bulk.run(input, folder, write, job, block_lines, format.keeps_ends)
    done.log()
    return 0


class _Done:
    """What a command has translated, for its closing line."""

    def __init__(self) -> None:
        self._watch, self._lines, self._guarded = terminal.Stopwatch(), 0, Counter[str]()

    def count(self, found: list[list["Translation"]]) -> None:
        self._lines += len(found)
        self._guarded.update(own[0].guard for own in found if own[0].guard)

    def log(self) -> None:
        guarded = ", ".join(f"{n:,} {what}" for what, n in self._guarded.most_common())
        duration = terminal.duration(self._watch.seconds)
        message = f"translated {self._lines:,} lines in {duration}"
        _log.info(message + (f"; guard: {guarded}" if guarded else ""))


def _written(
    translator: "Translator",
    records: list[formats.Record],
    format: Output,
    settings: dict,
    done: _Done,
    terms: "Glossary | None",
) -> bytes:
    """The output for some records."""
    search = (
        functools.partial(document.n_best, translator) if format.document else translator.n_best
    )
    if terms is not None:
        settings = settings | {"constraints": terms}
    found = search([r.text for r in records], format.n_best, **settings)
    done.count(found)
    for record, own in zip(records, found, strict=True):
        if own[0].unmet:
            _log.warning("line %d: lacks %s", record.number, ", ".join(own[0].unmet))
    flat = [translation for own in found for translation in own]
    words: Iterator[Any] = itertools.repeat(None)
    alignments: Iterator[Any] = itertools.repeat(None)
    if format.word_scores:
        spaces = languages.language(translator.experiment.data.target).spaces
        scores = translator.translation_scores(flat)
        words = iter([formats.words(*own, spaces) for own in scores])
    if format.alignment:
        alignments = iter(_alignments(translator, flat))
    result = []
    for record, own in zip(records, found, strict=True):
        row = []
        for translation in own:
            pieces = translator.pieces(translation) if format.needs_pieces else ()
            text = translation.text if format.detokenize else " ".join(pieces)
            row.append(formats.Found(translation, text, pieces, next(words), next(alignments)))
        result.append(formats.written(format.written, record, row, format.n_best > 1))
    return "".join(result).encode()


def score(
    model: PairModel, source: Path, target: Path, words: bool = False, summary: bool = False
) -> int:
    """Print the natural-log probability of each target line given its source line.

    Args:
        model: The model.
        source: UTF-8 text, a sentence a line, plain or .gz.
        target: Its translation, line by line.
        words: Follow each by a tab, the words of the target, a tab, and the log-probability of each
            word, the sum of its tokens'; the last word, </s>, is the end of the sentence.
        summary: Print one line instead: pairs, tokens, log-probability, and the perplexity of a
            token.
    """
    _check_parallel(source, target)
    translator, total, tokens, count = model.load(), 0.0, 0, 0
    spaces = languages.language(translator.experiment.data.target).spaces
    pairs = zip(text.read(source), text.read(target), strict=True)
    while chunk := list(itertools.islice(pairs, _SCORED_TOGETHER)):
        found = translator.token_scores(*zip(*chunk, strict=True))
        for pieces, scores in found:
            total, tokens, count = total + sum(scores), tokens + len(scores), count + 1
            if summary:
                continue
            columns = [f"{sum(scores):.6f}"]
            if words:
                named = formats.words(pieces, scores, spaces)
                columns.append(" ".join(word for word, _ in named))
                columns.append(" ".join(f"{value:.6f}" for _, value in named))
            print("\t".join(columns))
    if summary:
        perplexity = math.exp(min(-total / tokens, 700)) if tokens else math.nan
        print(
            f"pairs {count}, tokens {tokens}, log-probability {total:.4f}, "
            f"perplexity {perplexity:.4f}"
        )
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


def _alignments(translator: "Translator", found: list["Translation"]) -> list[tuple[str, str, str]]:
    """Pairs in the Pharaoh format, source pieces and target pieces of every line."""
    from tfm import inspect

    parts = [translation.parts for translation in found]
    alignments = signals.interruptible(lambda: inspect.align(translator, parts))
    return [(str(a), " ".join(a.source), " ".join(a.target)) for a in alignments]


@contextmanager
def _reading(
    path: Path | None = None, keep_ends: bool = False
) -> Iterator[tuple[Iterator[str], str, bool]]:
    """Lines of a file or of stdin, its name, and whether a person is typing them."""
    if path is None:
        lines = text.decode(text.split(sys.stdin.buffer, keep_ends), "stdin")
        yield lines, "stdin", sys.stdin.isatty()
    else:
        yield text.read(path, keep_ends), str(path), False


@contextmanager
def _writing(path: Path | None) -> Iterator[BinaryIO]:
    """A file that appears only when it is whole, or stdout."""
    if path is None:
        yield sys.stdout.buffer
        return
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as raw, formats.writing(raw, path.name) as file:
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
    _check_parallel(source, target)
    return list(text.read(source)), list(text.read(target))


def _check_parallel(source: Path, target: Path) -> None:
    """Raises ValueError if the files differ in length, or are not UTF-8."""
    counts = [sum(1 for _ in text.read(path)) for path in (source, target)]
    if counts[0] != counts[1]:
        raise ValueError(
            f"{source} has {counts[0]:,} lines but {target} has {counts[1]:,}: "
            "line N of one must belong to line N of the other"
        )
