"""Ranges of settings, stated next to their types, and checked before any work is done.

A field says which values it takes by its type and an annotation::

    rows: Annotated[int, Range(least=1)] = 32

``check`` walks a dataclass and the dataclasses in it; ``check_arguments`` does the same for the
arguments of a function. Each raises ``ValueError`` with one sentence that has the field, its value
and what is allowed.

Types are exact, but an int may stand for a float; a bool is no int. A number without bounds must
fit int32 or be finite in float32, where most of them end; text must be encodable as UTF-8.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

Name = Callable[[str], str]

_INT32_MAX = 2**31 - 1
_FLOAT32_MAX = 3.4e38
_SHOWN = 60  # characters of a value in a message


class Range(NamedTuple):
    """The numbers that a field takes; NaN is never among them.

    Attributes:
      least, most: bounds that belong to the range.
      above, below: bounds that do not belong to it.
      special: a number outside of the bounds that is taken too.
      note: what a special number means, for the end of the message: "0 is off".
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    special: float | None = None
    note: str = ""

    def problem(self, value: float) -> str | None:
        """What ``value`` must be; ``None`` if it is in the range."""
        limit = _INT32_MAX if isinstance(value, int) else _FLOAT32_MAX
        least = -limit if self.least is None else self.least
        most = limit if self.most is None else self.most
        inside = least <= value <= most  # False for NaN
        inside &= self.above is None or value > self.above
        inside &= self.below is None or value < self.below
        return None if inside or value == self.special else self._sentence(value)

    def _sentence(self, value: float) -> str:
        least, most, finite = self.least, self.most, ""
        # Limits of the type are mentioned only to whom they matter.
        if isinstance(value, int) and abs(value) > _INT32_MAX:
            least = -_INT32_MAX if least is None and self.above is None else least
            most = _INT32_MAX if most is None and self.below is None else most
        elif abs(value) > _FLOAT32_MAX and most is None and self.below is None:
            finite = "finite in float32"
        phrases = [
            text.format(_number(bound))
            for text, bound in (
                ("{} or more", least),
                ("more than {}", self.above),
                ("{} or less", most),
                ("less than {}", self.below),
            )
            if bound is not None
        ]
        if least is not None and most is not None:
            phrases = [f"from {_number(least)} to {_number(most)}"]
        allowed = " and ".join([*phrases, *filter(None, [finite])]) or "a number"
        special = "" if self.special is None else f", or {_number(self.special)}"
        return f"must be {allowed}{special}" + (f"; {self.note}" if self.note else "")


SEED = Range(least=0, most=2**32 - 1)
"""The seeds of a generator of JAX, which ignores all further bits."""


class Length(NamedTuple):
    """The number of characters of a text, or of items of a tuple."""

    least: int = 1
    most: int | None = None

    def problem(self, value: str | tuple) -> str | None:
        """What ``value`` must be; ``None`` if its length is in the range."""
        if len(value) >= self.least and (self.most is None or len(value) <= self.most):
            return None
        if self.least == 1 and not value:
            return "must not be empty"
        counts = f"{self.least} or more" if self.most is None else f"{self.least} to {self.most}"
        return f"must have {counts} {'characters' if isinstance(value, str) else 'items'}"


def check(settings: Any, where: str = "", name: Name = str) -> None:
    """Checks all fields of a dataclass, and of the dataclasses in it, against their annotations.

    Args:
      where: path of the dataclass, for messages: "train".
      name: how a message writes the path of a field.

    Raises:
      ValueError: a field that is out of range or of a wrong type; the first one of several.
    """
    for problem in _fields(settings, f"{where}." if where else "", name):
        raise ValueError(problem)


def check_arguments(function: Callable, values: Mapping[str, Any], name: Name = str) -> None:
    """Checks arguments of a function against its annotations, as ``check`` does with fields.

    Args:
      values: arguments by name; not all of them need be there.
      name: how a message writes the path of an argument.
    """
    known = kinds(function)
    for key, value in values.items():
        for problem in _problems(value, known.get(key, Kind(object)), key, name):
            raise ValueError(problem)


