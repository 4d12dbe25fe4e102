"""What a compiled program moves: bytes between a chip and its memory, and between chips."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tfm.plan.hlo import Array, Computation, Instruction, Program

_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

# These only name, group or reinterpret arrays; or what they move is counted elsewhere: in the
# instructions of their body, or where an asynchronous instruction ends.
_FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call",
    "conditional", "partition-id", "replica-id", "after-all", "custom-call", "opt-barrier",
}  # fmt: skip
_SLICES = ("dynamic-slice", "slice", "gather")


@dataclass(frozen=True)
class Collective:
    """A collective operation of a program.

    Attributes:
      kind: one of ``_KINDS``.
      shards: what one chip has of each array on the sharded side: the inputs of an all-gather, the
        results of a reduce-scatter, of the others both are alike.
      group: how many chips exchange with each other.
      times: how often it runs.
    """

    kind: str
    shards: tuple[Array, ...]
    group: int
    times: int

    @property
    def largest(self) -> Array:
        """The largest of the shards."""
        return max(self.shards, key=lambda shard: shard.bytes)

    @property
    def sent_bytes(self) -> float:
        """Bytes that each chip sends in all runs, by ring algorithms (Patarasuk & Yuan 2009)."""
        n = self.group
        fraction = {
            "all-gather": n - 1,
            "reduce-scatter": n - 1,
            "all-reduce": 2 * (n - 1) / n,
            "all-to-all": (n - 1) / n,
            "collective-permute": 1,
        }[self.kind]
        return self.times * sum(shard.bytes for shard in self.shards) * fraction


def collectives(program: Program, chips: int) -> list[Collective]:
    """All collectives of a program for ``chips`` chips, those within fusions too."""
    return [
        collective
        for computation, instruction, times in program.executed()
        for collective in _collectives_in(program, computation, instruction, times, chips)
    ]


def _collectives_in(
    program: Program, computation: Computation, instruction: Instruction, times: int, chips: int
) -> Iterator[Collective]:
    """The collective that an instruction is, or those inside a fusion."""
    kind = instruction.op.removesuffix("-start")
    if kind in _KINDS:
        group = _group_size(instruction.attributes, chips)
        operands = (computation.instructions[name] for name in instruction.operands)
        shards = [array for operand in operands for array in operand.arrays]
        # The TPU compiler writes a reduce-scatter as an all-reduce in a computation of this name.
        if computation.name.startswith("all-reduce-scatter"):
            kind = "reduce-scatter"
        if kind == "reduce-scatter":
            shards = [array._replace(shape=_shard_shape(array.shape, group)) for array in shards]
        if group > 1:
            yield Collective(kind, tuple(shards), group, times)
    elif instruction.op in ("fusion", "async-start") and instruction.called:
        body = program.computations[instruction.called]
        for inner in body.instructions.values():
            yield from _collectives_in(program, body, inner, times, chips)


def _shard_shape(shape: tuple[int, ...], group: int) -> tuple[int, ...]:
    """The shape of one of ``group`` shards, split along the first dimension that divides evenly."""
    for i, size in enumerate(shape):
        if size % group == 0:
            return (*shape[:i], size // group, *shape[i + 1 :])
    return (math.ceil(math.prod(shape) / group),)


def _group_size(attributes: str, chips: int) -> int:
    """How many chips exchange: ``replica_groups`` is written in one of three ways."""
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", found[2]))
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(found[1])
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return len(found[1].split(","))
    return chips


def memory_bytes(program: Program) -> float:
    """Bytes that a program reads from and writes to a chip's memory; VMEM does not count.

    Every instruction reads its operands and writes its results once: what a compiler would move
    that fuses nothing further. Of an array that is only sliced, or updated in place, the slice
    counts.
    """
    return sum(
        times * _instruction_bytes(program, computation, instruction)
        for computation, instruction, times in program.executed()
    )


def _instruction_bytes(
    program: Program, computation: Computation, instruction: Instruction
) -> float:
    op, known = instruction.op, computation.instructions
    is_pallas = op == "custom-call" and '"tpu_custom_call"' in instruction.attributes
    if (op in _FREE and not is_pallas) or op.endswith(("-start", "-update")):
        return 0.0
    if op.endswith("-done"):
        start = known.get(instruction.operands[0])
        source = known.get(start.operands[0]) if start and start.operands else None
        reads = not (source and any(array.in_vmem for array in source.arrays))
        return sum(array.bytes * (reads + (not array.in_vmem)) for array in instruction.arrays)
    if op == "fusion":
        body = program.computations[instruction.called]
        return _fusion_reads(body, instruction, computation) + _fusion_writes(body, instruction)
    if op in _SLICES:
        return 2 * _outside_vmem(instruction.arrays)
    if op == "dynamic-update-slice":
        return 2 * _outside_vmem(known[instruction.operands[1]].arrays)
    operands = (known[name] for name in set(instruction.operands))
    return _outside_vmem(instruction.arrays) + sum(_outside_vmem(x.arrays) for x in operands)


def _fusion_reads(body: Computation, fusion: Instruction, computation: Computation) -> float:
    """Bytes that a fusion reads: what its body uses of each operand outside VMEM."""
    users: dict[str, list[Instruction]] = {}
    for inner in body.instructions.values():
        for name in inner.operands:
            users.setdefault(name, []).append(inner)
    total = 0.0
    for inner in body.instructions.values():
        if inner.op == "parameter":
            operand = computation.instructions[fusion.operands[int(inner.arguments)]]
            if not any(array.in_vmem for array in operand.arrays):
                total += _used_bytes(inner, users)
    return total


def _fusion_writes(body: Computation, fusion: Instruction) -> float:
    """Bytes that a fusion writes: its results, or the slice of one that is updated in place."""
    roots = [body.instructions[body.root]]
    if roots[0].op == "tuple":
        roots = [body.instructions[name] for name in roots[0].operands]
    total = 0.0
    for root, result in zip(roots, fusion.arrays, strict=False):
        while root.op in ("bitcast", "copy", "reshape"):
            root = body.instructions[root.operands[0]]
        if root.op == "dynamic-update-slice":
            update = body.instructions[root.operands[1]].arrays[0]
            result = update._replace(in_vmem=result.in_vmem)
        total += _outside_vmem((result,))
    return total


def _used_bytes(value: Instruction, users: dict[str, list[Instruction]]) -> float:
    """Bytes read of a fusion's parameter: all of it, unless every use takes a slice."""
    size = sum(array.bytes for array in value.arrays)
    used = 0.0
    for user in users.get(value.name, []):
        if user.op in ("bitcast", "reshape"):
            used += _used_bytes(user, users)
        elif user.op in _SLICES and user.operands[0] == value.name:
            used += sum(array.bytes for array in user.arrays)
        elif user.op == "dynamic-update-slice" and user.operands[0] == value.name:
            continue
        else:
            return size
    return min(used, size)


def _outside_vmem(arrays: Iterable[Array]) -> float:
    return sum(array.bytes for array in arrays if not array.in_vmem)


def cycles(program: Program) -> float:
    """The TPU compiler's own estimate of the cycles a program takes; 0 where it notes none."""
    total = 0.0
    for _, instruction, times in program.executed():
        if noted := re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes):
            total += times * int(noted[1])
    return total
