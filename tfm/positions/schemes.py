"""The position schemes by name: one row each, and how a name with hyperparameters is read.

Adding a scheme is writing its file, with the functions of arrays and a ``Scheme`` that binds them,
and adding its row here.
"""

import ast
import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from tfm import hint, ranges
from tfm.positions.absolute import Learned, Sinusoidal
from tfm.positions.bias import T5, ALiBi
from tfm.positions.fire import FIRE
from tfm.positions.relative import Shaw, TransformerXL
from tfm.positions.rotary import Rotary
from tfm.positions.scheme import NoPositions, Scheme
from tfm.values import Values

SCHEMES: dict[str, type[Scheme]] = {
    "sinusoidal": Sinusoidal,
    "learned": Learned,
    "none": NoPositions,
    "shaw": Shaw,
    "t5": T5,
    "alibi": ALiBi,
    "rotary": Rotary,
    "transformer_xl": TransformerXL,
    "fire": FIRE,
}


def name(scheme: Scheme) -> str:
    """The name of a scheme in ``SCHEMES``."""
    return next(name for name, kind in SCHEMES.items() if kind is type(scheme))


def make(name: str, **hyperparameters: Any) -> Scheme:
    """The scheme of this name: ``make("rotary", scaling=2.0)``.

    Raises:
      ValueError: an unknown name or hyperparameter; the message has the nearest known one.
    """
    Values("positions").instance(str, name=name)
    if name not in SCHEMES:
        raise ValueError(f"positions: no scheme {ranges.shown(name)}{hint.nearest(name, SCHEMES)}")
    fields = {f.name: f for f in dataclasses.fields(SCHEMES[name])}
    for key in hyperparameters:
        if key not in fields:
            known = hint.nearest(key, fields) if fields else "; it has none"
            raise ValueError(f"positions: {name} has no hyperparameter {ranges.shown(key)}{known}")
    return SCHEMES[name](**hyperparameters)


def parse(text: str) -> Scheme:
    """Reads ``"rotary"`` or ``"rotary:base=500,scaling=2"``, as on the command line.

    Raises:
      ValueError: see ``make``; or a value of another type than the hyperparameter's.
    """
    name, _, rest = text.partition(":")
    values = {}
    for item in filter(None, rest.split(",")):
        key, _, value = item.partition("=")
        try:
            values[key.strip()] = ast.literal_eval(value.strip().capitalize())
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            what = f"{ranges.shown(item)} in {ranges.shown(text)}"
            raise ValueError(f"positions: {what} is not name=value") from error
    kinds = typing.get_type_hints(type(make(name.strip(), **values)))
    for key, value in values.items():
        if kinds[key] is float and type(value) is int:
            values[key] = float(value)
        elif type(value) is not kinds[key]:
            wanted = kinds[key].__name__
            raise ValueError(f"positions: {key} in {ranges.shown(text)} is not of type {wanted}")
    return make(name.strip(), **values)


def to_text(scheme: Scheme) -> str:
    """The inverse of ``parse``, without the hyperparameters that have their default."""
    changed = [
        f"{f.name}={value}"
        for f in dataclasses.fields(scheme)
        if (value := getattr(scheme, f.name)) != f.default
    ]
    return ":".join(filter(None, (name(scheme), ",".join(changed))))


def to_dict(scheme: Scheme) -> dict[str, Any]:
    """A scheme as JSON-able data; ``from_dict`` is its inverse."""
    return {"scheme": name(scheme), **dataclasses.asdict(scheme)}


def from_dict(data: Mapping[str, Any]) -> Scheme:
    """Reads what ``to_dict`` gave.

    Raises:
      ValueError: see ``make``.
    """
    hyperparameters = {key: data[key] for key in data if key != "scheme"}
    return make(data.get("scheme", ""), **hyperparameters)
