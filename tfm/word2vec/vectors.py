"""Words and their vectors, kept in the text and binary formats of word2vec.c."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np


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

    @cached_property
    def units_VD(self) -> np.ndarray:
        """The rows at length 1; a row of zeros stays."""
        return units(self.table_VD)


def units(x: np.ndarray) -> np.ndarray:
    """Vectors along the last axis at length 1; zeros stay."""
    norms = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(norms == 0, 1, norms)


def is_binary(path: Path) -> bool:
    """Whether a file's name says that it is in the binary format: it ends in .bin."""
    return path.suffix == ".bin"


def write(vectors: Vectors, path: Path) -> None:
    """Writes word2vec.c's binary format to a ``.bin`` file, else its text format.

    Text: a line "V D", then a word and its numbers a line. Binary: the same first line; a word, a
    space, D little-endian float32, a line break. Text keeps every bit of a float32.

    Raises:
      ValueError: a word holds white space, which neither format can tell from a border.
    """
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
    """Reads what ``write``, gensim or word2vec.c wrote: binary if it ends in .bin, else text.

    Args:
      most: read only this many words, the first.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file is not in the format; the message names the word or the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"vectors {path}: no such file")
    with path.open("rb") as file:
        header = file.readline().split()
        if len(header) != 2 or not all(part.isdigit() for part in header):
            raise ValueError(f'vectors {path}: the first line is not "words width"')
        V, D = map(int, header)
        rows = _binary_rows(file, D) if is_binary(path) else _text_rows(file, D)
        words, table = [], np.empty((min(V, V if most is None else most), D), np.float32)
        try:
            for i in range(len(table)):
                word, table[i] = next(rows)
                words.append(word.decode("utf-8"))
        except (ValueError, StopIteration) as error:
            raise ValueError(
                f"vectors {path}: entry {len(words) + 1} of {V:,}: {str(error) or 'missing'}"
            ) from error
    return Vectors(tuple(words), table)


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
