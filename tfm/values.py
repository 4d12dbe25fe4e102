"""Refusals of wrong values by name: numbers, names, types. ``shapes`` adds those of arrays."""

import functools
import math
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np
from jax.export import is_symbolic_dim

from tfm import hint


class Values:
    """The checks of one call of ``function``; each raises ``ValueError``.

    Args:
      function: its name, with which every message begins.
    """

    def __init__(self, function: str) -> None:
        self.function = function

    def error(self, problem: str) -> ValueError:
        """The error to raise: the function, then the problem."""
        return ValueError(f"{self.function}: {problem}")

    def rate(self, **numbers: Any) -> None:
        """Numbers in [0, 1)."""
        self._numbers("0 or more and less than 1", lambda x: 0 <= x < 1, numbers)

    def positive(self, **numbers: Any) -> None:
        """Finite numbers above 0. Traced scalars pass."""
        self._numbers("positive and finite", lambda x: 0 < x < math.inf, numbers)

    def not_negative(self, **numbers: Any) -> None:
        """Finite numbers, 0 or more. Traced scalars pass."""
        self._numbers("0 or more, and finite", lambda x: 0 <= x < math.inf, numbers)

    def _numbers(self, want: str, accepts: Callable[[Any], bool], numbers: dict[str, Any]) -> None:
        for name, x in numbers.items():
            python = isinstance(x, (int, float)) and not isinstance(x, bool)
            scalar = python or (
                kind_of(getattr(x, "dtype", None)) in ("float", "int") and x.shape == ()
            )
            if not scalar:
                raise self.error(f"{name} is {shown(x)}; it must be a number, {want}")
            value = x if python else known_values(x)
            if value is not None and not accepts(value):
                raise self.error(f"{name} is {value}; it must be {want}")

    def counts(self, least: int = 1, /, **numbers: Any) -> None:
        """Integers, ``least`` or more. Symbolic dimensions of ``jax.export`` pass."""
        for name, x in numbers.items():
            if not is_symbolic_dim(x) and not (is_integer(x) and x >= least):
                raise self.error(f"{name} is {shown(x)}; it must be an integer, {least} or more")

    def integers(self, **numbers: Any) -> None:
        """Integers of either sign."""
        for name, x in numbers.items():
            if not is_integer(x):
                raise self.error(f"{name} is {shown(x)}; it must be an integer")

    def choice(self, known: Collection[str], /, **names: Any) -> None:
        """One of the known names; the message has the nearest."""
        for argument, name in names.items():
            if not isinstance(name, str):
                options = ", ".join(map(repr, known))
                raise self.error(f"{argument} is {shown(name)}; it must be one of {options}")
            if name not in known:
                raise self.error(f"{argument} {name!r} is not known{hint.nearest(name, known)}")

    def choices(self, known: Collection[str], /, **collections: Any) -> None:
        """Collections of known names."""
        for argument, names in collections.items():
            if isinstance(names, str) or not isinstance(names, Collection):
                raise self.error(f"{argument} is {shown(names)}; it must be a collection of names")
            for name in names:
                self.choice(known, **{argument: name})

    def instance(self, kind: type, /, **objects: Any) -> None:
        """Objects of a class."""
        for name, x in objects.items():
            if not isinstance(x, kind):
                raise self.error(f"{name} is {shown(x)}; it must be of type {kind.__name__}")

    def function_of(self, what: str, /, **functions: Any) -> None:
        """Functions; ``what`` says from what to what."""
        for name, x in functions.items():
            if not callable(x):
                raise self.error(f"{name} is {shown(x)}; it must be a function, {what}")


def is_integer(x: Any) -> bool:
    """Whether ``x`` is a Python or NumPy integer."""
    return isinstance(x, (int, np.integer)) and not isinstance(x, bool)


@functools.cache
def kind_of(dtype: Any) -> str:
    """One of "float", "int", "bool" and "key"; "other" for any other dtype, and for ``None``."""
    kinds = (
        ("float", np.floating), ("int", np.integer), ("bool", np.bool_),
        ("key", jax.dtypes.prng_key),
    )  # fmt: skip
    try:
        found = (kind for kind, parent in kinds if jax.dtypes.issubdtype(dtype, parent))
        return "other" if dtype is None else next(found, "other")
    except TypeError:  # the dtype of another library
        return "other"


def known_values(x: Any) -> np.ndarray | None:
    """The values of an array, or ``None`` where they are not known: traced, or on other hosts."""
    if isinstance(x, jax.core.Tracer) or not getattr(x, "is_fully_addressable", True):
        return None
    # NumPy: while a function is being traced, a JAX operation on known values gives a tracer.
    return np.asarray(x)


def shown(x: Any) -> str:
    """What an argument is, in a few words."""
    shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
    if shape is not None and dtype is not None:
        return f"a {dtype} array of shape {tuple(shape)}"
    text = repr(x)
    return text if len(text) <= 40 and "\n" not in text else f"of type {type(x).__name__}"
