"""A compiled program's text, read: computations, their instructions, and how often each runs.

XLA's own cost analysis counts the body of a loop once. Here a loop's body counts as often as it
runs. The grammar is that of ``xla/hlo/parser``; only what the sums need is read.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"\b(?:calls|to_apply|body)=%([\w.\-]+)")


class Array(NamedTuple):
    """One array of an instruction's result; ``fast``: in the chip's scratch memory."""

    dtype: str
    shape: tuple[int, ...]
    fast: bool

    @property
    def bytes(self) -> float:
        """Its size, without the padding of tiles."""
        bits = 8 if self.dtype == "pred" else re.search(r"\d+", self.dtype)
        bits = bits if isinstance(bits, int) else int(bits[0]) if bits else 0
        return math.prod(self.shape) * bits / 8

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Instruction:
    """``name = arrays op(operands), rest``."""

    name: str
    op: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    arguments: str
    rest: str

    @property
    def called(self) -> str | None:
        """The computation of a fusion or a call, the body of a loop."""
        found = _CALLED.search(self.rest)
        return found and found[1]


@dataclass(frozen=True)
class Computation:
    """Instructions by name, in order; the last to be marked ROOT gives the result."""

    name: str
    instructions: dict[str, Instruction]
    root: str


@dataclass(frozen=True)
class Program:
    """Computations by name, and the one that the program starts with."""

    computations: dict[str, Computation]
    entry: str

    def runs(self) -> Iterator[tuple[Computation, Instruction, int]]:
        """Every instruction that a chip executes as such, and how often; fusions are one."""
        yield from self._runs(self.entry, 1)

    def _runs(self, name: str, times: int) -> Iterator[tuple[Computation, Instruction, int]]:
        computation = self.computations[name]
        for one in computation.instructions.values():
            yield computation, one, times
            if one.op == "while":
                yield from self._runs(one.called, times * self.trips(one))
            elif one.op == "call":
                yield from self._runs(one.called, times)
            elif one.op == "conditional":
                for branch in _branches(one.rest):
                    yield from self._runs(branch, times)

    def trips(self, loop: Instruction) -> int:
        """How often a loop's body runs: what the compiler notes, or what its counter is held to.

        1 where neither says. JAX's scans count from 0.
        """
        noted = re.search(r"known_trip_count[^0-9]*(\d+)", loop.rest)
        if noted:
            return int(noted[1])
        condition = self.computations[re.search(r"condition=%([\w.\-]+)", loop.rest)[1]]
        bounds = [
            int(one.arguments)
            for one in condition.instructions.values()
            if one.op == "constant" and re.fullmatch(r"-?\d+", one.arguments)
        ]
        return max([1, *bounds])


def parse(text: str) -> Program:
    """Reads ``compiled.as_text()``."""
    computations, entry = {}, ""
    name, instructions, root = "", {}, ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            name, instructions, root = head[2], {}, ""
            entry = name if head[1] else entry
        elif line == "}" or line.startswith("}"):
            computations[name] = Computation(name, instructions, root)
        elif match := _INSTRUCTION.match(line):
            one = _instruction(match)
            instructions[one.name] = one
            root = one.name if match[1] else root
    return Program(computations, entry)


def _instruction(match: re.Match) -> Instruction:
    _, name, kind, op, tail = match.groups()
    arguments, rest = _close(tail)
    return Instruction(name, op, arrays(kind), tuple(_NAME.findall(arguments)), arguments, rest)


def arrays(kind: str) -> tuple[Array, ...]:
    """The arrays of a type, those of a tuple one after the other."""
    return tuple(
        Array(dtype, tuple(int(n) for n in shape.split(",") if n), "S(1)" in (layout or ""))
        for dtype, shape, layout in _ARRAY.findall(kind)
    )


def _close(tail: str) -> tuple[str, str]:
    """Splits what follows an opening bracket at the one that closes it."""
    depth = 1
    for i, letter in enumerate(tail):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return tail[:i], tail[i + 1 :]
    return tail, ""


def _branches(rest: str) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", rest)
    return _NAME.findall(
        listed[1] if listed else " ".join(re.findall(r"(?:true|false)_computation=%[\w.\-]+", rest))
    )
