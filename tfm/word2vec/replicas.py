"""Replicas: several copies of the tables learn from different text, and what they learned is added.

One update is too small to be shared between devices: they would only wait for one another. So a
replica makes many by itself, and then every row becomes ``w + s Σᵣ (wᵣ − w)``. Of a row that was
met a few times only, the sum (s = 1) is what one copy would have learned from all of the text. One
that was met often has come to rest in every copy: the sum would go R times too far, and the mean
(s = 1/R) is right; see ``settled``. With sums alone, four replicas on 600,000 words grew without
end. Means alone learn too little: Spearman on SimLex-999 / WordSim-353 was 0.098 / 0.272, and 0.106
/ 0.317 with s between the two (cbow, two replicas, 6.3 M words, means of three seeds).
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
from tfm.word2vec import model, pace, step
from tfm.word2vec.huffman import Paths
from tfm.word2vec.model import Batch, Config

_MET = 6  # times that a replica meets a word of average frequency before changes are added up
_LENGTH = 1.0  # squared, of a vector that is met, as ``settled`` has it
_AXIS = "replicas"


def updates_alone(c: Config, vocab: int) -> int:
    """The updates each replica makes before changes are added up.

    Adding up costs what the tables are long, so the more words, the longer it may wait; and with
    few words, each would be met too often meanwhile.
    """
    return max(8, round(_MET * vocab / (model.tiles(c) * c.centres)))


def settled(c: Config, counts_V: np.ndarray, updates: int, paths: Paths | None) -> Tree:
    """s: what the sum of the replicas' changes to each row is multiplied by.

    Let every guess take a row a part κ of what is left of its way. After n guesses a replica has
    gone 1 − e^(−κn) of it, and one copy that read all of the text would have gone 1 − e^(−κRn). The
    ratio, s = (1 − e^(−κRn)) / R (1 − e^(−κn)), falls from 1 to 1/R. κ is the rate times the slope
    of the sigmoid, at most 1/4, times the squared length of the vector that is met.

    Args:
      updates: that each replica makes before changes are added up.

    Returns:
      By table, [V,1] float32.
    """
    pull = model.rate(c) * _LENGTH / 4
    if c.objective == "softmax":  # every word is met in every guess, by longer vectors
        pull *= 4
    pulls = {"input": pull, "output": pull}
    if c.method == "cbow" and c.combine == "mean" and c.tables == "two":
        pulls["input"] /= c.window + 1  # of so many words in the mean, each one's share
    paces, R = pace.paces(c, counts_V, paths), model.replicas(c)
    found = {}
    for name, guesses_V in pace.guesses(c, counts_V, paths).items():
        way_V = np.maximum(pulls[name] * updates * guesses_V * paces[name], 1e-6)
        found[name] = (np.expm1(-R * way_V) / (R * np.expm1(-way_V))).astype(np.float32)[:, None]
    return found


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
    c: Config,
    mesh: Mesh,
    tables: Tree,
    batches: Batch,
    paths: Paths | None,
    paces: Tree | None,
    shares: Tree,
) -> tuple[Tree, jax.Array]:
    """Every replica learns from its own batches, [R,M,...], one after the other.

    Args:
      shares: of ``settled``.

    Returns:
      The tables with all changes, and their loss a centre, now, on the first batch of the first
      replica, [] float32.
    """

    def on_a_device(
        tables: Tree, batches: Batch, paths: Paths | None, paces: Tree | None, shares: Tree
    ) -> Tree:
        def after(batches: Batch) -> Tree:
            return step.updates(c, tables, batches, paths, paces)

        def one_more(total: Tree, batches: Batch) -> tuple[Tree, None]:
            return jax.tree.map(jnp.add, total, after(batches)), None

        first = after(jax.tree.map(lambda x: x[0], batches))
        total, _ = jax.lax.scan(one_more, first, jax.tree.map(lambda x: x[1:], batches))
        total = jax.lax.psum(total, _AXIS)
        joined = lambda new, old, s: s * new + (1 - model.replicas(c) * s) * old  # noqa: E731
        return jax.tree.map(joined, total, tables, shares)

    whole = P()
    tables = jax.shard_map(
        on_a_device,
        mesh=mesh,
        in_specs=(whole, P(_AXIS), whole, whole, whole),
        out_specs=whole,
        check_vma=False,
    )(tables, batches, paths, paces, shares)
    return tables, step.loss(c, tables, jax.tree.map(lambda x: x[0, 0], batches), paths)
