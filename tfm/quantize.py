"""Weights of fewer bits for inference, and the product of activations with weights of any kind.

A weight is prepared once, when a model is loaded; ``project`` then computes with what it finds: the
weight as trained, rounded to bfloat16, or in int8 with one scale for each output. Training never
quantises.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from tfm.linear import linear
from tfm.params import like
from tfm.shapes import Check
from tfm.values import Values

_LARGEST = 127  # of int8; -128 is not used, so that the range is symmetric


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Int8:
    """A weight in int8, symmetric around 0: about ``values * scales``.

    Attributes:
      values: int8, the shape of the weight.
      scales: float32, of the same rank: one for each output, 1 along the axes that a product with
        the weight sums over.
    """

    values: jax.Array
    scales: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight that this stands for."""
        return self.values.shape

    @property
    def ndim(self) -> int:
        """Of the weight that this stands for."""
        return self.values.ndim

    @property
    def dtype(self) -> jnp.dtype:
        """Of the numbers that it stands for."""
        return self.scales.dtype


Weight = jax.Array | Int8


def int8(weight: jax.Array, inputs: tuple[int, ...]) -> Int8:
    """A weight in int8 with one scale for each output; each entry is off by at most half a scale.

    Args:
      inputs: the axes that a product with the weight sums over.
    """
    check = Check("int8")
    check.floats("...", weight=weight)
    check.instance(tuple, inputs=inputs)
    for i, axis in enumerate(inputs):
        check.integers(**{f"inputs[{i}]": axis})
        if not -weight.ndim <= axis < weight.ndim:
            raise check.error(f"inputs[{i}] is {axis}; weight has {weight.ndim} dimensions")
    largest = jnp.abs(weight.astype(jnp.float32)).max(axis=inputs, keepdims=True)
    scales = _scale(largest)
    return Int8(_rounded(weight.astype(jnp.float32) / scales), scales)


def matrix(weight: Weight, inputs: int) -> Weight:
    """A weight as the matrix [D,F] of its first ``inputs`` axes, which are summed over, and the
    others.
    """
    check = Values("matrix")
    check.counts(inputs=inputs)
    D = math.prod(weight.shape[:inputs])
    if isinstance(weight, Int8):
        return Int8(weight.values.reshape(D, -1), weight.scales.reshape(1, -1))
    return weight.reshape(D, -1)


def project(x: jax.Array, weight_DF: Weight) -> jax.Array:
    """x W over the last axis, in the dtype of x: [...,D] → [...,F].

    A weight of more precision than x is rounded to that of x. One of bfloat16 meets x rounded to
    bfloat16, and products are added in float32: on CPUs with bfloat16 instructions this takes
    about half the time of float32. One of int8 meets each row of x in int8 with a scale of its own
    (Dettmers 2022, §2.2), and products are added exactly, in int32: what a row gives depends on no
    other row.
    """
    check = Check("project")
    check.floats("...D", x=x)
    check.floats(weight_DF=weight_DF)
    narrower = weight_DF.dtype != x.dtype == jnp.promote_types(weight_DF.dtype, x.dtype)
    if not isinstance(weight_DF, Int8) and not narrower:
        return linear(x, weight_DF.astype(x.dtype))
    return product(x, weight_DF, 0).astype(x.dtype)


def product(x: jax.Array, weight: Weight, axis: int) -> jax.Array:
    """The product over the last axis of x and ``axis`` of a matrix, added and given in float32.

    What is multiplied is of the lower precision of the two; see ``project``.
    """
    check = Check("product")
    check.floats("...D", x=x)
    check.integers(axis=axis)
    if axis not in (0, 1):
        raise check.error(f"axis is {axis}; it must be 0 or 1, an axis of the matrix")
    check.floats("DF" if axis == 0 else "FD", weight=weight)
    dimensions = (((x.ndim - 1,), (axis,)), ((), ()))
    if isinstance(weight, Int8):
        scales = _scale(jnp.abs(x.astype(jnp.float32)).max(axis=-1, keepdims=True))
        sums = jax.lax.dot_general(
            _rounded(x.astype(jnp.float32) / scales),
            weight.values,
            dimensions,
            preferred_element_type=jnp.int32,
        )
        y = sums.astype(jnp.float32)
        return y * scales * like(weight.scales.reshape(-1), y)
    dtype = min((x.dtype, weight.dtype), key=lambda dtype: dtype.itemsize)
    return jax.lax.dot_general(
        x.astype(dtype), weight.astype(dtype), dimensions, preferred_element_type=jnp.float32
    )


def _scale(largest: jax.Array) -> jax.Array:
    """What 1 stands for, where the largest absolute value is this; 1 where all values are 0."""
    return jnp.where(largest > 0, largest / _LARGEST, 1.0)


def _rounded(x: jax.Array) -> jax.Array:
    return jnp.clip(jnp.round(x), -_LARGEST, _LARGEST).astype(jnp.int8)
