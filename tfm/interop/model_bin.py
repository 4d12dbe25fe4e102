"""The file ``model.bin`` of CTranslate2: variables by name, read, written, quantised.

The file is little-endian: version, name and revision of the model, then variables (name, shape,
dtype, bytes), then aliases of variables that are one (since version 3). Everything is checked
against the length of the file before memory is taken.
"""

import math
import struct
from collections.abc import Mapping
from typing import NamedTuple

import ml_dtypes
import numpy as np

VERSION = 6  # that is written; 2 to 6 are read
_REVISION = 7
_DTYPES = tuple(
    map(np.dtype, ("float32", "int8", "int16", "int32", "float16", ml_dtypes.bfloat16))
)  # fmt: skip
_BY_SIZE: dict[int, np.dtype] = {
    4: np.dtype("float32"),
    2: np.dtype("int16"),
    1: np.dtype("int8"),
}  # before version 4
_MOST, _LONGEST = 100_000, 256  # variables, and bytes of a name
_MOST_DIMENSIONS = 4  # of a weight of any model
_INT16_SCALE = 2**10


class Binary(NamedTuple):
    """The content of a ``model.bin``.

    Attributes:
      version: of the format. name, revision: of the kind of model.
      variables: arrays and scalars by name, aliases included.
    """

    version: int
    name: str
    revision: int
    variables: dict[str, np.ndarray]


class _Reader:
    """Reads numbers, texts and arrays from bytes, never beyond their end."""

    def __init__(self, content: bytes) -> None:
        self.content, self.at = memoryview(content), 0

    def number(self, form: str) -> int:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def text(self) -> str:
        raw = bytes(self.take(self.number("H")))
        if raw[-1:] != b"\0" or len(raw) > _LONGEST:
            raise ValueError("a name does not end where it should")
        return raw[:-1].decode("utf-8")

    def take(self, size: int) -> memoryview:
        if size > len(self.content) - self.at:
            raise ValueError(f"it ends at byte {len(self.content):,}, where more should follow")
        self.at += size
        return self.content[self.at - size : self.at]


def read(content: bytes) -> Binary:
    """Reads the bytes of a ``model.bin``.

    Raises:
      ValueError: it is not such a file, of another version, or damaged.
    """
    reader = _Reader(content)
    version = reader.number("I")
    if not 2 <= version <= VERSION:
        raise ValueError(f"format {version}; formats 2 to {VERSION} are known")
    name, revision = reader.text(), reader.number("I")
    count = reader.number("I")
    if count > _MOST:
        raise ValueError(f"it has {count:,} variables: too many to be a model")
    variables: dict[str, np.ndarray] = {}
    for _ in range(count):
        key = reader.text()
        rank = reader.number("B")
        if rank > _MOST_DIMENSIONS:
            raise ValueError(f"{key} has {rank} dimensions")
        shape = tuple(reader.number("I") for _ in range(rank))
        if version >= 4:
            kind, size = reader.number("B"), reader.number("I")
            if kind >= len(_DTYPES):
                raise ValueError(f"{key} has a dtype of number {kind}, which is not known")
            dtype: np.dtype = _DTYPES[kind]
        else:
            width = reader.number("B")
            if width not in _BY_SIZE:
                raise ValueError(f"{key} has numbers of {width} bytes")
            dtype = _BY_SIZE[width]
            size = width * reader.number("I")
        if size != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{key} has shape {list(shape)} of {dtype}, but {size:,} bytes")
        variables[key] = np.frombuffer(reader.take(size), dtype).reshape(shape)
    for _ in range(reader.number("I") if version >= 3 else 0):
        alias, target = reader.text(), reader.text()
        if target not in variables:
            raise ValueError(f"{alias} stands for {target}, which it does not hold")
        variables[alias] = variables[target]
    if reader.at != len(content):
        raise ValueError(f"{len(content) - reader.at:,} bytes follow its end")
    return Binary(version, name, revision, variables)


def write(variables: Mapping[str, np.ndarray], aliases: Mapping[str, str]) -> bytes:
    """The bytes of a ``model.bin`` of a Transformer."""
    out = bytearray()
    text = lambda s: struct.pack("<H", len(s.encode()) + 1) + s.encode() + b"\0"  # noqa: E731
    out += struct.pack("<I", VERSION) + text("TransformerSpec") + struct.pack("<I", _REVISION)
    out += struct.pack("<I", len(variables))
    for name in sorted(variables):
        x = np.asarray(variables[name])
        out += text(name) + struct.pack("<B", x.ndim)
        out += struct.pack(f"<{x.ndim}I", *x.shape)
        out += struct.pack("<BI", _DTYPES.index(x.dtype), x.nbytes) + x.tobytes()
    out += struct.pack("<I", len(aliases))
    for alias in sorted(aliases):
        out += text(alias) + text(aliases[alias])
    return bytes(out)


def dequantise(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All weights in float32; scalars as they are.

    A weight in int8 has a scale a row, one in int16 a single scale: the weight is the integer over
    the scale.

    Raises:
      ValueError: integers without a scale.
    """
    found: dict[str, np.ndarray] = {}
    for name, x in variables.items():
        if name.endswith("_scale") and name.removesuffix("_scale") in variables:
            continue
        scale = variables.get(f"{name}_scale")
        if x.ndim and x.dtype in (np.int8, np.int16) and not name.endswith("heads"):
            if scale is None and x.dtype == np.int8:
                raise ValueError(f"{name} is int8 without {name}_scale")
            factor = np.asarray(_INT16_SCALE if scale is None else scale, np.float32)
            if factor.ndim and (factor.shape != x.shape[:1] or x.ndim != 2):
                raise ValueError(f"{name}_scale has shape {list(factor.shape)}")
            if not (np.isfinite(factor) & (factor > 0)).all():
                raise ValueError(f"{name}_scale holds numbers that are no scales")
            x = x.astype(np.float32) / (factor[:, None] if factor.ndim else factor)
        elif x.dtype in (np.float16, ml_dtypes.bfloat16):
            x = x.astype(np.float32)
        found[name] = x
    return found


def quantise(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The matrices in int8, each row over its largest entry; vectors stay float32."""
    found: dict[str, np.ndarray] = {}
    for name, x in variables.items():
        if name.endswith("/weight") and x.ndim == 2:
            largest = np.abs(x).max(axis=1)
            scale = (127.0 / np.where(largest == 0, 127.0, largest)).astype(np.float32)
            found[name] = np.rint(x * scale[:, None]).astype(np.int8)
            found[f"{name}_scale"] = scale
        else:
            found[name] = x
    return found
