"""The arguments of a command, checked before it does anything."""

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any

import tyro

from tfm import config, ranges


def checked(command: Callable[..., int]) -> Callable[..., int]:
    """The command, which now refuses arguments that their annotations do not allow.

    See ``ranges``. The message names an option as it is written ("--n-best"), but a field of an
    experiment by its path ("train.patience"): it may come from the experiment's file.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> int:
        given = signature.bind(*args, **kwargs).arguments
        ranges.check_arguments(command, given, name=lambda path: spelling(hints, path))
        return command(*args, **kwargs)

    return run


def spelling(hints: dict[str, Any], path: str) -> str:
    """How the command line writes ``path``, an argument of the command or a field of one."""
    argument, _, field = path.partition(".")
    kind, *annotations = typing.get_args(hints[argument]) or [hints[argument]]
    if kind is config.Config:
        return field
    if tyro.conf.Positional in annotations:
        return path
    names = [x.name for x in annotations if getattr(x, "name", None) is not None]
    parts = [names[0] if names else argument, field]  # a group without a name is not written
    return "--" + ".".join(filter(None, parts)).replace("_", "-")
