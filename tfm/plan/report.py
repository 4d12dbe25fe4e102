"""A plan as lines of text."""

from collections import defaultdict
from collections.abc import Iterator

from tfm import params, transformer
from tfm.plan import candidates, roofline
from tfm.plan.compiled import Compiled
from tfm.plan.decoding import Decoding
from tfm.plan.planning import Plan
from tfm.plan.topology import GIB, Chip, Topology
from tfm.terminal import duration


def describe(plan: Plan, epoch_tokens: float = 0.0) -> str:
    """The plan as lines of text.

    Args:
      epoch_tokens: target tokens of one epoch, for its cost; 0 if unknown.
    """
    return "\n".join(_lines(plan, epoch_tokens))


def _lines(plan: Plan, epoch_tokens: float) -> Iterator[str]:
    chip, chips = plan.topology.chip, len(plan.topology.devices)
    weights = params.count(transformer.declare(plan.asked.model))
    yield f"{plan.topology.name}: {chips} x {chip.name}, {chip.memory / GIB:.1f} GiB each"
    yield f"{weights:,} parameters, activations in {plan.asked.execution.dtype}"
    yield from (f"assumed: {line}" for line in plan.assumed)
    if plan.refused:
        yield from _refusal(plan)
    if plan.found is not None:
        yield from _memory(plan.found, chip.memory)
        yield from _collectives(plan.found)
        yield from _speed(plan.found, plan.hardware.chip, epoch_tokens)
    if plan.decoding_refused:
        yield f"decoding DOES NOT FIT, {plan.decoding_refused}"
    if plan.decoding is not None:
        yield from _decoding(plan.decoding, plan.hardware)


def _refusal(plan: Plan) -> Iterator[str]:
    yield f"DOES NOT FIT as configured: {plan.refused}"
    yield from (f"  nor {flags}: {reason}" for flags, reason in plan.tried)
    if plan.obstacle:
        yield f"nothing tried fits {plan.topology.name}; the largest obstacle: {plan.obstacle}"
    if plan.found is None:
        yield "take more chips, fewer rows (data.rows) or a smaller model"
        return
    flags = candidates.flags(plan.asked, plan.found.experiment)
    which = "a larger slice that fits" if plan.obstacle else "the fastest that fits"
    yield f"{which}: --topology {plan.hardware.name} {flags}"


def _memory(found: Compiled, available: int) -> Iterator[str]:
    mesh, experiment, memory, work = found.mesh, found.experiment, found.memory, found.work
    yield (
        f"mesh data {mesh.data} x fsdp {mesh.fsdp} x tensor {mesh.tensor} x sequence "
        f"{mesh.sequence}; remat {experiment.execution.remat}, accumulate "
        f"{experiment.train.accumulate}, {experiment.data.rows:,} rows of "
        f"{experiment.data.source_length} + {experiment.data.target_length}; "
        f"compiled in {duration(found.seconds)}"
    )
    yield "memory of a chip, in GiB"
    for name in ("parameters", "optimizer", "average", "temporary"):
        yield f"  {name:<12}{getattr(memory, name) / GIB:9.3f}"
    yield f"  {'total':<12}{memory.total / GIB:9.3f}{_share(memory.total, available)}"
    yield (
        f"an update on a chip: {work.flops / 1e12:,.3f} TFLOP of matrix products "
        f"({found.model_flops / 1e12:,.3f} without recomputation), "
        f"{work.memory_bytes / 1e9:,.1f} GB to and from its memory"
    )


def _share(total: float, available: int) -> str:
    return f", {total / available:.0%} of {available / GIB:.1f}" if available else ""


