"""FLOPs of the matrix products in a traced function: the work that peak rates are quoted for."""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core


def count(jaxpr: core.Jaxpr) -> float:
    """2·(multiply-adds) of every ``dot_general`` and ``linear``, summed over all devices.

    The body of a scan counts once per iteration, that of a ``shard_map`` once per shard of the axes
    it is mapped over, that of a Pallas kernel once per block of its grid. Of a condition the more
    expensive branch counts; a ``while`` of unknown length counts once. The compiler adds no
    products and drops none that matter.
    """
    return sum(_equation_flops(equation) for equation in jaxpr.eqns)


def _equation_flops(equation: core.JaxprEqn) -> float:
    name, settings = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = settings["dimension_numbers"]
        left, out = _shape(equation.invars[0]), _shape(equation.outvars[0])
        return 2.0 * math.prod(out) * math.prod(left[i] for i in contracted)
    if name == "linear":
        x, weight = map(_shape, equation.invars)
        return 2.0 * math.prod(x) * weight[1]
    inside = [count(body) for body in _bodies(settings.values())]
    if name == "cond":
        return max(inside)
    return _repetitions(name, settings) * sum(inside)


def _repetitions(name: str, settings: dict[str, Any]) -> int:
    """How often a primitive runs its body."""
    if name == "scan":
        return settings["length"]
    if name == "shard_map":
        return math.prod(settings["mesh"].shape[axis] for axis in settings["newly_manual_axes"])
    if name == "pallas_call":
        return math.prod(settings["grid_mapping"].grid)
    return 1


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _bodies(values: Any) -> Iterator[core.Jaxpr]:
    """The jaxprs among the parameters of an equation."""
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _bodies(value)
