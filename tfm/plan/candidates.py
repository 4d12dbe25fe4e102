"""Other settings to try where a configuration does not fit, the fastest first.

Three settings trade time for memory and leave the result unchanged: recomputing activations in the
backward pass (``execution.remat``), splitting an update into more micro-batches
(``train.accumulate``), and sharding weights and optimizer state over more chips (``mesh``).
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

from tfm import config, params, sharding, transformer
from tfm.plan.topology import Chip, Topology

Remat = Literal["none", "dots", "full"]

RECOMPUTED: dict[Remat, float] = {"none": 0.0, "dots": 0.0, "full": 1 / 3}
"""FLOPs that a remat policy adds to an update's: "full" repeats the forward pass, a third of it."""

_TYPICAL = Chip("", 0, bandwidth=1e12, peak_flops=2e14, ring_bandwidth=1e11)
"""Stands in for a chip whose figures are unknown, to order the candidates."""


def candidates(
    experiment: config.Config, topology: Topology, model_flops: float
) -> list[config.Config]:
    """The settings that the sizes allow, by expected time; without the experiment's own.

    Args:
      model_flops: of an update, on all chips together.
    """
    found = []
    for mesh in _meshes(experiment, topology):
        batch_shards = mesh.data * mesh.fsdp
        for accumulate in _doublings(
            experiment.train.accumulate, experiment.data.rows // batch_shards
        ):
            if experiment.data.rows % (batch_shards * accumulate) == 0:
                found += [_with(experiment, mesh, remat, accumulate) for remat in RECOMPUTED]
    chip = topology.chip if topology.chip.peak_flops else _TYPICAL
    resolved = sharding.resolve(experiment.mesh, len(topology.devices))
    own = dataclasses.replace(experiment, mesh=resolved)
    return sorted(
        (other for other in found if other != own),
        key=lambda other: expected_seconds(other, chip, model_flops),
    )


def least_bytes(experiment: config.Config, chips: int) -> tuple[float, float]:
    """About the least memory that a chip needs: (state and gradients, saved activations)."""
    mesh, arch = sharding.resolve(experiment.mesh, chips), experiment.model
    moments = {"adam": 2, "adamw": 2, "lion": 1, "adafactor": 0}[experiment.optimizer.name]
    sharded = params.count(transformer.declare(arch)) / (mesh.fsdp * mesh.tensor)
    copies = 2 + moments + bool(experiment.train.ema)  # weights and gradients are two of them
    saved = _layer_tokens(experiment, mesh) * _saved_bytes(experiment)
    saved /= mesh.tensor * mesh.sequence
    return 4 * sharded * copies, saved / experiment.train.accumulate


def needs_no_less(a: config.Config, b: config.Config) -> bool:
    """Whether ``a`` certainly takes as much memory as ``b`` or more: same mesh, less saved."""
    order = list(RECOMPUTED)
    return (
        a.mesh == b.mesh
        and order.index(a.execution.remat) <= order.index(b.execution.remat)
        and a.train.accumulate <= b.train.accumulate
    )


def expected_seconds(experiment: config.Config, chip: Chip, model_flops: float) -> float:
    """A rough time of an update, good enough to order the candidates.

    It adds up: matrix products at the peak rate; activations written and read again; per
    micro-batch, the accumulation of gradients and three exchanges of what ``fsdp`` shards (the
    weights gathered forward and backward, the gradients reduced; Rajbhandari 2020); the all-reduce
    of gradients over ``data``, once per update where that is the mesh's only axis, else per
    micro-batch; four all-reduces of activations per layer over ``tensor``.
    """
    mesh, arch = experiment.mesh, experiment.model
    weights = params.count(transformer.declare(arch))
    sharded = weights / (mesh.fsdp * mesh.tensor)
    recomputed = RECOMPUTED[experiment.execution.remat]
    compute = model_flops * (1 + recomputed) / math.prod(dataclasses.astuple(mesh))
    gradients = 2 * 4 * sharded * (1 - 1 / mesh.data)  # float32
    if mesh.fsdp * mesh.tensor * mesh.sequence > 1:
        gradients *= experiment.train.accumulate
    gathered = 3 * 2 * weights / mesh.tensor * (1 - 1 / mesh.fsdp)  # bfloat16
    tokens = _layer_tokens(experiment, mesh)
    activations = 4 * 2 * tokens * arch.d_model * 2 * (1 - 1 / mesh.tensor)
    micro_batch = 3 * 4 * sharded / chip.bandwidth + gathered / chip.ring_bandwidth
    saved = tokens * _saved_bytes(experiment) / mesh.tensor
    return (
        compute / chip.peak_flops
        + 2 * saved / chip.bandwidth
        + experiment.train.accumulate * micro_batch
        + (gradients + activations) / chip.ring_bandwidth
    )


