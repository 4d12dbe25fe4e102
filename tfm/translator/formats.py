"""What is read for translation and how results are written, a line at a time.

Read: lines of text; rows of tab-separated values, of which one column is translated; or JSON lines,
objects of which one field is translated. What stands beside the text is passed through.

Written: lines of text, rows, JSON lines, or n-best lists in the form of Moses,
``id ||| translation ||| features ||| score``.
"""

import contextlib
import dataclasses
import gzip
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, cast

from tfm.translator.translation import Translation

InputFormat = Literal["text", "tsv", "jsonl"]
OutputFormat = Literal["text", "tsv", "jsonl", "moses"]

RESULT = "translations"
"""The field of a JSON object that holds what was found."""


@dataclass(frozen=True)
class Record:
    """A text to translate, and what stands beside it.

    Attributes:
      number: of its line, from 1.
      text: what is translated.
      cells: of a row of TSV, all columns.
      fields: of a JSON line, the whole object.
      end: what ends a line of text, and its translation.
    """

    number: int
    text: str
    cells: tuple[str, ...] = ()
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    end: str = "\n"


@dataclass(frozen=True)
class Found:
    """One translation, as it is written.

    Attributes:
      translation: the translation.
      text: what is printed for it: its text, or its pieces with spaces between them.
      pieces: of the target.
      words: (word, natural-log probability) where they were asked for.
      alignment: in the Pharaoh format, source pieces, target pieces, where it was asked for.
    """

    translation: Translation
    text: str
    pieces: tuple[str, ...] = ()
    words: tuple[tuple[str, float], ...] | None = None
    alignment: tuple[str, str, str] | None = None


def records(
    lines: Iterable[str],
    name: str,
    kind: InputFormat = "text",
    field: str = "",
    keep_ends: bool = False,
    first: int = 1,
) -> Iterator[Record]:
    """Reads records, one a line.

    Args:
      name: of the file, for messages.
      field: of TSV, the number of the column to translate, from 1; of JSON lines, the name of the
        field. By default column 1 and "text".
      keep_ends: whether the lines, of text, have their ends, which go to ``Record.end``.
      first: number of the first line.

    Raises:
      ValueError: a line that is no such row or object; the message names file and line.
    """
    read = _ended if keep_ends else _READERS[kind](field)
    for number, line in enumerate(lines, first):
        try:
            yield read(number, line)
        except ValueError as error:
            raise ValueError(f"{name} line {number}: {error}") from error


def _text(field: str) -> Callable[[int, str], Record]:
    if field:
        raise ValueError(f"field {field!r}: lines of text have no fields; name a format with them")
    return Record


def _ended(number: int, line: str) -> Record:
    content = line.rstrip("\r\n")
    return Record(number, content, end=line[len(content) :])


def _row(field: str) -> Callable[[int, str], Record]:
    if field and (not field.isdecimal() or int(field) < 1):
        raise ValueError(f"field {field!r}: of TSV it is the number of a column, 1 or more")
    column = int(field or 1) - 1

    def read(number: int, line: str) -> Record:
        cells = tuple(line.split("\t"))
        if column >= len(cells):
            raise ValueError(f"has {len(cells)} column(s), column {column + 1} is to be translated")
        return Record(number, cells[column], cells=cells)

    return read


def _object(field: str) -> Callable[[int, str], Record]:
    key = field or "text"
    if key == RESULT:
        raise ValueError(f"field {key!r}: holds the results; rename it in the input")

    def read(number: int, line: str) -> Record:
        try:
            found = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"not JSON ({error})") from error
        if not isinstance(found, dict):
            raise ValueError(f"not a JSON object, which begins with {{: {line[:40]!r}")
        if not isinstance(found.get(key), str):
            raise ValueError(f'has no text in field "{key}"')
        if RESULT in found:
            raise ValueError(f'has a field "{RESULT}", where the results go; rename it')
        try:
            line.encode()
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("holds half of a surrogate pair, which is no character") from error
        return Record(number, found[key], fields=found)

    return read


_READERS = {"text": _text, "tsv": _row, "jsonl": _object}


