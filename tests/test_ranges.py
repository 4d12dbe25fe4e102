import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from tfm import ranges
from tfm.ranges import Length, Range


@dataclass(frozen=True)
class Inner:
    rate: Annotated[float, Range(least=0, below=1, note="0 is off")] = 0.0


@dataclass(frozen=True)
class Special(Inner):
    extra: int = 0


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    rows: Annotated[int, Range(least=1)] = 1
    gap: Annotated[int, Range(least=1, special=-1, note="-1 takes what is left")] = -1
    share: Annotated[float, Range(least=0, most=1)] = 0.5
    scale: Annotated[float, Range(above=0)] = 1.0
    offset: float = 0.0
    count: int = 0
    maybe: Annotated[int, Range(least=2)] | None = None
    on: bool = False
    kind: Literal["a", "b"] = "a"
    text: str = ""
    named: Annotated[str, Length(1)] = "x"
    files: Annotated[tuple[Annotated[str, Length(1)], ...], Length(1, 2)] = ("x",)
    columns: tuple[Annotated[int, Range(least=0)], Annotated[int, Range(least=0)]] = (0, 1)
    anything: Any = None


def message(where="", **changes):
    with pytest.raises(ValueError) as raised:
        ranges.check(dataclasses.replace(Outer(), **changes), where)
    text = str(raised.value)
    assert "\n" not in text and len(text) < 250
    return text


nan, inf = math.nan, math.inf


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rows": 0}, "rows 0: must be 1 or more"),
        ({"rows": 2**31}, "rows 2147483648: must be from 1 to 2,147,483,647"),
        ({"rows": 10**9999}, "rows of 33,216 bits: must be from 1 to 2,147,483,647"),
        ({"rows": True}, "rows True: must be an int, not bool"),
        ({"rows": 1.0}, "rows 1.0: must be an int, not float"),
        ({"rows": "1"}, "rows '1': must be an int, not str"),
        ({"rows": None}, "rows None: must be an int, not NoneType"),
        ({"gap": 0}, "gap 0: must be 1 or more, or -1; -1 takes what is left"),
        ({"share": 1.1}, "share 1.1: must be from 0 to 1"),
        ({"share": nan}, "share nan: must be from 0 to 1"),
        ({"share": -inf}, "share -inf: must be from 0 to 1"),
        ({"scale": 0}, "scale 0: must be more than 0"),
        ({"scale": nan}, "scale nan: must be more than 0"),
        ({"scale": inf}, "scale inf: must be more than 0 and finite in float32"),
        ({"scale": 1e300}, "scale 1e+300: must be more than 0 and finite in float32"),
        (
            {"scale": 10**400},
            "scale of 1,329 bits: must be a float where so large; write it with a decimal point",
        ),
        ({"scale": False}, "scale False: must be a float, not bool"),
        ({"offset": nan}, "offset nan: must be a number"),
        ({"offset": -inf}, "offset -inf: must be finite in float32"),
        ({"count": -(2**40)}, "count -1099511627776: must be from -2,147,483,647 to 2,147,483,647"),
        ({"maybe": 1}, "maybe 1: must be 2 or more"),
        ({"maybe": "x"}, "maybe 'x': must be an int, not str"),
        ({"on": 1}, "on 1: must be a bool, not int"),
        ({"kind": "c"}, "kind 'c': choose from a, b"),
        ({"kind": ["a"]}, "kind ['a']: choose from a, b"),
        ({"text": 3}, "text 3: must be a str, not int"),
        ({"text": "a\0b"}, "text 'a\\x00b': must not have a NUL character"),
        ({"text": "\ud800"}, "text '\\ud800': must be valid Unicode"),
        ({"named": ""}, "named '': must not be empty"),
        ({"files": ()}, "files (): must not be empty"),
        ({"files": ("a", "")}, "files[1] '': must not be empty"),
        ({"files": tuple("abc")}, "files ('a', 'b', 'c'): must have 1 to 2 items"),
        ({"files": ["a"]}, "files ['a']: must be a tuple, not list"),
        ({"columns": (0,)}, "columns (0,): must have 2 items"),
        ({"columns": (0, -1)}, "columns[1] -1: must be 0 or more"),
        ({"columns": (0, "1")}, "columns[1] '1': must be an int, not str"),
        ({"inner": Inner(1.0)}, "inner.rate 1.0: must be 0 or more and less than 1; 0 is off"),
        ({"inner": Special(extra="x")}, "inner.extra 'x': must be an int, not str"),
        ({"inner": 3}, "inner 3: must be an Inner, not int"),
        ({"rows": "long " * 99}, None),
    ],
)
def test_what_is_refused_and_the_sentence(changes, expected):
    found = message(**changes)
    assert expected is None or found == expected


def test_what_is_accepted():
    for changes in (
        {},
        {"rows": 2**31 - 1, "gap": 1, "share": 0, "scale": 3, "offset": -1e38, "maybe": 2},
        {"share": 1, "kind": "b", "text": "文本\n", "files": ("a", "b"), "columns": (3, 0)},
        {"inner": Special(0.999), "anything": object(), "on": True, "scale": 1e-300},
    ):
        ranges.check(dataclasses.replace(Outer(), **changes))


def test_messages_have_the_path_of_the_field():
    assert message("train", rows=0).startswith("train.rows 0: ")
    assert message("train", inner=Inner(-1.0)).startswith("train.inner.rate -1.0: ")
    with pytest.raises(ValueError, match=r"^--inner.rate -1.0: must be 0 or more"):
        ranges.check(Outer(Inner(-1.0)), name=lambda path: f"--{path}")


def test_arguments_of_a_function():
    def function(outer: Outer, tries: Annotated[int, Range(least=0)] = 3, free=None) -> int:
        return 0

    ranges.check_arguments(function, {"tries": 0})
    with pytest.raises(ValueError, match=r"^tries -1: must be 0 or more"):
        ranges.check_arguments(function, {"outer": Outer(), "tries": -1})
    with pytest.raises(ValueError, match=r"^outer\.rows 0: must be 1 or more"):
        ranges.check_arguments(function, {"outer": Outer(rows=0), "tries": -1})
