"""Parameters, declared as data: shape, logical axes and initializer of each in one place.

A function that needs weights has a counterpart that declares them, as a nested dict of ``Param``.
The parameters themselves are the same nested dict with arrays as leaves. Initialising, counting,
stacking and listing them is one tree_map each.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import initializers

from tfm.shapes import Check
from tfm.values import Values, shown

Initializer = Callable[..., jax.Array]  # (key, shape, dtype) -> array
Tree = Any  # a nested dict whose leaves are Param, arrays or ShapeDtypeStructs


@dataclass(frozen=True)
class Param:
    """One parameter: its shape, the logical name of each axis, and its initializer.

    Attributes:
      shape: sizes.
      axes: a logical name for each dimension ("embed", "heads", ...), for the sharding rules.
      init: ``init(key, shape, dtype) -> array``.
    """

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    init: Initializer

    def __post_init__(self) -> None:
        check = Values("Param")
        for name in ("shape", "axes"):
            check.instance(tuple, **{name: getattr(self, name)})
        check.counts(**{f"shape[{i}]": size for i, size in enumerate(self.shape)})
        check.instance(str, **{f"axes[{i}]": axis for i, axis in enumerate(self.axes)})
        check.function_of("(key, shape, dtype) → array", init=self.init)
        if len(self.shape) != len(self.axes):
            raise check.error(f"shape {self.shape} and axes {self.axes} differ in length")


def xavier(inputs: int | Sequence[int] = 0, outputs: int | Sequence[int] = -1) -> Initializer:
    """Uniform with variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010, eq. 16).

    Args:
      inputs, outputs: the axes that a product with the weight sums over, and those that remain.
    """
    return initializers.variance_scaling(1.0, "fan_avg", "uniform", inputs, outputs)


zeros = initializers.zeros
ones = initializers.ones
normal = initializers.normal  # normal(stddev)


def is_param(x: Any) -> bool:
    """True for the leaves of a declaration."""
    return isinstance(x, Param)


def _map(function: str, f: Callable[[str, Param], Any], declaration: Tree) -> Tree:
    """tree_map over a declaration of ``f(path, param)``; a path is like "encoder/layers/q"."""

    def leaf(path: tuple, p: Any) -> Any:
        if not is_param(p) or not all(isinstance(k, jax.tree_util.DictKey) for k in path):
            where = jax.tree_util.keystr(path)
            raise Values(function).error(
                f"declaration{where} is {shown(p)}; a declaration is a nested dict of Param"
            )
        return f("/".join(k.key for k in path), p)

    def is_leaf(x: Any) -> bool:
        return not isinstance(x, Mapping)

    return jax.tree_util.tree_map_with_path(leaf, declaration, is_leaf=is_leaf)


def init(key: jax.Array, declaration: Tree, dtype: Any = jnp.float32) -> Tree:
    """Initial values of all parameters.

    Each leaf's key is ``key`` with its path folded in, so adding or removing a parameter does not
    change the initial values of the others.

    Args:
      key: of ``jax.random.key``.
    """
    Check("init").key(key)

    def draw(path: str, p: Param) -> jax.Array:
        return p.init(jax.random.fold_in(key, zlib.crc32(path.encode())), p.shape, dtype)

    return _map("init", draw, declaration)


def abstract(declaration: Tree, dtype: Any = jnp.float32) -> Tree:
    """Shapes and dtypes without arrays, for ``jax.eval_shape``, lowering and restoring."""
    return _map("abstract", lambda _, p: jax.ShapeDtypeStruct(p.shape, dtype), declaration)


def axes(declaration: Tree) -> Tree:
    """The logical axes of every leaf, for sharding rules."""
    return _map("axes", lambda _, p: p.axes, declaration)


def stack(declaration: Tree, layers: int) -> Tree:
    """The declaration of ``layers`` equal layers, stacked on a new first axis "layers".

    Every layer has its own key, so layer i has the same initial values at any depth.
    """
    Values("stack").counts(layers=layers)

    def stacked(p: Param) -> Param:
        def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(shape[0]))
            return jax.vmap(lambda k: p.init(k, shape[1:], dtype))(keys)

        return Param((layers, *p.shape), ("layers", *p.axes), draw)

    return _map("stack", lambda _, p: stacked(p), declaration)


def unstack(tree: Tree, layers: int) -> list[Tree]:
    """The inverse of ``stack`` for arrays: a list with one tree for each layer."""
    check = Values("unstack")
    check.counts(layers=layers)
    for path, x in jax.tree.leaves_with_path(tree):
        if getattr(x, "shape", ())[:1] != (layers,):
            raise check.error(
                f"tree{jax.tree_util.keystr(path)} is {shown(x)}; its first dimension must be the "
                f"{layers} layers"
            )
    return [jax.tree.map(lambda x: x[i], tree) for i in range(layers)]  # noqa: B023


def like(weight: jax.Array, x: jax.Array) -> jax.Array:
    """A bias or scale in the dtype of ``x``, broadcast to its shape: [D] → [...,D]."""
    check = Check("like")
    check.floats("...", weight=weight, x=x)
    if x.shape[x.ndim - weight.ndim :] != weight.shape:
        raise check.error(
            f"weight has shape {weight.shape}, but x ends with other dimensions: {x.shape}"
        )
    return jnp.broadcast_to(weight.astype(x.dtype), x.shape)


def count(declaration: Tree) -> int:
    """The number of scalars."""
    sizes = _map("count", lambda _, p: math.prod(p.shape), declaration)
    return sum(jax.tree.leaves(sizes))


def table(declaration: Tree) -> str:
    """One line for each parameter: path, shape, logical axes, count; then the total."""
    rows: list[tuple[str, str, str, str]] = []
    _map(
        "table",
        lambda path, p: rows.append(
            (path, "x".join(map(str, p.shape)), " ".join(p.axes), f"{math.prod(p.shape):,}")
        ),
        declaration,
    )
    rows.append(("total", "", "", f"{count(declaration):,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}"
        for a, b, c, d in rows
    )
