"""Weights under other names: one table a format, read in both directions.

A table is a list of ``Entry``: which of our parameters is stored as which foreign tensor, and
whether transposed. Shapes follow from the declaration: a matrix [in,out] is stored as such or as
[out,in], whatever heads our axes tell apart. ``to_ours`` and ``to_theirs`` name everything that is
left over on either side, so that no tensor is forgotten silently.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from tfm import transformer
from tfm.params import Tree, is_param
from tfm.transformer import Architecture
from tfm.transformer.config import Tie

MADE_UP = -1  # in ``Rows``: an id of ours that the foreign vocabulary has not
Side = Literal["source", "target"]
Rows = np.ndarray  # [V] int: the foreign id of each of our ids, or ``MADE_UP``

_SHOWN = 4


class Entry(NamedTuple):
    """One foreign tensor.

    Attributes:
      theirs: its name.
      ours: the paths of our parameters in it, "decoder/layers/self/q/w"; several are concatenated
        along their outputs.
      layer: which layer of a stacked parameter; None for all others.
      transpose: a matrix is stored [out,in].
      rows: the vocabulary that its first axis belongs to.
      leading: a vector is stored [1,n].
    """

    theirs: str
    ours: tuple[str, ...]
    layer: int | None = None
    transpose: bool = False
    rows: Side | None = None
    leading: bool = False


class Imported(NamedTuple):
    """A model in tfm's terms.

    Attributes:
      arch: its architecture, vocabularies included.
      params: its weights, NumPy arrays.
      rows: by vocabulary, "source" and "target": the foreign id of each of our ids.
    """

    arch: Architecture
    params: Tree
    rows: Mapping[Any, Rows]


def to_ours(
    entries: Iterable[Entry],
    tensors: Mapping[str, np.ndarray],
    arch: Architecture,
    rows: Mapping[Any, Rows],
    where: str,
) -> Tree:
    """Foreign tensors → parameters of ``declare(arch)``, float32 NumPy arrays.

    Args:
      rows: by vocabulary, "source" and "target".
      where: the file, for messages.

    Raises:
      ValueError: a tensor is missing, has another shape, is not finite, or is read by no entry.
    """
    shapes = _shapes(arch)
    found: dict[str, np.ndarray] = {}
    entries = list(entries)
    missing = [e.theirs for e in entries if e.theirs not in tensors]
    unread = sorted(set(tensors) - {e.theirs for e in entries})
    if missing or unread:
        raise ValueError(f"{where}: {_leftovers(missing, unread)}")
    for entry in entries:
        tensor = _float32(tensors[entry.theirs], entry.theirs, where)
        inner = [shapes[p] if entry.layer is None else shapes[p][1:] for p in entry.ours]
        parts = [_matrix(shape, p) for shape, p in zip(inner, entry.ours, strict=True)]
        want = _joined(parts, entry)
        if entry.rows:
            theirs = int(rows[entry.rows].max()) + 1
            want = (*want[:-1], theirs) if entry.leading else (theirs, *want[1:])
        if tensor.shape != want:
            raise ValueError(
                f"{where}: {entry.theirs} has shape {list(tensor.shape)}, but its config describes "
                f"{list(want)}"
            )
        tensor = tensor[0] if entry.leading else tensor
        if entry.rows:
            tensor = take_rows(tensor, rows[entry.rows])
        tensor = tensor.T if entry.transpose else tensor
        pieces = np.split(tensor, np.cumsum([part[-1] for part in parts])[:-1], axis=-1)
        for path, shape, piece in zip(entry.ours, inner, pieces, strict=True):
            if entry.layer is None:
                found[path] = np.ascontiguousarray(piece).reshape(shape)
            else:
                stack = found.setdefault(path, np.empty(shapes[path], np.float32))
                stack[entry.layer] = piece.reshape(shape)
    if lost := sorted(set(shapes) - set(found)):
        raise ValueError(f"{where}: nothing is stored for {_some(lost)} of the model it describes")
    return _nested(found)


def to_theirs(
    entries: Iterable[Entry], params: Tree, rows: Mapping[Any, Rows]
) -> dict[str, np.ndarray]:
    """Parameters → foreign tensors; the inverse of ``to_ours``.

    Raises:
      ValueError: a parameter that no entry stores.
    """
    leaves = {
        "/".join(k.key for k in path): np.asarray(x, np.float32)
        for path, x in jax.tree.leaves_with_path(params)
    }
    tensors: dict[str, np.ndarray] = {}
    stored: set[str] = set()
    for entry in entries:
        parts = []
        for path in entry.ours:
            x = leaves[path] if entry.layer is None else leaves[path][entry.layer]
            stored.add(path)
            parts.append(x.reshape(_matrix(x.shape, path)))
        x = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        x = put_rows(x, rows[entry.rows]) if entry.rows else x
        x = x.T if entry.transpose else x
        tensors[entry.theirs] = np.ascontiguousarray(x[None] if entry.leading else x)
    if lost := sorted(set(leaves) - stored):
        raise ValueError(f"the format has no place for {_some(lost)}")
    return tensors


def ordinary_rows(size: int, special: Mapping[str, int | None]) -> Rows:
    """Our ids of a foreign vocabulary: pad, unk, bos and eos first, the others in their order.

    Args:
      size: of the foreign vocabulary.
      special: the foreign ids of "pad", "unk", "bos" and "eos"; None where there is no such id.
    """
    first = [special[name] for name in ("pad", "unk", "bos", "eos")]
    known = {i for i in first if i is not None}
    rest = [i for i in range(size) if i not in known]
    return np.array([MADE_UP if i is None else i for i in first] + rest, np.int64)


def take_rows(tensor: np.ndarray, rows: Rows) -> np.ndarray:
    """The rows of a foreign table in our order; made-up ones are zeros."""
    taken = tensor[np.maximum(rows, 0)]
    taken[rows == MADE_UP] = 0
    return taken


def put_rows(tensor: np.ndarray, rows: Rows) -> np.ndarray:
    """The inverse of ``take_rows``; made-up rows are dropped."""
    real = rows != MADE_UP
    out = np.zeros((int(rows.max()) + 1, *tensor.shape[1:]), tensor.dtype)
    out[rows[real]] = tensor[real]
    return out


def closed_rows(rows: Rows) -> tuple[int, ...]:
    """The made-up ids among the first four, for ``Architecture.closed_rows``."""
    return tuple(int(i) for i in np.flatnonzero(rows == MADE_UP))


def find_tie(source: np.ndarray, target: np.ndarray, output: np.ndarray) -> Tie:
    """Which of three tables are one: flags of configs lie, so the tensors are compared."""
    same = lambda a, b: a is b or (a.shape == b.shape and np.array_equal(a, b))  # noqa: E731
    equal = same(source, target), same(source, output), same(target, output)
    names: dict[tuple[bool, bool, bool], Tie] = {
        (True, True, True): "all",
        (True, False, False): "source-target",
        (False, True, False): "source-output",
        (False, False, True): "target-output",
    }
    return names.get(equal, "none")


def _shapes(arch: Architecture) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(transformer.declare(arch), is_leaf=is_param)
    return {"/".join(k.key for k in path): p.shape for path, p in leaves}


def _matrix(shape: tuple[int, ...], path: str) -> tuple[int, ...]:
    """(in, out) of a matrix of ours, with all heads in one axis; (n,) of a vector."""
    if len(shape) == 1 or path.endswith("/b"):
        return (math.prod(shape),)
    inputs = math.prod(shape[:-1]) if path.endswith("out/w") else shape[0]
    return inputs, math.prod(shape) // inputs


def _joined(parts: Sequence[tuple[int, ...]], entry: Entry) -> tuple[int, ...]:
    """The shape of the stored tensor."""
    shape = (*parts[0][:-1], sum(part[-1] for part in parts))
    shape = shape[::-1] if entry.transpose else shape
    return (1, *shape) if entry.leading else shape


def _float32(tensor: np.ndarray, name: str, where: str) -> np.ndarray:
    if tensor.dtype.kind != "f" and tensor.dtype.name != "bfloat16":
        raise ValueError(f"{where}: {name} holds {tensor.dtype}, not floating-point numbers")
    tensor = np.asarray(tensor, np.float32)
    if not np.isfinite(tensor).all():
        raise ValueError(f"{where}: {name} holds NaN or infinity: the file is damaged")
    return tensor


def _nested(leaves: Mapping[str, np.ndarray]) -> Tree:
    tree: dict = {}
    for path, x in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = x
    return tree


def _leftovers(missing: Sequence[str], unread: Sequence[str]) -> str:
    parts = []
    if missing:
        parts.append(f"lacks {_some(missing)}")
    if unread:
        parts.append(f"has {_some(unread)}, which the model it describes has no place for")
    return " and ".join(parts)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
