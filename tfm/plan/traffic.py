"""What a compiled step moves: between a chip and its memory, and between chips."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tfm.plan.hlo import Array, Computation, Instruction, Program

_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

# What only names, groups or reinterprets arrays, and what is counted where it runs or ends.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call",
    "conditional", "partition-id", "replica-id", "after-all", "custom-call", "opt-barrier",
}  # fmt: skip
_SLICES = ("dynamic-slice", "slice", "gather")


@dataclass(frozen=True)
class Collective:
    """An exchange between chips.

    Attributes:
      kind: of ``_KINDS``.
      parts: what a chip has of every array when it is cut: put into an all-gather, got from a
        reduce-scatter, both for the others.
      group: chips that exchange with each other.
      times: a step.
    """

    kind: str
    parts: tuple[Array, ...]
    group: int
    times: int

    @property
    def largest(self) -> Array:
        """The largest of the parts."""
        return max(self.parts, key=lambda part: part.bytes)

    @property
    def sent(self) -> float:
        """Bytes that each chip sends a step, by the ring algorithms (Patarasuk & Yuan 2009)."""
        bytes_, n = sum(part.bytes for part in self.parts), self.group
        round_ = {
            "all-gather": n - 1,
            "reduce-scatter": n - 1,
            "all-reduce": 2 * (n - 1) / n,
            "all-to-all": (n - 1) / n,
            "collective-permute": 1,
        }[self.kind]
        return self.times * bytes_ * round_


def collectives(program: Program, chips: int) -> list[Collective]:
    """All exchanges of a step, those within fusions too."""
    return [c for where, one, n in program.runs() for c in _within(program, where, one, n, chips)]


def _within(
    program: Program, where: Computation, one: Instruction, times: int, chips: int
) -> Iterator[Collective]:
    kind = one.op.removesuffix("-start")
    if kind in _KINDS:
        group = _group(one.rest, chips)
        given = [a for name in one.operands for a in where.instructions[name].arrays]
        if where.name.startswith("all-reduce-scatter"):  # how the TPU compiler writes one
            kind = "reduce-scatter"
        if kind == "reduce-scatter":
            given = [Array(a.dtype, _one_part(a, group), a.fast) for a in given]
        if group > 1:
            yield Collective(kind, tuple(given), group, times)
    elif one.op in ("fusion", "async-start") and one.called:
        inner = program.computations[one.called]
        for part in inner.instructions.values():
            yield from _within(program, inner, part, times, chips)


def _one_part(whole: Array, group: int) -> tuple[int, ...]:
    """The shape of a ``group``-th of an array, cut where it can be."""
    for i, size in enumerate(whole.shape):
        if size % group == 0:
            return (*whole.shape[:i], size // group, *whole.shape[i + 1 :])
    return (math.ceil(math.prod(whole.shape) / group),)


def _group(rest: str, chips: int) -> int:
    """How many chips exchange: the three ways of writing ``replica_groups``."""
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", found[2]))
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(found[1])
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return len(found[1].split(","))
    return chips


def memory_bytes(program: Program) -> float:
    """Bytes read from and written to a chip's memory in a step; its scratch memory is free.

    Every instruction reads its operands and writes its results, once each: what a compiler that
    fuses nothing more would move. Of an array that is only sliced, or written to in place, the
    slice counts.
    """
    return sum(times * _moved(program, where, one) for where, one, times in program.runs())


def _moved(program: Program, where: Computation, one: Instruction) -> float:
    op, known = one.op, where.instructions
    kernel = op == "custom-call" and '"tpu_custom_call"' in one.rest  # of Pallas
    if (op in _FREE and not kernel) or op.endswith(("-start", "-update")):
        return 0.0
    if op.endswith("-done"):
        start = known.get(one.operands[0])
        source = known.get(start.operands[0]) if start and start.operands else None
        from_memory = not (source and any(a.fast for a in source.arrays))
        return sum(a.bytes * (from_memory + (not a.fast)) for a in one.arrays)
    if op == "fusion":
        return _fused(program.computations[one.called], one, where)
    if op in _SLICES:
        return 2 * _slow(one.arrays)
    if op == "dynamic-update-slice":
        return 2 * _slow(known[one.operands[1]].arrays)
    return _slow(one.arrays) + sum(_slow(known[n].arrays) for n in set(one.operands))


def _fused(inner: Computation, one: Instruction, where: Computation) -> float:
    """A fusion reads what its body uses of its operands, and writes its results."""
    users: dict[str, list[Instruction]] = {}
    for part in inner.instructions.values():
        for name in part.operands:
            users.setdefault(name, []).append(part)
    total = 0.0
    for part in inner.instructions.values():
        if part.op == "parameter":
            outside = where.instructions[one.operands[int(part.arguments)]]
            if not any(a.fast for a in outside.arrays):
                total += _read(part, users)
    roots = [inner.instructions[inner.root]]
    if roots[0].op == "tuple":
        roots = [inner.instructions[name] for name in roots[0].operands]
    for root, result in zip(roots, one.arrays, strict=False):
        while root.op in ("bitcast", "copy", "reshape"):
            root = inner.instructions[root.operands[0]]
        if root.op == "dynamic-update-slice":
            result = inner.instructions[root.operands[1]].arrays[0]._replace(fast=result.fast)
        total += _slow((result,))
    return total


def _read(array: Instruction, users: dict[str, list[Instruction]]) -> float:
    """Bytes read of a fusion's parameter: all of it, unless every use takes a slice."""
    parts = 0.0
    for user in users.get(array.name, []):
        if user.op in ("bitcast", "reshape"):
            parts += _read(user, users)
        elif user.op in _SLICES and user.operands[0] == array.name:
            parts += sum(a.bytes for a in user.arrays)
        elif user.op == "dynamic-update-slice" and user.operands[0] == array.name:
            continue
        else:
            return sum(a.bytes for a in array.arrays)
    return min(parts, sum(a.bytes for a in array.arrays))


def _slow(arrays: tuple[Array, ...]) -> float:
    return sum(a.bytes for a in arrays if not a.fast)


def cycles(program: Program) -> float:
    """The TPU compiler's own estimate of what a step's instructions take; 0 where it notes none."""
    total = 0.0
    for _, one, times in program.runs():
        if noted := re.search(r'"estimated_cycles":"(\d+)"', one.rest):
            total += times * int(noted[1])
    return total
