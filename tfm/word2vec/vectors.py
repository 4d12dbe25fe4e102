"""Words and their vectors, kept in the text and binary formats of word2vec.c."""

import gzip
import logging
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tfm import storage

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Vectors:
    """A space of words.

    Attributes:
      words: V different ones, the most frequent first.
      table_VD: a row each, float32.
    """

    words: tuple[str, ...]
    table_VD: np.ndarray

    def __post_init__(self) -> None:
        if len(self.words) != len(self.table_VD):
            raise ValueError(f"vectors: {len(self.words)} words, {len(self.table_VD)} rows")
        if len(self.ids) != len(self.words):
            raise ValueError("vectors: a word comes up twice")

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word → row."""
        return {word: i for i, word in enumerate(self.words)}

    def row(self, word: str) -> int | None:
        """The row of a word as it is written, else in lower case; None if neither has a vector."""
        return self.ids.get(word, self.ids.get(word.lower()))

    @cached_property
    def units_VD(self) -> np.ndarray:
        """The rows at length 1; a row of zeros stays."""
        return units(self.table_VD)


def units(x: np.ndarray) -> np.ndarray:
    """Vectors along the last axis at length 1; zeros stay."""
    norms = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(norms == 0, 1, norms)


def is_binary(path: Path) -> bool:
    """Whether a file's name says that it is in the binary format: it ends in .bin, or .bin.gz."""
    return path.name.removesuffix(".gz").endswith(".bin")


def check_output(path: Path) -> None:
    """Makes the folder of a file and tries it, so that no work is done for vectors without a place.

    Raises:
      ValueError: the name asks for what ``write`` does not do: a bucket, or compression.
      OSError: no file can be made there; the message names the path.
    """
    if path.parts[:1] and path.parts[0].endswith(":"):
        raise ValueError(f"{path}: vectors are written to a local disk only")
    if path.suffix == ".gz":
        raise ValueError(f"{path}: vectors are written as they are; leave out .gz, compress later")
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; name a file for the vectors")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(f"{path}: cannot be written: {storage.reason(error)}") from error


def write(vectors: Vectors, path: Path) -> None:
    """Writes word2vec.c's binary format to a ``.bin`` file, else its text format.

    Text: a line "V D", then a word and its numbers a line. Binary: the same first line; a word, a
    space, D little-endian float32, a line break. Text keeps every bit of a float32.

    Raises:
      ValueError: a word holds white space, which neither format can tell from a border.
      ValueError, OSError: as ``check_output``.
    """
    check_output(path)
    V, D = vectors.table_VD.shape
    for word in vectors.words:
        if not word or word.split() != [word]:
            raise ValueError(f"{path}: {word!r} is empty or holds white space; the format has none")
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(f"{V} {D}\n".encode())
            for word, row in zip(vectors.words, vectors.table_VD.astype("<f4"), strict=True):
                numbers = row.tobytes() if is_binary(path) else " ".join(map(str, row)).encode()
                file.write(word.encode() + b" " + numbers + b"\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read(path: Path, most: int | None = None) -> Vectors:
    """Reads what ``write``, gensim or word2vec.c wrote, plain or .gz.

    The binary format is known by its name (.bin) or by its first entry, which does not end in a
    number. An entry whose word is not UTF-8 or was there before, as public files have them, is left
    out; a warning says how many were.

    Args:
      most: read only this many entries, the first.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file is not in the format; the message names the entry.
    """
    if not path.is_file():
        raise FileNotFoundError(f"vectors {path}: no such file")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _read(file, path, most)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"vectors {path}: damaged gzip file ({error})") from error


def _read(file: BinaryIO, path: Path, most: int | None) -> Vectors:
    header = file.readline().split()
    if len(header) != 2 or not all(part.isdigit() for part in header):
        raise ValueError(f'vectors {path}: the first line is not "words width"')
    V, D = map(int, header)
    binary = is_binary(path) or not _ends_in_a_number(file)
    rows = (_binary_rows if binary else _text_rows)(file, D)
    table = np.empty((min(V, V if most is None else most), D), np.float32)
    words: dict[str, None] = {}  # in order
    twice = undecodable = 0
    for number in range(1, len(table) + 1):
        try:
            written, table[len(words)] = next(rows)
        except (ValueError, StopIteration) as error:
            raise ValueError(
                f"vectors {path}, read as {'binary' if binary else 'text'}: "
                f"entry {number} of {V:,}: {str(error) or 'missing'}"
            ) from error
        try:
            word = written.decode("utf-8")
        except UnicodeDecodeError:
            undecodable += 1
            continue
        twice += word in words
        words.setdefault(word)
    if twice or undecodable:
        _log.warning(
            f"vectors {path}: of {len(table):,} entries {twice + undecodable:,} are left out: "
            f"{twice:,} of words that were there before, {undecodable:,} not in UTF-8"
        )
    return Vectors(tuple(words), table[: len(words)])


def _ends_in_a_number(file: BinaryIO) -> bool:
    """Whether the line that comes does, as those of the text format do; it stays to be read."""
    here = file.tell()
    cells = file.readline().split() or [b"0"]
    file.seek(here)
    try:
        float(cells[-1])
    except ValueError:
        return False
    return True


def _text_rows(file: BinaryIO, D: int) -> Iterator[tuple[bytes, np.ndarray]]:
    for line in file:
        word, *numbers = line.rstrip(b" \r\n").split(b" ")
        if len(numbers) != D:
            raise ValueError(f"{len(numbers)} numbers where {D} belong")
        yield word, np.array(numbers, np.float32)


def _binary_rows(file: BinaryIO, D: int) -> Iterator[tuple[bytes, np.ndarray]]:
    while first := file.read(1):
        word = b""
        while first not in (b" ", b""):
            word, first = word + first, file.read(1)
        numbers = file.read(4 * D)
        if len(numbers) < 4 * D:
            raise ValueError("the file ends inside it")
        yield word.lstrip(b"\n"), np.frombuffer(numbers, "<f4")  # word2vec.c ends rows with \n
