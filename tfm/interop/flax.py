"""Any piece of tfm inside a Flax model, Linen or NNX.

A piece is a declaration (nested dict of ``Param``) and a pure function ``f(params, *args,
**kwargs)`` that uses the declared weights. The Flax module keeps the weights as the same nested
dict, under the single name "weights", and annotates each with its logical axes. It passes its call
arguments to the function unchanged. A dropout key is an ordinary argument; the module never draws
one from Flax's random streams::

    declaration = attention.attention_params(64, 4, 4, 16, bias=True)

    def self_attention(params, x_BTD, *, key=None):
        kv, rate = attention.keys_values(params, x_BTD), 0.0 if key is None else 0.1
        return attention.multi_head(params, x_BTD, kv, dropout_rate=rate, key=key)

    to_linen(declaration, self_attention)(x_BTD, key=self.make_rng("dropout"))  # in @nn.compact
    self.attention = to_nnx(declaration, self_attention, rngs=rngs)  # in __init__ of a Module
    self.attention(x_BTD, key=rngs.dropout())
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx
from flax.core import FrozenDict, freeze, unfreeze

from tfm.params import Param, Tree, init, is_param

Shapes = tuple[tuple[str, tuple[int, ...]], ...]  # (path, shape) of every weight, in order


class LinenPiece(linen.Module):
    """A declaration and its function as a Linen module; made by ``to_linen``."""

    declarations: FrozenDict  # {"weights": the declaration}; frozen, as Linen hashes its modules
    function: Callable[..., Any]
    dtype: Any

    @linen.compact
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``function(weights, *args, **kwargs)``."""
        declaration = unfreeze(self.declarations)["weights"]
        if self.has_variable("params", "weights"):
            given = linen.unbox(self.get_variable("params", "weights"))
            _check_weights("to_linen", _shapes(declaration), given)
        weights = self.param("weights", _boxed, declaration, self.dtype)
        return self.function(weights, *args, **kwargs)


