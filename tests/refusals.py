"""Every public function refuses every argument that is wrong in one way, by name.

A test file lists one valid ``Call`` of each function. ``mistakes`` changes one argument at a time:
another type, dtype, rank, size of a shared dimension, number out of range, unknown name. Arrays are
traced, so that a refusal does not depend on their values and nothing is compiled.
"""

import dataclasses
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass
class Call:
    """A valid call.

    Attributes:
      letters: dimensions of arrays whose names do not end with them, by path ("params/q/w").
      shared: letters that have a size besides that of arrays (a number or a declaration).
      accepts: paths of arguments, and path/kind of mistakes, that are no mistakes here.
      least: of integers, where it is not 1.
      name: with which messages begin, if it is not the function's.
    """

    function: Callable
    arguments: dict[str, Any]
    letters: dict[str, str] = dataclasses.field(default_factory=dict)
    shared: str = ""
    accepts: tuple[str, ...] = ()
    least: dict[str, int | None] = dataclasses.field(default_factory=dict)
    name: str = ""

    def __str__(self) -> str:
        return f"{self.function.__module__.removeprefix('tfm.')}.{self.function.__name__}"


def floats(*shape: int) -> np.ndarray:
    return np.linspace(0.1, 1.0, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def ints(*shape: int) -> np.ndarray:
    return np.ones(shape, np.int32)


def bools(*shape: int) -> np.ndarray:
    return np.ones(shape, bool)


def is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray | jax.Array)


def run(function: Callable, arguments: dict[str, Any]) -> Any:
    """Traces a call: its arrays are tracers, everything else is as it is. "*" holds *arguments."""
    leaves, tree = jax.tree.flatten(arguments, is_leaf=lambda x: x is None)
    traced = [x for x in leaves if is_array(x)]

    def body(arrays: list) -> Any:
        rest = iter(arrays)
        filled = jax.tree.unflatten(tree, [next(rest) if is_array(x) else x for x in leaves])
        positional = filled.pop("*", [])
        result = function(*positional, **filled)
        return [x for x in jax.tree.leaves(result) if is_array(x)]

    return jax.eval_shape(body, traced)


def paths(call: Call) -> dict[str, Any]:
    """Path → every leaf of the arguments; an argument that is no container is its own leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(call.arguments, is_leaf=lambda x: x is None)
    text = lambda k: str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k))))  # noqa: E731
    return {"/".join(map(text, path)): leaf for path, leaf in leaves}


def letters_of(call: Call, path: str) -> str:
    return call.letters.get(path, path.rpartition("_")[2])


def replaced(call: Call, path: str, value: Any) -> dict[str, Any]:
    """The arguments with another leaf at a path."""
    found = list(paths(call))
    leaves, tree = jax.tree.flatten(call.arguments, is_leaf=lambda x: x is None)
    leaves[found.index(path)] = value
    return jax.tree.unflatten(tree, leaves)


def mistakes(call: Call) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(argument, what is wrong with it, arguments) for every mistake."""
    for path, x in paths(call).items():
        if any(path == known or path.startswith(f"{known}/") for known in call.accepts):
            continue
        for kind, value in _wrong(call, path, x):
            if f"{path}/{kind}" not in call.accepts:
                yield path.split("/")[0], f"{path}/{kind}", replaced(call, path, value)
    for name, x in call.arguments.items():  # containers as a whole
        if isinstance(x, tuple | dict) and name != "*":
            for kind, value in (("number", 3), ("text", "abc")):
                yield name, f"{name}/{kind}", call.arguments | {name: value}


def _wrong(call: Call, path: str, x: Any) -> Iterator[tuple[str, Any]]:
    if is_array(x) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        yield "raw", jax.random.key_data(x)
        yield "seed", 0
        yield "float", np.float32(0)
        if "dropout_rate" in call.arguments:
            yield "missing", None
    elif is_array(x):
        yield from _wrong_arrays(call, path, x)
    elif isinstance(x, bool) or x is None:
        return
    elif isinstance(x, int):
        least = call.least.get(path, 1)
        yield "fraction", x + 0.5
        yield "text", str(x)
        yield "bool", True
        if least is not None:
            yield "small", least - 1
    elif isinstance(x, float):
        yield from (("nan", np.nan), ("infinite", np.inf), ("negative", -0.1), ("text", "0.1"))
        yield ("one", 1.0) if "rate" in path else ("array", np.full(3, x))
    elif isinstance(x, str):
        yield from (("unknown", f"{x}x"), ("number", 3))
    else:  # a function or an object
        yield from (("number", 3), ("text", "abc"))


def _wrong_arrays(call: Call, path: str, x: np.ndarray) -> Iterator[tuple[str, Any]]:
    letters = letters_of(call, path)
    others = {"f": np.int32, "i": np.float32, "b": np.float32}
    yield "dtype", x.astype(others[x.dtype.kind])
    yield "complex", x.astype(np.complex64)
    yield "text", "abc"
    yield "missing", None
    if not letters.startswith("..."):
        yield "rank+1", x[None]
    last = letters.removeprefix("...")
    if x.ndim and x.ndim == len(last):
        yield "rank-1", x[0]
    elsewhere = set(call.shared).union(
        *(letters_of(call, p).removeprefix("...") for p, y in paths(call).items()
          if p != path and is_array(y))
    )  # fmt: skip
    for axis, letter in enumerate(last, start=x.ndim - len(last)):
        if letter in elsewhere:
            yield f"size {letter}", np.concatenate([x, x.take([0], axis)], axis)


def failures(call: Call) -> list[str]:
    """The mistakes that are not refused by a sentence with the names of function and argument."""
    found, name = [], call.name or call.function.__name__
    for argument, what, arguments in mistakes(call):
        try:
            run(call.function, arguments)
        except ValueError as error:
            text = str(error)
            if not text.startswith(f"{name}: ") or argument.strip("*") not in text:
                found.append(f"{what}: refused, but not by name: {text}")
            elif "\n" in text or len(text) > 300:
                found.append(f"{what}: refused in more than one line: {text}")
        except Exception as error:
            found.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
        else:
            found.append(f"{what}: accepted")
    return found


def assert_refused(call: Call) -> None:
    """Right arguments are taken, and every mistake is refused by function and argument."""
    assert not missing(call)
    run(call.function, call.arguments)
    wrong = failures(call)
    assert not wrong, "\n".join(wrong)


def missing(call: Call) -> set[str]:
    """Parameters of the function that the call does not give; flags need no test."""
    parameters = inspect.signature(call.function).parameters.values()
    listed = {
        p.name
        for p in parameters
        if p.annotation is not bool and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    return listed - call.arguments.keys() - set(call.accepts)


def functions(module: Any) -> set[str]:
    """The functions of a module or, for a package, of all its modules: "module.name"."""
    modules = [module]
    if hasattr(module, "__path__"):
        modules = [
            import_module(f"{module.__name__}.{found.name}")
            for found in pkgutil.iter_modules(module.__path__)
        ]
    return {
        f"{one.__name__.removeprefix('tfm.')}.{name}"
        for one in modules
        for name, x in vars(one).items()
        if inspect.isfunction(x) and x.__module__ == one.__name__ and not name.startswith("_")
    }


def exported(package: Any) -> set[str]:
    """The functions in the ``__all__`` of a package, by where they are defined."""
    found = (getattr(package, name) for name in package.__all__)
    return {
        f"{x.__module__.removeprefix('tfm.')}.{x.__name__}" for x in found if inspect.isfunction(x)
    }