class Kind(NamedTuple):
    """A type, without its annotations; the bounds among these; and whether None is allowed."""

    type: Any
    bounds: tuple[Range | Length, ...] = ()
    optional: bool = False


def kind_of(hint: Any) -> Kind:
    """Takes an annotation apart."""
    if typing.get_origin(hint) is Annotated:
        inner, *annotations = typing.get_args(hint)
        bounds = tuple(x for x in annotations if isinstance(x, Range | Length))
        kind = kind_of(inner)
        return kind._replace(bounds=kind.bounds + bounds)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        choices = [choice for choice in typing.get_args(hint) if choice is not types.NoneType]
        # Of several types nothing is known; settings have none with more than one besides None.
        kind = kind_of(choices[0]) if len(choices) == 1 else Kind(object)
        return kind._replace(optional=len(choices) < len(typing.get_args(hint)))
    return Kind(object if hint is Any else hint)


@functools.cache
def kinds(owner: Any) -> dict[str, Kind]:
    """What the fields of a class, or the arguments of a function, may be, by their names."""
    hints = typing.get_type_hints(owner, include_extras=True)
    return {name: kind_of(hint) for name, hint in hints.items()}


def _fields(settings: Any, prefix: str, name: Name) -> Iterator[str]:
    kind: Any = type(settings)
    known = kinds(kind)
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        yield from _problems(value, known[field.name], prefix + field.name, name)


def _problems(value: Any, kind: Kind, path: str, name: Name) -> Iterator[str]:
    """A sentence for everything that is wrong with a value, its fields and its items."""
    if value is None and kind.optional:
        return
    found = _type_problem(value, kind.type)
    if found is None and dataclasses.is_dataclass(value):
        yield from _fields(value, f"{path}.", name)
        return
    if found is None:
        bounds = kind.bounds or ((Range(),) if kind.type in (int, float) else ())
        found = next(filter(None, (bound.problem(value) for bound in bounds)), None)
    if found is not None:
        yield f"{name(path)} {shown(value)}: {found}"
    elif isinstance(value, tuple):
        items = typing.get_args(kind.type)
        items = items[:1] * len(value) if items[-1:] == (...,) else items
        for i, (item, hint) in enumerate(zip(value, items, strict=True)):
            yield from _problems(item, kind_of(hint), f"{path}[{i}]", name)


def _type_problem(value: Any, expected: Any) -> str | None:
    """Why a value is not of a type; the items of a tuple and the fields of a dataclass apart."""
    origin, args = typing.get_origin(expected), typing.get_args(expected)
    if origin is Literal:
        if any(type(value) is type(choice) and value == choice for choice in args):
            return None
        return f"choose from {', '.join(map(str, args))}"
    expected = origin or expected
    fits = isinstance(value, (int, float) if expected is float else expected)
    if not fits or (isinstance(value, bool) and expected is not bool):
        article = "an" if expected.__name__[0] in "aeiouAEIOU" else "a"
        return f"must be {article} {expected.__name__}, not {type(value).__name__}"
    if expected is float and isinstance(value, int) and abs(value) > _INT32_MAX:
        return "must be a float where so large; write it with a decimal point"
    if expected is tuple and args[-1:] != (...,) and len(value) != len(args):
        return f"must have {len(args)} items"
    return _text_problem(value) if isinstance(value, str) else None


def _text_problem(value: str) -> str | None:
    try:
        value.encode()
    except UnicodeEncodeError:
        return "must be valid Unicode"
    return "must not have a NUL character" if "\0" in value else None


def _number(x: float) -> str:
    return f"{int(x):,}" if x == int(x) and abs(x) < 1e15 else f"{x:g}"


def shown(value: Any) -> str:
    """A value in a message: on one line, shortened."""
    if (
        isinstance(value, int) and value.bit_length() > 200
    ):  # Python refuses to print very long ones
        return f"of {value.bit_length():,} bits"
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
