"""What to change when a configuration does not fit: other settings, the cheapest first.

Three things trade time for memory and leave the result alone: recomputing activations
(``model.remat``), more micro-batches (``train.accumulate``), and sharing weights and optimizer
state among chips (``mesh``).
"""

import dataclasses
import math
from collections.abc import Iterator

from tfm import config, params, sharding, transformer
from tfm.plan.topology import Chip, Topology

RECOMPUTED = {"none": 0.0, "dots": 0.0, "full": 1 / 3}
"""Products that a remat policy adds to a step's: all of the forward pass are a third of it."""

_ORDINARY = Chip("", 0, bandwidth=1e12, peak=2e14, ring=1e11)  # where figures are not known


def candidates(c: config.Config, topology: Topology, model_flops: float) -> list[config.Config]:
    """Settings that the sizes allow, by their expected time; the one given is left out."""
    chips = len(topology.devices)
    found = []
    for mesh in _meshes(c, topology):
        batch_parts = mesh.data * mesh.fsdp
        for accumulate in _powers(c.data.rows // batch_parts, c.train.accumulate):
            if c.data.rows % (batch_parts * accumulate):
                continue
            found += [_with(c, mesh, remat, accumulate) for remat in RECOMPUTED]
    known = topology.chip if topology.chip.peak else _ORDINARY
    mine = dataclasses.replace(c, mesh=sharding.resolve(c.mesh, chips))
    return sorted(
        (other for other in found if other != mine),
        key=lambda other: expected_seconds(other, known, model_flops),
    )


def least_bytes(c: config.Config, chips: int) -> tuple[float, float]:
    """Bytes that a chip holds at about the least: (state and gradients, activations kept)."""
    mesh, model = sharding.resolve(c.mesh, chips), c.model
    moments = {"adam": 2, "adamw": 2, "lion": 1, "adafactor": 0}[c.optimizer.name]
    own = params.count(transformer.declare(model)) / (mesh.fsdp * mesh.tensor)
    kept = _tokens(c, mesh) * _kept(model, c.data.target_length) / (mesh.tensor * mesh.sequence)
    return 4 * own * (2 + moments + bool(c.train.ema)), kept / c.train.accumulate


def needs_more(a: config.Config, b: config.Config) -> bool:
    """Whether ``a`` certainly takes no less memory than ``b``, on the same mesh."""
    order = list(RECOMPUTED)
    return (
        a.mesh == b.mesh
        and order.index(a.model.remat) <= order.index(b.model.remat)
        and a.train.accumulate <= b.train.accumulate
    )


def expected_seconds(c: config.Config, chip: Chip, model_flops: float) -> float:
    """A rough step time, good enough to say what to try first.

    Products at the peak rate; activations kept in memory and fetched again; for every micro-batch,
    gradients added up in memory, and weights that chips share made whole twice; gradients summed
    over the copies of the weights, once where there is nothing but copies; four sums of
    activations a layer where heads are shared.
    """
    mesh, model = c.mesh, c.model
    weights = params.count(transformer.declare(model))
    own = weights / (mesh.fsdp * mesh.tensor)
    compute = model_flops * (1 + RECOMPUTED[model.remat]) / math.prod(dataclasses.astuple(mesh))
    gradients = 2 * 4 * own * (1 - 1 / mesh.data)  # float32, all-reduced
    if mesh.fsdp * mesh.tensor * mesh.sequence > 1:
        gradients *= c.train.accumulate
    shared = 3 * 2 * weights / mesh.tensor * (1 - 1 / mesh.fsdp)  # bfloat16
    tokens = _tokens(c, mesh)
    sums = 4 * 2 * tokens * model.d_model * 2 * (1 - 1 / mesh.tensor)
    micro = 3 * 4 * own / chip.bandwidth + shared / chip.ring
    kept = tokens * _kept(model, c.data.target_length) / mesh.tensor
    return (
        compute / chip.peak
        + 2 * kept / chip.bandwidth
        + c.train.accumulate * micro
        + (gradients + sums) / chip.ring
    )


def _tokens(c: config.Config, mesh: sharding.Mesh) -> float:
    """Tokens of a chip's rows, times layers; a decoder's layer is one and a half."""
    return (
        c.data.rows
        / (mesh.data * mesh.fsdp)
        * (
            c.model.encoder_layers * c.data.source_length
            + 1.5 * c.model.decoder_layers * c.data.target_length
        )
    )


def _kept(model: transformer.Config, length: int) -> float:
    """Bytes that a layer keeps of a token for the backward pass (Korthikanti 2022, eq. 1, table 2).

    Without recomputation 34 D + 5 N T, of which the products' results are 2 (5 D + F).
    """
    if model.remat == "full":
        return 2 * model.d_model
    if model.remat == "dots":
        return 2 * (5 * model.d_model + model.d_ff)
    return 34 * model.d_model + 5 * model.heads * length


def changes(c: config.Config, new: config.Config) -> str:
    """The flags that turn one config into the other."""
    flags = [f"--{name} {value}" for name, _, value in config.differences(c, new)]
    return " ".join(flags) or "as it is"


def _meshes(c: config.Config, topology: Topology) -> Iterator[sharding.Mesh]:
    """The mesh asked for, weights shared among all chips, and heads shared among some of them.

    A TPU's memory holds rows of 128 numbers. Narrower parts of a weight the compiler does not
    collect or sum up as parts, but whole: then there are several copies of the weights (``data``),
    for the half of the parts too, as not every number of parts can be laid on a torus.
    """
    chips, width = len(topology.devices), 128 if topology.platform == "tpu" else 1
    asked = sharding.resolve(c.mesh, chips)
    seen = [asked]
    yield asked
    for tensor in (1, 2, 4, 8):
        if chips % tensor or not _divides(c.model, tensor):
            continue
        most = math.gcd(chips // tensor, c.model.d_model // width)
        for parts in (most, most // 2 or 1) if most < chips // tensor else (most,):
            mesh = sharding.Mesh(chips // tensor // parts, parts, tensor, 1)
            if mesh not in seen:
                seen.append(mesh)
                yield mesh


def _divides(model: transformer.Config, tensor: int) -> bool:
    sizes = (
        model.heads, model.kv_heads or model.heads, model.d_ff, model.source_vocab,
        model.target_vocab,
    )  # fmt: skip
    return all(size % tensor == 0 for size in sizes)


def _powers(most: int, least: int) -> list[int]:
    return [least * 2**i for i in range(10) if least * 2**i <= most]


def _with(c: config.Config, mesh: sharding.Mesh, remat: str, accumulate: int) -> config.Config:
    return dataclasses.replace(
        c,
        mesh=mesh,
        model=dataclasses.replace(c.model, remat=remat),
        train=dataclasses.replace(c.train, accumulate=accumulate),
    )