def _collectives(found: Compiled) -> Iterator[str]:
    """A line for each kind, the largest shard against the largest parameter's, and the logits."""
    if not found.collectives:
        yield "no collectives"
        return
    by_kind = defaultdict(list)
    for collective in found.collectives:
        by_kind[collective.kind].append(collective)
    yield "collectives of an update"
    for kind, same in sorted(by_kind.items()):
        largest = max((collective.largest for collective in same), key=lambda shard: shard.bytes)
        yield (
            f"  {kind:<19}{sum(collective.times for collective in same):6} times, a chip sends "
            f"{sum(collective.sent_bytes for collective in same) / 1e9:8.3f} GB; "
            f"largest shard {largest} {largest.bytes / 1e6:.1f} MB"
        )
    most = max(collective.largest.bytes for collective in found.collectives)
    than = "no larger" if most <= found.largest_parameter else "LARGER"
    yield (
        f"  the largest shard is {than} than the largest shard of a parameter, "
        f"{found.largest_parameter / 1e6:.1f} MB; logits exchanged: "
        + (", ".join(str(collective.largest) for collective in found.logits_exchanged) or "none")
    )


def _speed(found: Compiled, chip: Chip, epoch_tokens: float) -> Iterator[str]:
    times = roofline.times(found.work, chip)
    if times is None:
        yield f"no time is predicted: no peak figures are known for {chip.name}"
        return
    tokens = found.experiment.data.rows * found.experiment.data.target_length

    def pace(seconds: float) -> str:
        share = roofline.utilization(found.model_flops, chip, seconds)
        words = f"{share:.0%} of peak, {tokens / seconds:,.0f} target tokens/s"
        hours = epoch_tokens / tokens * seconds * found.chips / 3600
        return words + (f", {hours:,.1f} chip-hours an epoch" if epoch_tokens else "")

    yield (
        f"roofline: {times.bound * 1e3:,.1f} ms an update, bound by {times.bottleneck} (compute "
        f"{times.compute * 1e3:,.1f}, memory {times.memory * 1e3:,.1f}, interconnect "
        f"{times.interconnect * 1e3:,.1f}); {pace(times.bound)}"
    )
    if times.compiler:
        yield f"by the compiler's cycles: {times.compiler * 1e3:,.1f} ms; {pace(times.compiler)}"
    if not epoch_tokens:
        yield "for the cost of an epoch, give its number of target tokens (--epoch-tokens)"


def _decoding(found: Decoding, hardware: Topology) -> Iterator[str]:
    chip, mesh = hardware.chip, found.mesh
    how, batches = "each chip by itself with all weights", len(hardware.devices)
    if mesh is not None:
        how, batches = f"data {mesh.data} x fsdp {mesh.fsdp} x tensor {mesh.tensor} chips", 1
    yield (
        f"decoding, {how}: {found.sentences} sentences of "
        f"{found.length} pieces, beam {found.beam}, up to {found.max_tokens} tokens; compiled in "
        f"{duration(found.seconds)}"
    )
    yield (
        f"  memory of a chip {found.total / GIB:.3f} GiB{_share(found.total, chip.memory)}, "
        f"of which weights {found.weights / GIB:.3f}"
    )
    prefill, step = roofline.times(found.prefill, chip), roofline.times(found.step, chip)
    for what, work, times in (
        ("encoding the sentences", found.prefill, prefill),
        ("a step of one token", found.step, step),
    ):
        yield (
            f"  {what}: {work.flops / 1e9:,.1f} GFLOP, {work.memory_bytes / 1e9:,.2f} GB to and "
            f"from memory, {work.sent_bytes / 1e6:,.2f} MB sent{_step_time(times)}"
        )
    if prefill is not None and step is not None:
        seconds = prefill.bound + found.length * step.bound
        yield (
            f"  {found.sentences * batches * found.length / seconds:,.0f} tokens/s on "
            f"{len(hardware.devices)} chips by roofline, if translations are as long as their "
            "sources"
        )


def _step_time(times: roofline.Times | None) -> str:
    if times is None:
        return ""
    compiler = f"; by the compiler's cycles {times.compiler * 1e3:,.2f}" if times.compiler else ""
    return f"; roofline {times.bound * 1e3:,.2f} ms, bound by {times.bottleneck}{compiler}"
