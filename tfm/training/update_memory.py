"""Whether a run fits into memory: its state before it is made, its update before it runs."""

import math
from typing import Any

import jax

from tfm import memory


def require_state(abstract_state: Any) -> None:
    """Raises ValueError if weights, average and optimizer state need more memory than is free.

    Args:
      abstract_state: as of ``step.abstract_state``, with shardings.
    """
    leaves = jax.tree.leaves(abstract_state)
    size = sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)
    _require(
        size,
        leaves[0].sharding.addressable_devices,
        "the weights and the optimizer's state",
        "lower model.d_model, d_ff, head_dim, encoder_layers or decoder_layers, or "
        "tokenizer.source_size or target_size, or shard the weights by mesh.fsdp",
    )


def require_update(compiled: jax.stages.Compiled, devices: set[jax.Device]) -> None:
    """Raises ValueError if the compiled update needs more memory, beside the state, than is free.

    Args:
      devices: of this process.
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return
    new = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    _require(
        analysis.temp_size_in_bytes + new,
        devices,
        "activations and gradients",
        "lower data.rows, source_length or target_length, raise train.accumulate or set "
        "execution.remat",
    )


def _require(size: int, devices: set[jax.Device], what: str, advice: str) -> None:
    """Refuses ``size`` bytes on each of the devices if one of them has less."""
    device = next(iter(devices))
    available = memory.free(device)
    if device.platform == "cpu":  # all share the machine's memory
        size *= len(devices)
    if available is not None and size > available:
        raise ValueError(
            f"{what} need {memory.in_words(size)} of memory, where {memory.in_words(available)} "
            f"are free: {advice}"
        )
