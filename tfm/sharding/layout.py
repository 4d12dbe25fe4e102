"""Rules from logical axis names to mesh axes, strictly applied.

Flax's ``logical_to_mesh_axes`` silently replicates a dimension whose name is misspelt or whose mesh
axis another dimension has taken. Here both are errors.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from tfm import hint, params
from tfm.params import Tree

Names = tuple[str | None, ...]  # a logical name for each dimension; None is never sharded

RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    # Dimensions of parameters.
    ("embed", ("fsdp",)),
    ("vocab", ("tensor",)),
    ("heads", ("tensor",)),
    ("kv_heads", ("tensor",)),
    ("mlp", ("tensor",)),
    ("head_dim", ()),
    ("layers", ()),
    ("norm", ()),
    ("position", ()),
    # Dimensions of activations.
    ("batch", ("data", "fsdp")),
    ("length", ("sequence",)),
)
"""Logical axis name → the mesh axes that a dimension of this name is sharded over."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh and its sharding rules; without a mesh every method leaves arrays as they are.

    Attributes:
      mesh: from ``make``, or None.
      rules: logical axis name → mesh axes.
    """

    mesh: jax.sharding.Mesh | None = None
    rules: tuple[tuple[str, tuple[str, ...]], ...] = RULES

    def mesh_axes(self, *names: str | None) -> tuple[str, ...]:
        """The mesh axes of size 2 or more that dimensions of these names are sharded over.

        Raises:
          ValueError: a name without a rule.
        """
        if self.mesh is None:
            return ()
        axes: list[str] = []
        for name in names:
            if name is None:
                continue
            if name not in self._rules:
                raise ValueError(
                    f"logical axis {name!r} has no sharding rule{hint.nearest(name, self._rules)}"
                )
            axes += [axis for axis in self._rules[name] if self.mesh.shape[axis] > 1]
        return tuple(axes)

    def axis_size(self, *names: str | None) -> int:
        """The number of shards of dimensions of these names: the product of their mesh axes."""
        if self.mesh is None:
            return 1
        return math.prod(self.mesh.shape[axis] for axis in self.mesh_axes(*names))

    def spec(self, names: Names, shape: Sequence[int], what: str = "array") -> PartitionSpec:
        """The ``PartitionSpec`` of an array.

        Args:
          names: logical names of its dimensions.
          shape: its sizes.
          what: a name for the array in error messages.

        Raises:
          ValueError: a name without a rule, a size that is not a multiple of its mesh axes, or two
            dimensions sharded over the same mesh axis.
        """
        if len(names) != len(shape):
            raise ValueError(f"{what}: {len(shape)} dimensions, but the names {names}")
        sizes = self.mesh.shape if self.mesh is not None else {}
        for name, size in zip(names, shape, strict=True):
            if size % self.axis_size(name):
                by = " x ".join(f"mesh.{a} {sizes[a]}" for a in self.mesh_axes(name))
                raise ValueError(f"{what}: {name} of size {size} is not a multiple of {by}")
        used = self.mesh_axes(*names)
        if twice := {axis for axis in used if used.count(axis) > 1}:
            raise ValueError(
                f"{what}: two of {names} are sharded over mesh.{min(twice)}; "
                "replicate one of them: name it None"
            )
        axes = [self.mesh_axes(name) for name in names]
        return PartitionSpec(*(a[0] if len(a) == 1 else a or None for a in axes))

    def sharding(
        self, names: Names, shape: Sequence[int], what: str = "array"
    ) -> NamedSharding | None:
        """The ``NamedSharding`` of an array, see ``spec``; None without a mesh: ``jit`` chooses."""
        if self.mesh is None:
            return None
        return NamedSharding(self.mesh, self.spec(names, shape, what))

    def constrain(self, x: jax.Array, *names: str | None) -> jax.Array:
        """``x``, constrained to the sharding that the logical names of its dimensions give."""
        if self.mesh is None:
            return x
        sharding = self.sharding(names, x.shape)
        return x if self._replicates_all else lax.with_sharding_constraint(x, sharding)

    def constrain_like(self, tree: Tree, declaration: Tree) -> Tree:
        """``constrain`` for a tree of parameters or their gradients."""
        if self._replicates_all:
            return tree
        shardings = jax.tree.map(lambda x: x.sharding, self.abstract_like(tree, declaration))
        return jax.tree.map(lax.with_sharding_constraint, tree, shardings)

    def abstract_like(self, tree: Tree, declaration: Tree) -> Tree:
        """Shape, dtype and sharding of every array of a tree of parameters or their statistics.

        A leaf whose path ends in a parameter's path belongs to that parameter: the weights
        themselves, their average, an optimizer's moments. Each dimension is sharded as the
        parameter's dimension of the same size; a factored moment (Adafactor's) lacks some.

        Args:
          tree: of arrays or ``jax.ShapeDtypeStruct``.
          declaration: of the parameters.

        Raises:
          ValueError: a leaf that is no scalar and belongs to no parameter, or see ``spec``.
        """
        leaves = jax.tree_util.tree_leaves_with_path(declaration, is_leaf=params.is_param)
        declared = {_path_name(path): p for path, p in leaves}

        def abstract(path: tuple, x: Any) -> jax.ShapeDtypeStruct:
            suffixes = (declared.get(_path_name(path[i:])) for i in range(len(path)))
            param = next((p for p in suffixes if p is not None), None)
            if param is None and x.ndim:
                raise ValueError(f"{_path_name(path)}: no parameter to take the sharding from")
            names = _matching_names(x.shape, param) if param is not None else ()
            sharding = self.sharding(names, x.shape, _path_name(path))
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

        return jax.tree_util.tree_map_with_path(abstract, tree)

    def data_shard(self) -> tuple[int, int]:
        """(index, count) of the contiguous shard of the batch's rows that this process feeds.

        Processes feed the same shard where the mesh shards only heads or lengths between them.

        Raises:
          ValueError: this process's devices do not hold one contiguous shard.
        """
        if self.mesh is None:
            return 0, 1
        shards = self.axis_size("batch")
        sharding = NamedSharding(self.mesh, self.spec(("batch",), (shards,)))
        held = sharding.addressable_devices_indices_map((shards,))
        mine = sorted({index[0].start or 0 for index in held.values() if index is not None})
        if mine != list(range(mine[0], mine[0] + len(mine))) or mine[0] % len(mine):
            raise ValueError(
                f"mesh: the devices of process {jax.process_index()} hold shards {mine} of "
                f"{shards} of the batch, which are not one contiguous block; choose "
                "mesh.data x mesh.fsdp as a multiple of the number of processes"
            )
        return mine[0] // len(mine), shards // len(mine)

    def put(self, x: np.ndarray, *names: str | None) -> jax.Array:
        """A global array, sharded over the mesh, of the rows that each process holds.

        Args:
          x: this process's rows, see ``data_shard``.
          names: logical names of the dimensions, "batch" the first.
        """
        if self.mesh is None:
            return jnp.asarray(x)
        shape = (x.shape[0] * self.data_shard()[1], *x.shape[1:])
        return jax.make_array_from_process_local_data(self.sharding(names, shape), x, shape)

    def replicate(self, tree: Tree) -> Tree:
        """Every array complete and unsharded, on the first device of this process."""
        if self.mesh is None or self.mesh.size == 1:
            return tree
        copies = jax.jit(_identity, out_shardings=NamedSharding(self.mesh, PartitionSpec()))(tree)
        return jax.tree.map(lambda x: x.addressable_data(0), copies)

    def sum_over_data(
        self, body: Callable[["Layout", Tree, Tree], Tree]
    ) -> Callable[[Tree, Tree], Tree]:
        """``body`` mapped over the shards of mesh.data, and its results summed over them.

        Where the mesh has other axes too, ``body`` runs once, on the whole batch: XLA in jax 0.12
        aborts on a gather from a table that is sharded over one mesh axis when ``shard_map``
        controls another.

        Args:
          body: (layout, weights, rows) → arrays to be summed. Under the mapping it gets one shard
            of ``rows``, whose first dimension is a batch, and a layout that shards nothing.
        """
        if self.mesh is None or {axis for axis, n in self.mesh.shape.items() if n > 1} != {"data"}:
            return functools.partial(body, self)
        unsharded = dataclasses.replace(self, rules=tuple((name, ()) for name, _ in self.rules))
        return jax.shard_map(
            lambda weights, rows: lax.psum(body(unsharded, weights, rows), "data"),
            mesh=self.mesh,
            in_specs=(PartitionSpec(), PartitionSpec("data")),
            out_specs=PartitionSpec(),
            check_vma=False,
        )

    def shard_map(
        self, body: Callable, in_names: Sequence[Names], out_names: Sequence[Names]
    ) -> Callable[..., Any]:
        """``jax.shard_map`` by logical names: every device runs ``body`` on its own shards.

        Where no input is sharded this is ``body`` itself. The methods below are for use in it.

        Args:
          body: takes and returns arrays, one for each of ``in_names`` and ``out_names``.
          in_names, out_names: logical names of the arrays' dimensions.
        """
        if not self.mesh_axes(*dict.fromkeys(name for names in in_names for name in names)):
            return body
        spec = lambda names: PartitionSpec(*(self.mesh_axes(name) or None for name in names))  # noqa: E731
        return jax.shard_map(
            body,
            mesh=self.mesh,
            in_specs=tuple(map(spec, in_names)),
            out_specs=tuple(map(spec, out_names)),
            check_vma=False,
        )

    def psum(self, x: jax.Array, *names: str) -> jax.Array:
        """Within ``shard_map``: the sum of ``x`` over the shards of dimensions of these names."""
        return lax.psum(x, self.mesh_axes(*names)) if self.mesh_axes(*names) else x

    def pmax(self, x: jax.Array, *names: str) -> jax.Array:
        """Within ``shard_map``: the maximum over the shards of dimensions of these names."""
        return lax.pmax(x, self.mesh_axes(*names)) if self.mesh_axes(*names) else x

    def all_gather(self, x: jax.Array, axis: int, name: str) -> jax.Array:
        """Within ``shard_map``: the shards of dimension ``axis``, of this name, concatenated."""
        axes = self.mesh_axes(name)
        return lax.all_gather(x, axes, axis=axis, tiled=True) if axes else x

    def psum_scatter(self, x: jax.Array, x_names: Names, *names: str) -> jax.Array:
        """Within ``shard_map``: ``psum``, of which every device keeps its own shard.

        Args:
          x: complete in the dimensions that share a mesh axis with ``names``.
          x_names: logical names of its dimensions.
          names: the dimensions over whose shards is summed.
        """
        axes = self.mesh_axes(*names)
        for dimension, name in enumerate(x_names):
            scattered = tuple(axis for axis in self.mesh_axes(name) if axis in axes)
            axes = tuple(axis for axis in axes if axis not in scattered)
            if scattered:
                x = lax.psum_scatter(x, scattered, scatter_dimension=dimension, tiled=True)
        return lax.psum(x, axes) if axes else x

    def axis_offset(self, name: str, size: int) -> jax.Array | int:
        """Within ``shard_map``: where this device's shard, of ``size``, begins in its dimension."""
        axes = self.mesh_axes(name)
        return lax.axis_index(axes) * size if axes else 0

    @functools.cached_property
    def _rules(self) -> Mapping[str, tuple[str, ...]]:
        return dict(self.rules)

    @functools.cached_property
    def _replicates_all(self) -> bool:
        return not self.mesh_axes(*self._rules)


NO_MESH = Layout()
"""One device: nothing is sharded."""


def _identity(tree: Tree) -> Tree:
    """A named function, so that ``jit`` recognises it and compiles it once."""
    return tree


def _path_name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _matching_names(shape: Sequence[int], param: params.Param) -> Names:
    """Names for an array that has some of the parameter's dimensions, in the same order."""
    names: list[str | None] = []
    left = list(zip(param.shape, param.axes, strict=True))
    for size in shape:
        while left and left[0][0] != size:
            left.pop(0)
        names.append(left.pop(0)[1] if left else None)
    return tuple(names)
