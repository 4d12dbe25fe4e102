"""Rules from the names of dimensions to the axes of a mesh, strictly applied.

A plain table rather than Flax's ``logical_to_mesh_axes``, which replicates an array in silence
where a name is misspelt or wants a mesh axis a second time. Here both are errors.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from tfm import hint, params
from tfm.params import Tree

Names = tuple[str | None, ...]  # a logical name a dimension; None is never cut

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
"""Over which axes of the mesh a dimension is cut."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh and the rules to it; without a mesh every method leaves things as they are.

    Attributes:
      mesh: of ``make``, or None.
      rules: logical name → axes of the mesh.
    """

    mesh: jax.sharding.Mesh | None = None
    rules: tuple[tuple[str, tuple[str, ...]], ...] = RULES

    @functools.cached_property
    def _rules(self) -> Mapping[str, tuple[str, ...]]:
        return dict(self.rules)

    def mesh_axes(self, *names: str | None) -> tuple[str, ...]:
        """The axes of more than one device over which dimensions of these names are cut.

        Raises:
          ValueError: a name without a rule.
        """
        if self.mesh is None:
            return ()
        found = []
        for name in names:
            if name is not None and name not in self._rules:
                raise ValueError(
                    f"logical axis {name!r} has no sharding rule{hint.nearest(name, self._rules)}"
                )
            found += [axis for axis in self._rules.get(name, ()) if self.mesh.shape[axis] > 1]
        return tuple(found)

    def axis_size(self, *names: str | None) -> int:
        """Into how many parts dimensions of these names are cut, together."""
        return math.prod(self.mesh.shape[axis] for axis in self.mesh_axes(*names))

    def spec(self, names: Names, shape: Sequence[int], what: str = "array") -> PartitionSpec:
        """How an array is cut.

        Args:
          names: of its dimensions.
          shape: its sizes.
          what: its name, for the message.

        Raises:
          ValueError: a name without a rule, a size that its part of the mesh does not divide, or
            two dimensions that want the same axis of the mesh.
        """
        if len(names) != len(shape):
            raise ValueError(f"{what}: {len(shape)} dimensions, but the names {names}")
        for name, size in zip(names, shape, strict=True):
            if size % self.axis_size(name):
                by = " x ".join(f"mesh.{a} {self.mesh.shape[a]}" for a in self.mesh_axes(name))
                raise ValueError(f"{what}: its {name} of {size} is not a multiple of {by}")
        used = self.mesh_axes(*names)
        if twice := {axis for axis in used if used.count(axis) > 1}:
            raise ValueError(
                f"{what}: two of {names} want mesh.{min(twice)}; None leaves one whole"
            )
        cuts = [self.mesh_axes(name) for name in names]
        return PartitionSpec(*(c[0] if len(c) == 1 else c or None for c in cuts))

    def sharding(
        self, names: Names, shape: Sequence[int], what: str = "array"
    ) -> NamedSharding | None:
        """``spec`` on the mesh; None without one, which leaves the place to ``jit``."""
        return self.mesh and NamedSharding(self.mesh, self.spec(names, shape, what))

    @functools.cached_property
    def _trivial(self) -> bool:
        return not self.mesh_axes(*self._rules)

    def constrain(self, x: jax.Array, *names: str | None) -> jax.Array:
        """``x``, told to the compiler to live where the names of its dimensions say."""
        if self.mesh is None:
            return x
        sharding = self.sharding(names, x.shape)
        return x if self._trivial else lax.with_sharding_constraint(x, sharding)

    def constrain_like(self, tree: Tree, declaration: Tree) -> Tree:
        """``place`` for a tree of parameters or their gradients."""
        if self._trivial:
            return tree
        places = jax.tree.map(lambda x: x.sharding, self.abstract_like(tree, declaration))
        return jax.tree.map(lax.with_sharding_constraint, tree, places)

    def abstract_like(self, tree: Tree, declaration: Tree) -> Tree:
        """Shape, dtype and place of every array of a tree of parameters or what belongs to them.

        A leaf whose path ends in a parameter's path belongs to that parameter: the weights
        themselves, their average, an optimizer's moments. Each dimension goes where the
        parameter's dimension of the same size goes; a factored moment (Adafactor's) lacks some.

        Args:
          tree: of arrays or ``jax.ShapeDtypeStruct``.
          declaration: of the parameters.

        Raises:
          ValueError: a leaf that is no scalar and belongs to no parameter, or see ``spec``.
        """
        leaves = jax.tree_util.tree_leaves_with_path(declaration, is_leaf=params.is_param)
        known = {_name(path): p for path, p in leaves}

        def one(path: tuple, x: Any) -> jax.ShapeDtypeStruct:
            ends = (known.get(_name(path[i:])) for i in range(len(path)))
            param = next((p for p in ends if p is not None), None)
            if param is None and x.ndim:
                raise ValueError(f"{_name(path)}: belongs to no parameter, so has no place")
            names = _kept(x.shape, param) if param is not None else ()
            place = self.sharding(names, x.shape, _name(path))
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

        return jax.tree_util.tree_map_with_path(one, tree)

    def host_block(self) -> tuple[int, int]:
        """(h, n): this process's devices hold the h-th of n blocks of a batch's rows.

        Processes hold the same block where the mesh cuts only heads or rows between them.

        Raises:
          ValueError: its devices stand at scattered places of the batch.
        """
        parts = self.axis_size("batch")
        held = self.sharding(("batch",), (parts,)).addressable_devices_indices_map((parts,))
        at = sorted({index[0].start or 0 for index in held.values()})
        if at != list(range(at[0], at[0] + len(at))) or at[0] % len(at):
            raise ValueError(
                f"mesh: the devices of process {jax.process_index()} hold parts {at} of {parts} of "
                "the batch, which is no block; choose mesh.data x mesh.fsdp as a multiple of the "
                "number of processes"
            )
        return at[0] // len(at), parts // len(at)

    def put(self, x: np.ndarray, *names: str | None) -> jax.Array:
        """Spreads a batch over the mesh.

        Args:
          x: this process's rows, as ``share`` says.
          names: of the dimensions, "batch" the first.
        """
        shape = (x.shape[0] * self.host_block()[1], *x.shape[1:])
        return jax.make_array_from_process_local_data(self.sharding(names, shape), x, shape)

    def replicate(self, tree: Tree) -> Tree:
        """Every array whole, on the first device of this process."""
        if self.mesh is None or self.mesh.size == 1:
            return tree
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        copies = jax.jit(_same, out_shardings=everywhere)(tree)
        return jax.tree.map(lambda x: x.addressable_data(0), copies)

    def sum_over_data(
        self, body: Callable[["Layout", Tree, Tree], Tree]
    ) -> Callable[[Tree, Tree], Tree]:
        """``body`` run by every part of mesh.data by itself, and the sum of what they give.

        Where the mesh has other axes too, ``body`` runs once, on everything: XLA in jax 0.12
        aborts on a gather from a table cut by one axis when another is out of its hands.

        Args:
          body: (layout, shared, rows) → arrays to be summed. Of ``rows``, whose first dimension is
            a batch, it gets one part, and then a layout that cuts nothing.
        """
        if self.mesh is None or {axis for axis, n in self.mesh.shape.items() if n > 1} != {"data"}:
            return functools.partial(body, self)
        alone = dataclasses.replace(self, rules=tuple((name, ()) for name, _ in self.rules))
        return jax.shard_map(
            lambda shared, rows: lax.psum(body(alone, shared, rows), "data"),
            mesh=self.mesh,
            in_specs=(PartitionSpec(), PartitionSpec("data")),
            out_specs=PartitionSpec(),
            check_vma=False,
        )

    # What follows serves functions that name their communication: the body of ``local``.

    def shard_map(
        self, body: Callable, inputs: Sequence[Names], outputs: Sequence[Names]
    ) -> Callable[..., Any]:
        """``body`` run by every device on its own parts of the arrays ("shard_map").

        Args:
          body: takes and returns arrays, one each of ``inputs`` and ``outputs``.
          inputs, outputs: the names of their dimensions.
        """
        if not self.mesh_axes(*dict.fromkeys(name for names in inputs for name in names)):
            return body
        cut = lambda names: PartitionSpec(*(self.mesh_axes(name) or None for name in names))  # noqa: E731
        return jax.shard_map(
            body,
            mesh=self.mesh,
            in_specs=tuple(map(cut, inputs)),
            out_specs=tuple(map(cut, outputs)),
            check_vma=False,
        )

    def psum(self, x: jax.Array, *over: str) -> jax.Array:
        """Within ``local``: the sum of ``x`` over the parts of dimensions of these names."""
        return lax.psum(x, self.mesh_axes(*over)) if self.mesh_axes(*over) else x

    def pmax(self, x: jax.Array, *over: str) -> jax.Array:
        """Within ``local``: the maximum over the parts of dimensions of these names."""
        return lax.pmax(x, self.mesh_axes(*over)) if self.mesh_axes(*over) else x

    def all_gather(self, x: jax.Array, axis: int, name: str) -> jax.Array:
        """Within ``local``: dimension ``axis``, of this name, made whole from its parts."""
        cuts = self.mesh_axes(name)
        return lax.all_gather(x, cuts, axis=axis, tiled=True) if cuts else x

    def psum_scatter(self, x: jax.Array, names: Names, *over: str) -> jax.Array:
        """Within ``local``: ``total``, of which every device keeps the part that is its own.

        Args:
          x: whole in the dimensions that are cut over the axes that are summed over.
          names: of its dimensions.
        """
        summed = self.mesh_axes(*over)
        for dimension, name in enumerate(names):
            own = tuple(axis for axis in self.mesh_axes(name) if axis in summed)
            summed = tuple(axis for axis in summed if axis not in own)
            if own:
                x = lax.psum_scatter(x, own, scatter_dimension=dimension, tiled=True)
        return lax.psum(x, summed) if summed else x

    def axis_offset(self, name: str, size: int) -> jax.Array | int:
        """Within ``local``: where this device's part, of ``size``, of such a dimension begins."""
        cuts = self.mesh_axes(name)
        return lax.axis_index(cuts) * size if cuts else 0


NO_MESH = Layout()
"""One device, and nothing to say about it."""


def _same(tree: Tree) -> Tree:
    """Named, so that ``jit`` knows it again and compiles it once."""
    return tree


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _kept(shape: Sequence[int], param: params.Param) -> Names:
    """Names of the dimensions of an array that has some of the parameter's, in their order."""
    names: list[str | None] = []
    left = list(zip(param.shape, param.axes, strict=True))
    for size in shape:
        while left and left[0][0] != size:
            left.pop(0)
        names.append(left.pop(0)[1] if left else None)
    return tuple(names)
