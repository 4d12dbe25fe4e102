"""Every setting and every option of tfm, and hostile values for them."""

import dataclasses
import math
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from tfm import config, processes, ranges
from tfm.cli import arguments
from tfm.cli.commands import COMMANDS
from tfm.positions import SCHEMES, Scheme
from tfm.word2vec import model as words

VALUES = [
    0, -1, 1, 10**12, -(10**12), 10**400, True, None,
    0.0, -1.0, 0.5, math.nan, math.inf, -math.inf, 1e300, -1e300, 5e-324,
    "", "中文", "a\0b", "\ud800", "x" * 10_000, "1", "nan", b"x",
    (), ("",), (0, 0), (math.nan, "x", None), [1], {}, object(),
]  # fmt: skip
"""Hostile values of Python."""

TEXTS = [
    "0", "-1", "1", "0.5", "nan", "inf", "-inf", "1e300", "5e-324", "1" + 30 * "0", "True", "None",
    "", " ", "中文", "é", "x" * 5000, "a,b", "1 2", "{", "-", "/", ".", "../..", "no/where",
]  # fmt: skip
"""Hostile arguments of a command."""


class Setting(NamedTuple):
    """One field of one dataclass; ``section`` is where an experiment or a command keeps it."""

    section: str
    owner: type
    name: str

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def kind(self) -> Any:
        return ranges.kinds(self.owner)[self.name]

    def values(self) -> list[Any]:
        """The hostile values, and those at the ends of what the field takes."""
        ends = typing.get_args(self.kind.type) if self.kind.type is not tuple else ()
        found = [*VALUES, *(x for x in ends if isinstance(x, str))]
        for bound in self.kind.bounds:
            if isinstance(bound, ranges.Range):
                found += [x for x in (bound.least, bound.most, bound.special) if x is not None]
        if self.kind.type is int:
            found.append(2**31 - 1)
        if self.kind.type is float:
            found += [float(x) for x in found if type(x) is int and abs(x) < 2**40]
        return found

    def owner_with(self, value: Any) -> Any:
        """The dataclass with its defaults but for this field."""
        return dataclasses.replace(self.owner(), **{self.name: value})


class Option(NamedTuple):
    """One argument of one command, as it is written, or a positional one."""

    command: tuple[str, ...]
    spelling: str
    kind: Any
    positional: bool = False


def settings() -> list[Setting]:
    """All fields of all dataclasses that hold settings."""
    owners = {f.name: f.type for f in dataclasses.fields(config.Config)}
    owners |= {f"positions.{name}": kind for name, kind in SCHEMES.items()}
    owners |= {"hosts": processes.Hosts, "words": words.Config}
    return [
        Setting(s, owner, f.name) for s, owner in owners.items() for f in dataclasses.fields(owner)
    ]


def commands() -> dict[tuple[str, ...], Any]:
    """All commands: ("translate",), ("embed", "train"), ..."""
    found = {}
    for name, command in COMMANDS.items():
        nested = command if isinstance(command, dict) else {"": command}
        found |= {tuple(filter(None, (name, sub))): function for sub, function in nested.items()}
    return found


def options() -> list[Option]:
    """All arguments of all commands."""
    found = []
    for command, function in commands().items():
        hints = typing.get_type_hints(function, include_extras=True)
        del hints["return"]
        for path, hint in _leaves("", hints):
            spelling = arguments.spelling(hints, path)
            positional = spelling == path and "." not in path
            if not positional and not spelling.startswith("--"):  # a field of an experiment
                spelling = f"--{spelling.replace('_', '-')}"
            found.append(Option(command, spelling, ranges.kind_of(hint), positional))
    return found


def _leaves(path: str, hints: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(path, annotation) of all arguments, those in dataclasses instead of the dataclasses."""
    for name, hint in hints.items():
        inner, where = ranges.kind_of(hint).type, f"{path}.{name}".lstrip(".")
        if dataclasses.is_dataclass(inner) and inner is not Scheme:  # written as one text
            fields = typing.get_type_hints(inner, include_extras=True)
            names = [f.name for f in dataclasses.fields(inner)]
            yield from _leaves(where, {name: fields[name] for name in names})
        else:
            yield where, hint