def _layer_tokens(experiment: config.Config, mesh: sharding.Mesh) -> float:
    """Tokens of one chip's rows times layers; a decoder layer counts as one and a half."""
    arch, data = experiment.model, experiment.data
    encoder = arch.encoder_layers * data.source_length
    decoder = 1.5 * arch.decoder_layers * data.target_length
    return data.rows / (mesh.data * mesh.fsdp) * (encoder + decoder)


def _saved_bytes(experiment: config.Config) -> float:
    """Bytes per token that a layer saves for the backward pass (Korthikanti 2022, eq. 1, table 2).

    Without recomputation 34 D + 5 N T, of which the products' results are 2 (5 D + F).
    """
    arch, remat = experiment.model, experiment.execution.remat
    if remat == "full":
        return 2 * arch.d_model
    if remat == "dots":
        return 2 * (5 * arch.d_model + arch.d_ff)
    return 34 * arch.d_model + 5 * arch.heads * experiment.data.target_length


def flags(experiment: config.Config, other: config.Config) -> str:
    """The command-line flags that turn one config into the other."""
    found = [f"--{name} {value}" for name, _, value in config.differences(experiment, other)]
    return " ".join(found) or "as it is"


def _meshes(experiment: config.Config, topology: Topology) -> Iterator[sharding.Mesh]:
    """The experiment's mesh, ``fsdp`` over all chips, and with ``tensor`` over 2, 4 or 8 of them.

    A TPU stores arrays in rows of 128 numbers. The compiler neither gathers nor reduces narrower
    shards of a weight as shards, but replicates the weight. So ``fsdp`` goes no further, and
    ``data`` takes the rest of the chips; half as many shards are tried too, since not every mesh
    fits a torus.
    """
    chips, lanes = len(topology.devices), 128 if topology.platform == "tpu" else 1
    own = sharding.resolve(experiment.mesh, chips)
    seen = [own]
    yield own
    for tensor in (1, 2, 4, 8):
        if chips % tensor or not _divides(experiment.model, tensor):
            continue
        most = math.gcd(chips // tensor, experiment.model.d_model // lanes)
        for shards in (most, most // 2 or 1) if most < chips // tensor else (most,):
            mesh = sharding.Mesh(chips // tensor // shards, shards, tensor, 1)
            if mesh not in seen:
                seen.append(mesh)
                yield mesh


def _divides(arch: transformer.Architecture, tensor: int) -> bool:
    """Whether every size that ``tensor`` shards is a multiple of it."""
    sizes = (
        arch.heads, arch.kv_heads or arch.heads, arch.d_ff, arch.source_vocab, arch.target_vocab,
    )  # fmt: skip
    return all(size % tensor == 0 for size in sizes)


def _doublings(start: int, limit: int) -> list[int]:
    """``start``, twice that and so on, up to ``limit`` and ten numbers at most."""
    return [start * 2**i for i in range(10) if start * 2**i <= limit]


def _with(
    experiment: config.Config, mesh: sharding.Mesh, remat: Remat, accumulate: int
) -> config.Config:
    return dataclasses.replace(
        experiment,
        mesh=mesh,
        execution=dataclasses.replace(experiment.execution, remat=remat),
        train=dataclasses.replace(experiment.train, accumulate=accumulate),
    )
