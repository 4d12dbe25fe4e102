"""Replicas: copies of the tables that learn from different text in parallel and are then merged.

A single update is too small to be divided among devices, which would only wait for one another. So,
as in local SGD, each replica makes many updates of its own; then every row w is replaced by
``w + s Σᵣ (wᵣ − w)``. For a row that a replica used a few times only, the sum of the changes
(s = 1) is what one copy would have learned from all of the text. A row that was used often has
converged in every replica; there the sum would go R times too far, and the mean (s = 1/R) is right:
see ``merge_scales``. With sums alone, the tables of four replicas on 600,000 words diverged. Means
alone learn too little: Spearman on SimLex-999 / WordSim-353 was 0.098 / 0.272, and 0.106 / 0.317
with s between the two (cbow, two replicas, 6.3 M words, means of three seeds).

The number of replicas affects what is learned; the number of devices they run on does not.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tfm.params import Tree
from tfm.word2vec import model, step, step_scale
from tfm.word2vec.huffman import Paths
from tfm.word2vec.model import Batch, Config

_CENTRES_PER_WORD = 6  # How often an average word is a centre, for each replica, in a round.
_SQUARED_NORM = 1.0  # Of the vectors that a row is scored against, as ``merge_scales`` assumes.
_AXIS = "replicas"


def local_updates(config: Config, vocab: int) -> int:
    """Returns the number of updates M that each replica makes before the replicas are merged.

    A merge costs time in proportion to the vocabulary, so M grows with it. With a small vocabulary
    a larger M would use each word too often between merges.
    """
    return max(8, round(_CENTRES_PER_WORD * vocab / (model.tiles(config) * config.centres)))


def merge_scales(config: Config, counts_V: np.ndarray, updates: int, paths: Paths | None) -> Tree:
    """Returns s for each row, the factor of the summed changes of the replicas.

    Assume that each prediction moves a row by a fraction κ of its distance to the optimum. After n
    predictions a replica has covered 1 − e^(−κn) of the distance, and one copy that read all of the
    text would have covered 1 − e^(−κRn). Their ratio, s = (1 − e^(−κRn)) / R (1 − e^(−κn)), falls
    from 1 to 1/R as n grows. κ is the learning rate times the slope of the sigmoid, at most 1/4,
    times the squared norm of the vector that the row is scored against.

    Args:
      updates: number of updates of each replica between merges.

    Returns:
      By table, [V,1] float32.
    """
    kappa = model.learning_rate(config) * _SQUARED_NORM / 4
    if config.objective == "softmax":  # Every prediction uses every word, with longer vectors.
        kappa *= 4
    kappas = {"input": kappa, "output": kappa}
    if config.method == "cbow" and config.combine == "mean" and config.tables == "two":
        kappas["input"] /= config.window + 1  # The share of one context word in the mean.
    step_scales, R = step_scale.step_scales(config, counts_V, paths), model.replicas(config)
    scales = {}
    for name, uses_V in step_scale.expected_uses(config, counts_V, paths).items():
        exponent_V = np.maximum(kappas[name] * updates * uses_V * step_scales[name], 1e-6)
        ratio_V = np.expm1(-R * exponent_V) / (R * np.expm1(-exponent_V))
        scales[name] = ratio_V.astype(np.float32)[:, None]
    return scales


def make_mesh(config: Config, devices: Sequence[jax.Device]) -> Mesh:
    """Returns a mesh of as many devices as can hold the same number of replicas each."""
    count = max(n for n in range(1, len(devices) + 1) if model.replicas(config) % n == 0)
    return Mesh(np.array(devices[:count]), (_AXIS,))


def replicate(mesh: Mesh, tree: Tree) -> Tree:
    """Copies arrays that all replicas start from to every device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def shard_batches(mesh: Mesh, batches: Batch) -> Batch:
    """Puts the batches of each replica, [R,M,...], onto the device of that replica."""
    return jax.device_put(batches, NamedSharding(mesh, P(_AXIS)))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def train_round(
    config: Config,
    mesh: Mesh,
    tables: Tree,
    batches: Batch,
    paths: Paths | None,
    step_scales: Tree | None,
    merge_scales: Tree,
) -> tuple[Tree, jax.Array]:
    """Trains every replica on its own batches, [R,M,...] in order, and merges the replicas.

    Returns:
      The merged tables, and their loss for each centre on the first batch of the first replica,
      [] float32.
    """

    def train_and_merge(
        tables: Tree,
        batches: Batch,
        paths: Paths | None,
        step_scales: Tree | None,
        merge_scales: Tree,
    ) -> Tree:
        def train_one(batches: Batch) -> Tree:
            return step.updates(config, tables, batches, paths, step_scales)

        def add_one(total: Tree, batches: Batch) -> tuple[Tree, None]:
            return jax.tree.map(jnp.add, total, train_one(batches)), None

        def merge(total: jax.Array, old: jax.Array, s: jax.Array) -> jax.Array:
            return s * total + (1 - model.replicas(config) * s) * old

        first = train_one(jax.tree.map(lambda x: x[0], batches))
        total, _ = jax.lax.scan(add_one, first, jax.tree.map(lambda x: x[1:], batches))
        return jax.tree.map(merge, jax.lax.psum(total, _AXIS), tables, merge_scales)

    replicated = P()
    tables = jax.shard_map(
        train_and_merge,
        mesh=mesh,
        in_specs=(replicated, P(_AXIS), replicated, replicated, replicated),
        out_specs=replicated,
        check_vma=False,
    )(tables, batches, paths, step_scales, merge_scales)
    return tables, step.loss(config, tables, jax.tree.map(lambda x: x[0, 0], batches), paths)
