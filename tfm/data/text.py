"""Files of parallel text, plain or gzipped: two with matching lines, or one of columns (TSV)."""

import gzip
import itertools
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

_BOM = b"\xef\xbb\xbf"


def check(paths: tuple[Path, ...], columns: tuple[int, int] | None) -> None:
    """Reads the text once, before anything is made of it.

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

    A fault says why the pair cannot be used: "undecodable" (not UTF-8, texts not given),
    "empty" (a side is blank), or "" for none.
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


def lines(path: Path) -> Iterator[bytes]:
    """Yields the lines of a file, as ``split`` cuts them."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from split(file)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: damaged gzip file ({error})") from error


def split(file: BinaryIO) -> Iterator[bytes]:
    r"""Yields lines, cut at "\n" only, without byte order mark and final "\r"."""
    first = file.readline().removeprefix(_BOM)
    for line in itertools.chain([first] if first else [], file):
        yield line.removesuffix(b"\n").removesuffix(b"\r")


def decode(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Lines as text.

    Raises:
      ValueError: a line is not UTF-8; the message names it.
    """
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name} line {number}: not UTF-8 ({error.reason})") from error
