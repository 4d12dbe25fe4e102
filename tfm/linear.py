"""The product of activations and a weight, with the gradient of the weight computed as xᵀ dy.

JAX derives (dyᵀ x)ᵀ for it, and XLA on the CPU then computes the gradient of the residual stream
again for every transposed copy of dy: a seventh of a training step. A primitive of our own, unlike
``jax.custom_vjp``, leaves forward mode (``jvp``, ``jacfwd``, ``linearize``), ``hessian`` and
``vmap`` working.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from tfm.shapes import Check

_linear_p = Primitive("linear")


def linear(x: jax.Array, weight_DF: jax.Array) -> jax.Array:
    """x W over the last axis: [...,D] → [...,F]; both of one dtype."""
    check = Check("linear")
    check.floats("...D", x=x)
    check.floats(weight_DF=weight_DF)
    if x.dtype != weight_DF.dtype:
        raise check.error(f"x is {x.dtype} and weight_DF {weight_DF.dtype}; cast one of them")
    return _linear_p.bind(x, weight_DF)


def saveable(primitive: Any, *avals: Any, **parameters: Any) -> bool:
    """A policy of ``jax.checkpoint``: keep the results of matrix products without batch axes."""
    dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    return primitive is _linear_p or dots(primitive, *avals, **parameters)


def _result(x: Any, weight: Any) -> Any:
    return x.update(shape=(*x.shape[:-1], weight.shape[1]))


def _gradient_of_x(dy: jax.Array, x: Any, weight_DF: jax.Array) -> jax.Array:
    del x
    return jnp.einsum("...f,df->...d", dy, weight_DF)


def _gradient_of_weight(dy: jax.Array, x: jax.Array, weight_DF: Any) -> jax.Array:
    del weight_DF
    leading = tuple(range(x.ndim - 1))
    return jax.lax.dot_general(x, dy, ((leading, leading), ((), ())))


def _batched(arguments: Sequence[jax.Array], axes: Sequence[int | None]) -> tuple[jax.Array, int]:
    x, weight = arguments
    if axes[1] is None:
        return linear(jnp.moveaxis(x, axes[0] or 0, 0), weight), 0
    return jax.vmap(jnp.matmul, in_axes=tuple(axes))(x, weight), 0


_linear_p.def_impl(jax.jit(jnp.matmul))
_linear_p.def_abstract_eval(_result)
ad.defbilinear(_linear_p, _gradient_of_x, _gradient_of_weight)
batching.primitive_batchers[_linear_p] = _batched
mlir.register_lowering(_linear_p, mlir.lower_fun(jnp.matmul, multiple_results=False))
