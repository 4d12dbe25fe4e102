"""FLOPs of the matrix products in a traced function: the work that peak rates are quoted for."""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core


def flops(jaxpr: core.Jaxpr) -> float:
    """2·(products summed) over every ``dot_general``, for all devices together.

    A scan's body counts as often as it runs, a ``shard_map``'s once for every part of the axes it
    takes, a Pallas kernel's once a block of its grid, the dearer branch of a condition, a ``while``
    of unknown length once. The compiler neither adds products nor drops any that matter.
    """
    return sum(_of(equation) for equation in jaxpr.eqns)


def _of(equation: core.JaxprEqn) -> float:
    name, given = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = given["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * equation.outvars[0].aval.size * math.prod(left[i] for i in contracted)
    inside = [flops(body) for body in _bodies(given.values())]
    if name == "cond":
        return max(inside)
    times = {
        "scan": lambda: given["length"],
        "shard_map": lambda: math.prod(given["mesh"].shape[a] for a in given["newly_manual_axes"]),
        "pallas_call": lambda: math.prod(given["grid_mapping"].grid),
    }
    return times.get(name, lambda: 1)() * sum(inside)


def _bodies(values: Any) -> Iterator[core.Jaxpr]:
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _bodies(value)
