"""Words and their vectors, and their files in the text and binary formats of word2vec.c."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tfm import storage
from tfm.data import text

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Vectors:
    """Words and their vectors.

    Attributes:
      words: V different words, the most frequent first.
      table_VD: a row for each word, float32.
    """

    words: tuple[str, ...]
    table_VD: np.ndarray

    def __post_init__(self) -> None:
        if len(self.words) != len(self.table_VD):
            raise ValueError(f"vectors: {len(self.words)} words, {len(self.table_VD)} rows")
        if len(self.ids) != len(self.words):
            raise ValueError("vectors: a word occurs twice")

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word → row."""
        return {word: i for i, word in enumerate(self.words)}

    def row(self, word: str) -> int | None:
        """Returns the row of a word as written, else in lower case; None if neither is known."""
        return self.ids.get(word, self.ids.get(word.lower()))

    @cached_property
    def units_VD(self) -> np.ndarray:
        """The rows scaled to norm 1; rows of zeros stay zero."""
        return units(self.table_VD)


def units(x: np.ndarray) -> np.ndarray:
    """Scales vectors along the last axis to norm 1; zero vectors stay zero."""
    norms = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(norms == 0, 1, norms)


def is_binary(path: Path) -> bool:
    """Tells by a file's name whether it is in the binary format: it ends in .bin or .bin.gz."""
    return path.name.removesuffix(".gz").endswith(".bin")


def check_output(path: Path) -> None:
    """Creates the folder of an output file and checks that it is writable, before any work is done.

    Raises:
      ValueError: ``write`` does not support the name: it is in a bucket, or compressed.
      OSError: no file can be created there; the message names the path.
    """
    if path.parts[:1] and path.parts[0].endswith(":"):
        raise ValueError(f"{path}: vectors are written to a local disk only")
    if path.suffix == ".gz":
        raise ValueError(f"{path}: vectors are written uncompressed; leave out .gz")
    storage.make_folder(path.parent, f"{path}: cannot be written")
    storage.check_output(path)


def write(vectors: Vectors, path: Path) -> None:
    """Writes vectors in word2vec.c's binary format to a ``.bin`` file, else in its text format.

    Text: a line "V D", then a line for each word and its numbers, exact to the last bit of a
    float32. Binary: the same first line, then for each word the word, a space, D little-endian
    float32 and a line break.

    Raises:
      ValueError: a word is empty or contains white space, which neither format can represent.
      ValueError, OSError: as ``check_output``.
    """
    check_output(path)
    V, D = vectors.table_VD.shape
    for word in vectors.words:
        if not word or word.split() != [word]:
            raise ValueError(
                f"{path}: {word!r} is empty or contains white space, which the format cannot hold"
            )
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
    """Reads a file of ``write``, gensim or word2vec.c, plain or .gz.

    The binary format is recognised by the file's name (.bin), or by its first entry, which does not
    end in a number. Entries whose word is not UTF-8 or occurred before, which public files have,
    are left out; a warning says how many.

    Args:
      most: number of entries to read, from the first; None reads all.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file is not in the format; the message names the entry.
    """
    if not path.is_file():
        raise FileNotFoundError(f"vectors {path}: no such file")
    with text.open_binary(path) as file:
        return _read(file, path, most)


def _read(file: BinaryIO, path: Path, most: int | None) -> Vectors:
    header = file.readline().split()
    if len(header) != 2 or not all(part.isdigit() for part in header):
        raise ValueError(f'vectors {path}: the first line is not "words width"')
    V, D = map(int, header)
    binary = is_binary(path) or not _ends_in_a_number(file)
    rows = (_binary_rows if binary else _text_rows)(file, D)
    table = np.empty((min(V, V if most is None else most), D), np.float32)
    words: dict[str, None] = {}  # An ordered set.
    repeated = undecodable = 0
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
        repeated += word in words
        words.setdefault(word)
    if repeated or undecodable:
        _log.warning(
            f"vectors {path}: of {len(table):,} entries {repeated + undecodable:,} are left out: "
            f"{repeated:,} of words that occurred before, {undecodable:,} not in UTF-8"
        )
    return Vectors(tuple(words), table[: len(words)])


def _ends_in_a_number(file: BinaryIO) -> bool:
    """Tells whether the next line ends in a number, as in the text format; does not consume it."""
    position = file.tell()
    cells = file.readline().split() or [b"0"]
    file.seek(position)
    try:
        float(cells[-1])
    except ValueError:
        return False
    return True


def _text_rows(file: BinaryIO, D: int) -> Iterator[tuple[bytes, np.ndarray]]:
    for line in file:
        word, *numbers = line.rstrip(b" \r\n").split(b" ")
        if len(numbers) != D:
            raise ValueError(f"{len(numbers)} numbers instead of {D}")
        yield word, np.array(numbers, np.float32)


def _binary_rows(file: BinaryIO, D: int) -> Iterator[tuple[bytes, np.ndarray]]:
    while letter := file.read(1):
        word = b""
        while letter not in (b" ", b""):
            word, letter = word + letter, file.read(1)
        numbers = file.read(4 * D)
        if len(numbers) < 4 * D:
            raise ValueError("the file ends inside it")
        # word2vec.c ends each entry with a line break, which precedes the next word.
        yield word.lstrip(b"\n"), np.frombuffer(numbers, "<f4")