def written(
    kind: OutputFormat, record: Record, found: Sequence[Found], listed: bool = False
) -> str:
    """The output for one record: a line for each translation, but one alone of JSON.

    Args:
      found: best first.
      listed: whether several translations were asked for: then a line of text begins with the
        number of its line in the input, score and log-probability.
    """
    if kind == "text" and not listed:
        return "\t".join([_one_line(found[0].text), *_columns(found[0])]) + record.end
    write = _listed_rows if kind == "text" else _WRITERS[kind]
    return "".join(f"{row}\n" for row in write(record, found))


def _one_line(text: str) -> str:
    """A text that a document may have been, for a format of lines."""
    return re.sub("[\r\n]", " ", text)


def _cell(text: str) -> str:
    return re.sub("[\t\r\n]", " ", text)


def _listed_rows(record: Record, found: Sequence[Found]) -> list[str]:
    return [
        f"{record.number}\t{f.translation.score:.4f}\t{f.translation.log_prob:.4f}\t"
        + "\t".join([_cell(f.text), *_columns(f)])
        for f in found
    ]


def _tsv_rows(record: Record, found: Sequence[Found]) -> list[str]:
    """All columns as they were, and the translation as one more."""
    cells = record.cells or (_cell(record.text),)
    return ["\t".join([*cells, _cell(f.text), *_columns(f)]) for f in found]


def _columns(found: Found) -> list[str]:
    """Columns that were asked for besides the text."""
    columns = list(found.alignment or ())
    if found.words is not None:
        words = zip(*found.words, strict=True) if found.words else ((), ())
        texts, scores = words
        columns += [" ".join(texts), " ".join(f"{score:.4f}" for score in scores)]
    return columns


def _json_rows(record: Record, found: Sequence[Found]) -> list[str]:
    """The object as it was, with an id if it had none, and the translations."""
    fields = record.fields or {"text": record.text}
    best = {RESULT: [_json(f) for f in found]}
    whole = {"id": record.number} | fields | best
    return [json.dumps(whole, ensure_ascii=False, allow_nan=False)]


def _json(found: Found) -> dict[str, Any]:
    translation = found.translation
    result: dict[str, Any] = {
        "text": found.text,
        "pieces": list(found.pieces),
        "log_prob": _finite(translation.log_prob),
        "score": _finite(translation.score),
    }
    if found.words is not None:
        result["words"] = [[word, round(score, 4)] for word, score in found.words]
    if found.alignment is not None:
        pairs, source, _ = found.alignment
        result["alignment"] = [list(map(int, pair.split("-"))) for pair in pairs.split()]
        result["source_pieces"] = source.split()
    if translation.guard:
        result["guard"] = translation.guard
    return result


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return round(value, 6) if math.isfinite(value) else None


def _moses_rows(record: Record, found: Sequence[Found]) -> list[str]:
    """Ids from 0; "|||" in a translation is written with the entities of Moses."""
    return [
        f"{record.number - 1} ||| {_one_line(f.text).replace('|||', '&#124;' * 3)} ||| "
        f"LogProb= {f.translation.log_prob:.6f} Length= {len(f.pieces)} ||| "
        f"{f.translation.score:.6f}"
        for f in found
    ]


_WRITERS = {"tsv": _tsv_rows, "jsonl": _json_rows, "moses": _moses_rows}


def words(
    pieces: Sequence[str], scores: Sequence[float], spaces: bool
) -> tuple[tuple[str, float], ...]:
    """Pieces and their natural-log probabilities → words and theirs, the sums of their pieces'.

    Args:
      pieces: a piece begins a word where it begins with the space mark "▁".
      spaces: whether the language writes spaces; if not, every piece is a word.
    """
    found: list[tuple[str, float]] = []
    for piece, score in zip(pieces, scores, strict=True):
        if found and spaces and not piece.startswith(("▁", "</s>")):
            word, before = found[-1]
            found[-1] = (word + piece, before + score)
        else:
            found.append((piece.removeprefix("▁"), score))
    return tuple(found)


@contextlib.contextmanager
def writing(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """What is written goes to ``file``, compressed if the name ends in .gz.

    The time is left out, so that the same text gives the same bytes.
    """
    if not name.endswith(".gz"):
        yield file
        return
    with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        yield cast(BinaryIO, packed)