class NNXPiece(nnx.Module):
    """A declaration and its function as an NNX module; made by ``to_nnx``.

    Attributes:
      weights: the declared nested dict with an ``nnx.Param`` at every leaf.
    """

    def __init__(
        self, declaration: Tree, function: Callable[..., Any], rngs: nnx.Rngs, dtype: Any
    ) -> None:
        self.shapes = _shapes(declaration)
        self.function = function
        arrays = init(_typed(rngs.params()), declaration, dtype)
        self.weights = nnx.data(jax.tree.map(_variable, declaration, arrays, is_leaf=is_param))

    def arrays(self) -> Tree:
        """The weights as a plain nested dict of arrays, which the rest of tfm takes."""

        def is_variable(x: Any) -> bool:
            return isinstance(x, nnx.Variable)

        return jax.tree.map(
            lambda x: x.get_value() if is_variable(x) else x, self.weights, is_leaf=is_variable
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``function(weights, *args, **kwargs)``."""
        weights = self.arrays()
        _check_weights("to_nnx", self.shapes, weights)
        return self.function(weights, *args, **kwargs)


def to_linen(
    declaration: Tree,
    function: Callable[..., Any],
    *,
    name: str | None = None,
    dtype: Any = jnp.float32,
) -> linen.Module:
    """A Linen module that holds the declared weights and calls the function with them.

    The weights are initialised by ``params.init(key, declaration, dtype)``; Linen derives the key
    from the "params" key and the module's path. They are boxed as ``linen.LogicallyPartitioned``:
    ``linen.get_partition_spec`` returns their logical axes, ``linen.logical_to_mesh_sharding``
    their shardings.

    To read them as a plain nested dict: ``linen.unbox(variables["params"])[name]["weights"]``. To
    set them, put such a dict at the same path of the variables given to ``apply``.

    Args:
      declaration: nested dict of ``Param``, or a single one.
      function: ``f(params, *args, **kwargs)``, pure.
      name: of the submodule, as for any Linen module.
      dtype: of the weights.

    Raises:
      ValueError: a leaf of the declaration is not a ``Param``, or the function is not callable; at
        the call, the weights' paths or shapes differ from the declared ones.
    """
    _check_piece("to_linen", declaration, function)
    return LinenPiece(freeze({"weights": declaration}), function, dtype, name=name)


def to_nnx(
    declaration: Tree,
    function: Callable[..., Any],
    *,
    rngs: nnx.Rngs,
    dtype: Any = jnp.float32,
) -> NNXPiece:
    """An NNX module that holds the declared weights and calls the function with them.

    The weights are initialised by ``params.init(rngs.params(), declaration, dtype)``, which draws
    one key from the stream however many weights there are. Each is an ``nnx.Param`` whose metadata
    holds the logical axes (``out_sharding``): ``nnx.get_partition_spec`` returns them, mapped by
    ``flax.core.spmd.logical_axis_rules`` where such rules are set. Under ``jax.set_mesh`` the
    weights are sharded by them at once; without a mesh they stay on the default device.

    To read them as a plain nested dict: ``piece.arrays()``. To set them:
    ``nnx.update(piece.weights, arrays)``.

    Args:
      declaration: nested dict of ``Param``, or a single one.
      function: ``f(params, *args, **kwargs)``, pure.
      rngs: random streams; the key is drawn from "params", or else from the default one.
      dtype: of the weights.

    Raises:
      ValueError: a leaf of the declaration is not a ``Param``, the function is not callable, or
        ``rngs`` is not an ``nnx.Rngs``; at the call, the weights' paths or shapes differ from the
        declared ones.
    """
    _check_piece("to_nnx", declaration, function)
    if not isinstance(rngs, nnx.Rngs):
        raise ValueError(f"to_nnx: rngs must be an nnx.Rngs, got {type(rngs).__name__}")
    return NNXPiece(declaration, function, rngs, dtype)


def _boxed(key: jax.Array, declaration: Tree, dtype: Any) -> Tree:
    """Initialised weights, each boxed with its logical axes."""
    return jax.tree.map(
        lambda p, w: linen.LogicallyPartitioned(w, p.axes),
        declaration,
        init(_typed(key), declaration, dtype),
        is_leaf=is_param,
    )


def _typed(key: jax.Array) -> jax.Array:
    """A key of ``jax.random.key``; Flax passes on old-style ones too."""
    return jax.random.wrap_key_data(key) if jnp.issubdtype(key.dtype, jnp.integer) else key


def _variable(p: Param, array: jax.Array) -> nnx.Param:
    """A weight annotated with its axes."""
    # With eager sharding NNX requires a mesh, so it is on only where there is one.
    eager = nnx.using_eager_sharding() and not jax.sharding.get_abstract_mesh().empty
    return nnx.Param(array, out_sharding=p.axes, eager_sharding=eager)


def _check_piece(where: str, declaration: Tree, function: Callable[..., Any]) -> None:
    for path, leaf in _leaves(declaration):
        if not is_param(leaf):
            raise ValueError(
                f"{where}: a declaration is a nested dict of tfm.params.Param, got "
                f"{type(leaf).__name__} at {path!r}"
            )
    if not callable(function):
        raise ValueError(
            f"{where}: the second argument is the function f(params, ...), got "
            f"{type(function).__name__}"
        )


def _check_weights(where: str, shapes: Shapes, weights: Tree) -> None:
    """Raises where paths or shapes differ: Flax itself does not always check them."""
    declared, given = dict(shapes), dict(_shapes(weights))
    for path in sorted(declared.keys() | given.keys()):
        if declared.get(path) != given.get(path):
            raise ValueError(
                f"{where}: weight {path!r} is declared {declared.get(path, 'nowhere')}, "
                f"given {given.get(path, 'nothing')}"
            )


def _shapes(tree: Tree) -> Shapes:
    return tuple((path, leaf.shape) for path, leaf in _leaves(tree))


def _leaves(tree: Tree) -> list[tuple[str, Any]]:
    """The leaves of a nested dict with their paths ("q/w"); anything but a dict is a leaf."""
    leaves = jax.tree.leaves_with_path(tree, is_leaf=lambda x: not isinstance(x, Mapping))
    return [("/".join(str(k.key) for k in path), leaf) for path, leaf in leaves]
