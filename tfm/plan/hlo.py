"""A parser for the text of a compiled program (HLO) that knows how often each instruction runs.

XLA's own cost analysis counts the body of a loop once; here it counts once per iteration. The
grammar is that of ``xla/hlo/parser``; only what the sums need is read.
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
_CONDITION = re.compile(r"condition=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRUE_AND_FALSE = re.compile(r"(?:true|false)_computation=%([\w.\-]+)")
_TRIP_COUNT = re.compile(r"known_trip_count[^0-9]*(\d+)")


class Array(NamedTuple):
    """One array of an instruction's result.

    Attributes:
      in_vmem: whether it lives in the TPU's on-chip vector memory instead of the chip's memory.
    """

    dtype: str
    shape: tuple[int, ...]
    in_vmem: bool

    @property
    def bytes(self) -> float:
        """Its size, without the padding of tiles."""
        found = re.search(r"\d+", self.dtype)
        bits = 8 if self.dtype == "pred" else int(found[0]) if found else 0
        return math.prod(self.shape) * bits / 8

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Instruction:
    """``name = arrays op(operands), attributes``.

    Attributes:
      operands: names of the instructions it reads.
      arguments: the text between the brackets, which for a constant is its value.
      attributes: the text after the brackets.
    """

    name: str
    op: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    arguments: str
    attributes: str

    @property
    def called(self) -> str:
        """The computation of a fusion or a call, the body of a loop; "" if there is none."""
        return _first(_CALLED, self.attributes)

    @property
    def branches(self) -> list[str]:
        """The computations of a conditional."""
        listed = _first(_BRANCHES, self.attributes)
        return _NAME.findall(listed) or _TRUE_AND_FALSE.findall(self.attributes)


@dataclass(frozen=True)
class Computation:
    """Instructions by name, in order; ``root`` names the one that gives the result."""

    name: str
    instructions: dict[str, Instruction]
    root: str


@dataclass(frozen=True)
class Program:
    """Computations by name; ``entry`` names the one that the program starts with."""

    computations: dict[str, Computation]
    entry: str

    def executed(self) -> Iterator[tuple[Computation, Instruction, int]]:
        """Every instruction a chip executes, with its computation and how often it runs.

        A fusion is one instruction; those inside it are not listed.
        """
        yield from self._executed(self.entry, 1)

    def _executed(self, name: str, times: int) -> Iterator[tuple[Computation, Instruction, int]]:
        computation = self.computations[name]
        for instruction in computation.instructions.values():
            yield computation, instruction, times
            if instruction.op == "while":
                yield from self._executed(instruction.called, times * self.trip_count(instruction))
            elif instruction.op == "call":
                yield from self._executed(instruction.called, times)
            elif instruction.op == "conditional":
                for branch in instruction.branches:
                    yield from self._executed(branch, times)

    def trip_count(self, loop: Instruction) -> int:
        """How often the body of a loop runs; 1 where the program does not say.

        It is the compiler's note or, failing that, the constant that the loop's condition compares
        its counter with: JAX's scans count from 0.
        """
        noted = _first(_TRIP_COUNT, loop.attributes)
        if noted:
            return int(noted)
        condition = self.computations[_first(_CONDITION, loop.attributes)]
        bounds = [
            int(instruction.arguments)
            for instruction in condition.instructions.values()
            if instruction.op == "constant" and re.fullmatch(r"-?\d+", instruction.arguments)
        ]
        return max([1, *bounds])


def parse(text: str) -> Program:
    """Parses the text that ``compiled.as_text()`` returns."""
    computations: dict[str, Computation] = {}
    instructions: dict[str, Instruction] = {}
    entry = name = root = ""
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            name, instructions, root = head[2], {}, ""
            entry = name if head[1] else entry
        elif line.startswith("}"):
            computations[name] = Computation(name, instructions, root)
        elif match := _INSTRUCTION.match(line):
            instruction = _instruction(match)
            instructions[instruction.name] = instruction
            root = instruction.name if match[1] else root
    return Program(computations, entry)


def _instruction(match: re.Match) -> Instruction:
    _, name, kind, op, tail = match.groups()
    arguments, attributes = _split_at_closing_bracket(tail)
    operands = tuple(_NAME.findall(arguments))
    return Instruction(name, op, arrays(kind), operands, arguments, attributes)


def arrays(kind: str) -> tuple[Array, ...]:
    """The arrays of a type; those of a tuple one after the other."""
    return tuple(
        # The layout names memory space 1 for VMEM.
        Array(dtype, tuple(int(n) for n in shape.split(",") if n), "S(1)" in (layout or ""))
        for dtype, shape, layout in _ARRAY.findall(kind)
    )


def _split_at_closing_bracket(tail: str) -> tuple[str, str]:
    """Splits the text after an opening bracket at the bracket that closes it."""
    depth = 1
    for i, letter in enumerate(tail):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return tail[:i], tail[i + 1 :]
    return tail, ""


def _first(pattern: re.Pattern, text: str) -> str:
    """The first group of the first match; "" if nothing matches."""
    found = pattern.search(text)
    return found[1] if found else ""
