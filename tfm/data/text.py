r"""Text files, plain or gzipped, and parallel text: two files with matching lines, or one TSV file.

Lines end at "\n" only; a leading byte order mark, and a "\r" at the end of a line, are dropped.
"""

import contextlib
import gzip
import itertools
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

_BOM = b"\xef\xbb\xbf"


def check(paths: tuple[Path, ...], columns: tuple[int, int] | None) -> None:
    """Reads parallel text once to find its errors before it is converted.

    Args:
      paths: two files, or one TSV file.
      columns: source and target column of the TSV file, from 0; None for two files.

    Raises:
      ValueError: the files differ in length, a TSV line lacks a column, or no pair is usable.
    """
    if len(paths) == 2:
        counts = [sum(1 for _ in lines(path)) for path in paths]
        if counts[0] != counts[1]:
            raise ValueError(
                f"{paths[0]} has {counts[0]:,} lines but {paths[1]} has {counts[1]:,}: "
                "line N of one must translate line N of the other"
            )
    if sum(not fault for *_, fault in read_pairs(paths, columns)) == 0:
        names = " and ".join(map(str, paths))
        raise ValueError(f"{names}: no usable pair; every line is empty or not UTF-8")


def read_pairs(
    paths: tuple[Path, ...], columns: tuple[int, int] | None
) -> Iterator[tuple[int, str, str, str]]:
    """Yields (line number from 1, source, target, fault); arguments as in ``check``.

    A fault says why the pair cannot be used: "undecodable" (not UTF-8; the texts are then empty),
    "empty" (a side is blank), or "" for none.

    Raises:
      ValueError: a TSV line lacks a column, or a gzip file is damaged.
    """
    for number, line in enumerate(zip(*map(lines, paths), strict=True), start=1):
        try:
            texts = [part.decode("utf-8") for part in line]
        except UnicodeDecodeError:
            yield number, "", "", "undecodable"
            continue
        if columns is not None:
            cells = texts[0].split("\t")
            if max(columns) >= len(cells):
                raise ValueError(
                    f"{paths[0]} line {number}: has {len(cells)} tab-separated column(s), "
                    f"but data.tsv_columns {columns} needs {max(columns) + 1}"
                )
            texts = [cells[column] for column in columns]
        yield number, texts[0], texts[1], "" if all(map(str.strip, texts)) else "empty"


@contextlib.contextmanager
def open_binary(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to read bytes; one whose name ends in .gz is decompressed.

    Raises:
      ValueError: reading meets a damaged gzip file.
    """
    try:
        with path.open("rb") as raw:  # perhaps of a bucket
            yield cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file ({error})") from error


def lines(path: Path, keep_ends: bool = False) -> Iterator[bytes]:
    """Yields the lines of a file as bytes, split as in ``split``."""
    with open_binary(path) as file:
        yield from split(file, keep_ends)


def read(path: Path, keep_ends: bool = False) -> Iterator[str]:
    """Yields the lines of a UTF-8 file as text.

    Raises:
      ValueError: a line is not UTF-8; the message names file and line.
    """
    yield from decode(lines(path, keep_ends), str(path))


def split(file: BinaryIO, keep_ends: bool = False) -> Iterator[bytes]:
    r"""Yields lines, split at "\n" only, without byte order mark and, by default, final "\r\n"."""
    first = file.readline().removeprefix(_BOM)
    for line in itertools.chain([first] if first else [], file):
        yield line if keep_ends else line.removesuffix(b"\n").removesuffix(b"\r")


def decode(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Decodes lines of UTF-8.

    Args:
      name: of the file or stream, for the message.

    Raises:
      ValueError: a line is not UTF-8; the message names file and line.
    """
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name} line {number}: not UTF-8 ({error.reason})") from error
