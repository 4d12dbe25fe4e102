"""A plan in words and figures."""

from collections import defaultdict
from collections.abc import Iterator

from tfm import params, transformer
from tfm.plan import candidates, roofline
from tfm.plan.compiled import Compiled
from tfm.plan.planning import Plan
from tfm.terminal import duration

_GIB = 2**30


def describe(plan: Plan, epoch_tokens: float = 0.0) -> str:
    """The plan as lines of text.

    Args:
      epoch_tokens: target tokens of one epoch, for its cost; 0 is not known.
    """
    return "\n".join(_lines(plan, epoch_tokens))


def _lines(plan: Plan, epoch_tokens: float) -> Iterator[str]:
    chip, count = plan.topology.chip, len(plan.topology.devices)
    weights = params.count(transformer.declare(plan.asked.model))
    yield f"{plan.topology.name}: {count} x {chip.name}, {chip.memory / _GIB:.1f} GiB each"
    yield f"{weights:,} parameters, activations in {plan.asked.model.dtype}"
    yield from (f"assumed: {line}" for line in plan.assumed)
    if plan.refused:
        yield from _refusal(plan)
    if plan.found is not None:
        yield from _amounts(plan.found, chip.memory)
        yield from _exchanges(plan.found)
        yield from _speed(plan, epoch_tokens)
    yield from _decoding(plan)


def _refusal(plan: Plan) -> Iterator[str]:
    yield f"DOES NOT FIT as configured: {plan.refused}"
    yield from (f"  nor {flags}: {reason}" for flags, reason in plan.tried)
    if plan.obstacle:
        yield f"nothing tried fits {plan.topology.name}; the largest obstacle: {plan.obstacle}"
    if plan.found is None:
        yield "take more chips, fewer rows (data.rows) or a smaller model"
        return
    flags = candidates.changes(plan.asked, plan.found.c)
    which = "a larger slice that fits" if plan.obstacle else "the cheapest that fits"
    yield f"{which}: --topology {plan.hardware.name} {flags}"


def _amounts(found: Compiled, available: int) -> Iterator[str]:
    mesh, c, m = found.mesh, found.c, found.memory
    yield (
        f"mesh data {mesh.data} x fsdp {mesh.fsdp} x tensor {mesh.tensor} x sequence "
        f"{mesh.sequence}; remat {c.model.remat}, accumulate {c.train.accumulate}, "
        f"{c.data.rows:,} rows of {c.data.source_length} + {c.data.target_length}; "
        f"compiled in {duration(found.seconds)}"
    )
    yield "a chip holds, in GiB"
    for name in ("parameters", "optimizer", "average", "temporary"):
        yield f"  {name:<12}{getattr(m, name) / _GIB:9.3f}"
    share = f", {m.total / available:.0%} of {available / _GIB:.1f}" if available else ""
    yield f"  {'total':<12}{m.total / _GIB:9.3f}{share}"
    yield (
        f"an update takes a chip {found.work.flops / 1e12:,.3f} TFLOP of matrix products "
        f"({found.model_flops / 1e12:,.3f} without recomputation) and moves "
        f"{found.work.moved / 1e9:,.1f} GB to and from its memory"
    )


def _exchanges(found: Compiled) -> Iterator[str]:
    """Collectives by kind, the largest of them against the largest parameter, and the logits."""
    if not found.collectives:
        yield "chips exchange nothing"
        return
    by_kind = defaultdict(list)
    for one in found.collectives:
        by_kind[one.kind].append(one)
    yield "chips exchange, an update"
    for kind, all_ in sorted(by_kind.items()):
        largest = max((one.largest for one in all_), key=lambda part: part.bytes)
        yield (
            f"  {kind:<19}{sum(one.times for one in all_):6} times, a chip sends "
            f"{sum(one.sent for one in all_) / 1e9:8.3f} GB; largest part {largest} "
            f"{largest.bytes / 1e6:.1f} MB"
        )
    largest = max(one.largest.bytes for one in found.collectives)
    than = "no larger" if largest <= found.largest_parameter else "LARGER"
    yield (
        f"  the largest part is {than} than a chip's largest part of a parameter, "
        f"{found.largest_parameter / 1e6:.1f} MB; logits exchanged: "
        + (", ".join(str(one.largest) for one in found.logits_gathered) or "none")
    )


def _speed(plan: Plan, epoch_tokens: float) -> Iterator[str]:
    found, chip = plan.found, plan.hardware.chip
    times = roofline.times(found.work, chip)
    if times is None:
        yield f"no time is predicted: no peak figures are known for {chip.name}"
        return
    tokens = found.c.data.rows * found.c.data.target_length

    def pace(seconds: float) -> str:
        share = roofline.share_of_peak(found.model_flops, chip, seconds)
        words = f"{share:.0%} of peak, {tokens / seconds:,.0f} target tokens/s"
        hours = epoch_tokens / tokens * seconds * found.chips / 3600
        return words + (f", {hours:,.1f} chip-hours an epoch" if epoch_tokens else "")

    yield (
        f"roofline: {times.step * 1e3:,.1f} ms an update by {times.limit} (computing "
        f"{times.compute * 1e3:,.1f}, memory {times.memory * 1e3:,.1f}, links "
        f"{times.links * 1e3:,.1f}); {pace(times.step)}"
    )
    if times.estimate:
        yield f"the compiler's own cycles: {times.estimate * 1e3:,.1f} ms; {pace(times.estimate)}"
    if not epoch_tokens:
        yield "cost of an epoch: say how many target tokens it has (--epoch-tokens)"


def _decoding(plan: Plan) -> Iterator[str]:
    """The search for translations, where it was planned."""
    found, chip, chips = plan.decoding, plan.topology.chip, len(plan.topology.devices)
    if plan.decoding_refused:
        yield (
            "translating DOES NOT FIT, for every chip has a copy of the weights: "
            + plan.decoding_refused
        )
    if found is None:
        return
    share = f", {found.total / chip.memory:.0%} of {chip.memory / _GIB:.1f}" if chip.memory else ""
    yield (
        f"translating, a chip by itself with a copy of the weights: {found.sentences} sentences of "
        f"{found.length} pieces, beam {found.beam}, up to {found.steps} tokens; compiled in "
        f"{duration(found.seconds)}"
    )
    yield (
        f"  a chip holds {found.total / _GIB:.3f} GiB{share}, of which weights "
        f"{found.weights / _GIB:.3f}"
    )
    for what, work in (("the sentences are read", found.start), ("a token step", found.step)):
        yield (
            f"  {what}: {work.flops / 1e9:,.1f} GFLOP, {work.moved / 1e9:,.2f} GB moved"
            + _pace(roofline.times(work, chip))
        )
    start, step = roofline.times(found.start, chip), roofline.times(found.step, chip)
    if step is not None:
        seconds = start.step + found.length * step.step
        yield (
            f"  {found.sentences * chips * found.length / seconds:,.0f} tokens/s on {chips} chips "
            f"by roofline, translations as long as their sources"
        )


def _pace(times: roofline.Times | None) -> str:
    if times is None:
        return ""
    estimate = f"; by the compiler's cycles {times.estimate * 1e3:,.2f}" if times.estimate else ""
    return f"; roofline {times.step * 1e3:,.2f} ms by {times.limit}{estimate}"
