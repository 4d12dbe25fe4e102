"""Who computes the attention of a model, on the devices and at the lengths it is run with."""

import jax

from tfm.attention import kernels
from tfm.sharding import NO_MESH, Layout
from tfm.transformer.config import Config, compute_dtype, head_width
from tfm.transformer.validate import needs


def implementation(
    c: Config,
    queries: int,
    keys: int,
    *,
    self_attention: bool = True,
    step: bool = False,
    training: bool = True,
    layout: Layout = NO_MESH,
) -> tuple[str, str]:
    """Who computes softmax attention over rows of this length, and why.

    Args:
      step: of cached decoding, which is always XLA's.
      training: with dropout.
      layout: whose mesh says for which devices; without one, JAX's default.

    Raises:
      ValueError: the one that ``c.implementation`` names cannot.
    """
    if step:
        return "xla", "a decoding step looks at a cache of hypotheses"
    return kernels.choose(
        c.implementation,
        needs=needs(c, self_attention=self_attention, training=training),
        platform=layout.mesh.devices.flat[0].platform if layout.mesh else jax.default_backend(),
        dtype=compute_dtype(c),
        head_dim=head_width(c),
        queries=queries,
        keys=keys,
    )


def in_a_ring(c: Config, *, self_attention: bool, training: bool, layout: Layout) -> bool:
    """Whether rows are cut over devices, and attention is one that the ring computes.

    What it lacks (biases, relative terms, dropout on weights; the other variants of attention)
    collects the keys of a row on every device instead, and keeps only its own queries' scores.
    """
    softmax = (c.attention if self_attention else c.cross_attention) == "softmax"
    able = needs(c, self_attention=self_attention, training=training) <= {"soft_cap"}
    return softmax and able and bool(layout.mesh_axes("length"))


def computed(c: Config, source_length: int, target_length: int, layout: Layout = NO_MESH) -> str:
    """Who computes each attention of a training update, and why, in one line.

    Raises:
      ValueError: the one that ``c.implementation`` names cannot.
    """
    S, T = source_length, target_length
    clauses: dict[str, list[str]] = {}
    for place, queries, keys in (("encoder", S, S), ("decoder", T, T), ("cross", T, S)):
        clause = _clause(c, queries, keys, place != "cross", layout)
        clauses.setdefault(clause, []).append(place)
    if len(clauses) == 1:
        return f"attention computed by {next(iter(clauses))}"
    return "attention computed: " + "; ".join(
        f"{' and '.join(places)} by {clause}" for clause, places in clauses.items()
    )


def _clause(c: Config, queries: int, keys: int, self_attention: bool, layout: Layout) -> str:
    variant = c.attention if self_attention else c.cross_attention
    if variant != "softmax":
        return f"xla: {variant} attention has no kernel"
    if in_a_ring(c, self_attention=self_attention, training=True, layout=layout):
        (axis,) = layout.mesh_axes("length")
        return f"a ring: rows are cut over {layout.mesh.shape[axis]} devices"
    name, why = implementation(c, queries, keys, self_attention=self_attention, layout=layout)
    return f"{name}: {why}"
