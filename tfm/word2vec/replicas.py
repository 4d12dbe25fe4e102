"""Replicas: several copies of the tables learn from different text, and what they learned is added.

One update is too small to be shared between devices: they would only wait for one another. So a
replica makes many by itself, and then ``W ← W + Σᵣ (Wᵣ − W)``. As long as most words were met a few
times only, that is what one copy would have learned from all of the text; the mean of the copies
would be what it learns from a share. On 6.3 M words, two replicas, 100 wide, Spearman on SimLex-999
/ WordSim-353 was 0.126 / 0.295 with the sum, 0.098 / 0.272 with the mean, and with one copy 0.119 /
0.295; adding up four times less often it fell to 0.093 / 0.291 (cbow, means of three seeds).
How many replicas there are decides what is learned; on how many devices they are does not.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from tfm.params import Tree
from tfm.word2vec import model, step
from tfm.word2vec.huffman import Paths
from tfm.word2vec.model import Batch, Config

_MET = 4  # times that a replica meets a word of average frequency before changes are added up
_AXIS = "replicas"


def updates_alone(c: Config, vocab: int) -> int:
    """The updates each replica makes before changes are added up.

    Adding up costs what the tables are long, so the more words, the longer it may wait; and with
    few words, each would be met too often meanwhile.
    """
    return max(8, round(_MET * vocab / (c.tiles * c.centres)))


def spread(c: Config, devices: Sequence[jax.Device]) -> Mesh:
    """As many of the devices as can have the same number of replicas each."""
    count = max(n for n in range(1, len(devices) + 1) if model.replicas(c) % n == 0)
    return Mesh(np.array(devices[:count]), (_AXIS,))


def place(mesh: Mesh, tables: Tree) -> Tree:
    """Tables, or anything else that all replicas start from, on all devices."""
    return jax.device_put(tables, NamedSharding(mesh, P()))


def place_text(mesh: Mesh, batches: Batch) -> Batch:
    """Every replica's batches, [R,M,...], where it is."""
    return jax.device_put(batches, NamedSharding(mesh, P(_AXIS)))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def learn(
    c: Config, mesh: Mesh, tables: Tree, batches: Batch, paths: Paths | None, paces: Tree | None
) -> tuple[Tree, jax.Array]:
    """Every replica learns from its own batches, [R,M,...], one after the other.

    Returns:
      The tables with all changes, and their loss a centre, now, on the first batch of the first
      replica, [] float32.
    """

    def on_a_device(tables: Tree, batches: Batch, paths: Paths | None, paces: Tree | None) -> Tree:
        def after(batches: Batch) -> Tree:
            return step.updates(c, tables, batches, paths, paces)

        def one_more(total: Tree, batches: Batch) -> tuple[Tree, None]:
            return jax.tree.map(jnp.add, total, after(batches)), None

        first = after(jax.tree.map(lambda x: x[0], batches))
        total, _ = jax.lax.scan(one_more, first, jax.tree.map(lambda x: x[1:], batches))
        total = jax.lax.psum(total, _AXIS)
        return jax.tree.map(lambda new, old: new - (model.replicas(c) - 1) * old, total, tables)

    tables = jax.shard_map(
        on_a_device, mesh=mesh, in_specs=(P(), P(_AXIS), P(), P()), out_specs=P(), check_vma=False
    )(tables, batches, paths, paces)
    return tables, step.loss(c, tables, jax.tree.map(lambda x: x[0, 0], batches), paths)
