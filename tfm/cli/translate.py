"""``tfm translate``: a trained model used on files."""

import dataclasses
import functools
import io
import itertools
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import tyro

from tfm import signals, storage, terminal
from tfm.cli.options import UNCHANGED, Decoding, ServedModel, given
from tfm.data import languages, text
from tfm.ranges import Range
from tfm.translator import bulk, document, formats, markup

if TYPE_CHECKING:
    from tfm.translator import Glossary, Translation, Translator

_log = logging.getLogger(__name__)


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
        alignment_by: How to align: LAYER[.HEAD][+shift][:REST]. The decoder layer and head, from 1,
            whose attention aligns; "all" is the mean over layers; without a head it is the mean
            over heads. With shift, by the step that reads a piece (Chen 2020); with REST, a piece
            of the line that is left over is aligned where its weight is at least that. `tfm
            evaluate --alignment` finds the best.
        word_scores: Add the words of the translation and the natural-log probability of each.
        document: Translate sentence by sentence, and keep every line break, indent and column, the
            marks that begin lines of Markdown, and tags of HTML between sentences.
        markup: Tags (<b>) and placeholders ({0}, %s) inside a line stay where alignment puts them;
            the model does not see them.
        detokenize: Write text; or, if not, the model's pieces with spaces between them.
    """

    input_format: formats.InputFormat = "text"
    field: str = ""
    output_format: formats.OutputFormat | None = None
    n_best: Annotated[int, Range(least=1)] = 1
    alignment: bool = False
    alignment_by: str = ""
    word_scores: bool = False
    document: bool = False
    markup: bool = False
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
    if not format.detokenize and (format.document or format.markup):
        raise ValueError("--no-detokenize: pieces have no lines or markup; leave out the options")
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
    job = {
        "model": model,
        "decode": decode,
        "format": dataclasses.asdict(format),
        "glossary": None if terms is None else dict(terms.terms),
    }
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
    search: Any = translator.n_best
    if format.markup:
        from tfm import inspect

        align = functools.partial(inspect.align, translator)
        search = functools.partial(markup.n_best, translator, align)
    if format.document:
        search = functools.partial(document.n_best, translator, search=search)
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
        alignments = iter(_alignments(translator, flat, format.alignment_by))
    result = []
    for record, own in zip(records, found, strict=True):
        row = []
        for translation in own:
            pieces = translator.pieces(translation) if format.needs_pieces else ()
            text = translation.text if format.detokenize else " ".join(pieces)
            row.append(formats.Found(translation, text, pieces, next(words), next(alignments)))
        result.append(formats.written(format.written, record, row, format.n_best > 1))
    return "".join(result).encode()


def _alignments(
    translator: "Translator", found: list["Translation"], by: str
) -> list[tuple[str, str, str]]:
    """Pairs in the Pharaoh format, source pieces and target pieces of every line."""
    from tfm import inspect

    parts = [translation.parts for translation in found]
    method = inspect.alignment.method(by, translator.arch)
    alignments = signals.interruptible(lambda: inspect.align(translator, parts, method))
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
