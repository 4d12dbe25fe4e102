"""What computes the attention of a model: decided once for every context, from device and shape."""

from typing import Literal

import jax

from tfm.attention import kernels
from tfm.sharding import NO_MESH, Layout
from tfm.transformer.config import Architecture, Execution, compute_dtype, head_width
from tfm.transformer.validate import attention_needs

Kind = Literal["self", "cross", "step"]
Kernel = Literal["xla", "cudnn", "splash", "ring"]


def choose(
    arch: Architecture,
    execution: Execution,
    kind: Kind,
    queries: int,
    keys: int,
    *,
    training: bool = True,
    layout: Layout = NO_MESH,
) -> tuple[Kernel, str]:
    """What computes an attention of rows of this length, and a clause that says why.

    ``ring`` is ring attention over rows that are sharded by length. For what it lacks (biases,
    relative terms, dropout on weights; other variants of attention) the keys of a row are gathered
    on every device instead, and the queries stay sharded.

    Args:
      kind: of the attention. The step of cached decoding is always computed by XLA.
      training: with dropout.
      layout: whose mesh says for which devices; without one, JAX's default device.

    Raises:
      ValueError: ``execution.implementation`` names a kernel that cannot run here.
    """
    variant = arch.cross_attention if kind == "cross" else arch.attention
    if variant != "softmax":
        return "xla", f"{variant} attention has no kernel"
    if kind == "step":
        return "xla", "a decoding step attends to a KV cache of hypotheses"
    needs = attention_needs(arch, self_attention=kind == "self", training=training)
    if needs <= {"soft_cap"} and layout.mesh_axes("length"):
        (axis,) = layout.mesh_axes("length")
        return "ring", f"rows are sharded over {layout.mesh.shape[axis]} devices"
    return kernels.choose(
        execution.implementation,
        needs=needs,
        platform=layout.mesh.devices.flat[0].platform if layout.mesh else jax.default_backend(),
        dtype=compute_dtype(execution),
        head_dim=head_width(arch),
        queries=queries,
        keys=keys,
    )


def describe(
    arch: Architecture,
    execution: Execution,
    source_length: int,
    target_length: int,
    layout: Layout = NO_MESH,
) -> str:
    """What computes each attention of a training update, and why, in one line.

    Raises:
      ValueError: ``execution.implementation`` names a kernel that cannot run here.
    """
    S, T = source_length, target_length
    clauses: dict[str, list[str]] = {}
    rows: tuple[tuple[str, Kind, int, int], ...] = (
        ("encoder", "self", S, S),
        ("decoder", "self", T, T),
        ("cross", "cross", T, S),
    )
    for where, kind, queries, keys in rows:
        kernel, why = choose(arch, execution, kind, queries, keys, layout=layout)
        clauses.setdefault(f"{kernel}: {why}", []).append(where)
    if len(clauses) == 1:
        return f"attention computed by {next(iter(clauses))}"
    return "attention computed: " + "; ".join(
        f"{' and '.join(where)} by {clause}" for clause, where in clauses.items()
    )
