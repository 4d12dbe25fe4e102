"""The training loop: the host prepares batches while the devices work on the previous ones."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import jax
import numpy as np

from tfm import params, ranges
from tfm.params import Tree
from tfm.word2vec import corpus, huffman, model, replicas, step_scale
from tfm.word2vec.model import Config

_log = logging.getLogger(__name__)

Report = Callable[[float, float], None]

_MAX_GROWTH = 10  # Training has diverged once the loss exceeds so many times the first loss.


def use_cores(config: Config) -> None:
    """Gives JAX a CPU device for every replica, up to the number of cores, before JAX starts.

    XLA is limited to as many threads as there are replicas: an update consists of a hundred small
    operations, which more threads slow down (measured for one replica: 262 µs with one thread, 352
    with two). Nothing changes if JAX has started or the number of its CPU devices was set.
    """
    if jax.config.jax_num_cpu_devices > 0:  # type: ignore[attr-defined]
        return
    os.environ.setdefault("NPROC", "1")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with suppress(RuntimeError):  # JAX has started: the replicas share its devices.
        jax.config.update("jax_num_cpu_devices", min(model.replicas(config), cores or 1))


def train(
    config: Config,
    stream: np.ndarray,
    vocabulary: corpus.Vocabulary,
    report: Report = lambda done, loss: None,
    devices: Sequence[jax.Device] = (),
) -> Tree:
    """Learns vectors from a stream of ids.

    The same seed gives the same vectors, except on a GPU, which adds rows in no fixed order.

    Args:
      stream: as ``corpus.write`` returned it.
      report: called after each round with the fraction of the work done and the loss per centre.
      devices: where the replicas run; by default all devices of this process.

    Returns:
      The tables: "input" [V,D] has the vectors; "output" [V,D] has those of words as targets, or
      of the tree's nodes.

    Raises:
      ValueError: a setting is out of range, or subsampling left no word of the text.
      FloatingPointError: training diverges.
    """
    ranges.check(config)
    mesh = replicas.make_mesh(config, devices or jax.local_devices())
    device = mesh.devices.flat[0].platform
    _log.info(f"{model.replicas(config)} replica(s) on {mesh.size} {device} device(s)")
    counts_V = vocabulary.counts_V
    paths = huffman.paths(counts_V) if config.objective == "hierarchical" else None
    tables = params.init(jax.random.key(config.seed), model.declare(config, len(counts_V)))
    updates = replicas.local_updates(config, len(counts_V))
    step_scales = step_scale.step_scales(config, counts_V, paths)
    merge_scales = replicas.merge_scales(config, counts_V, updates, paths)
    tables, *others = replicas.replicate(mesh, (tables, paths, step_scales, merge_scales))
    rounds = (
        (done, replicas.shard_batches(mesh, batches))
        for done, batches in corpus.batches(config, stream, counts_V, updates)
    )
    losses = []
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(next, rounds, None)
        while (current := pending.result()) is not None:
            pending = pool.submit(next, rounds, None)
            done, batches = current
            tables, loss = replicas.train_round(config, mesh, tables, batches, *others)
            # Reading the loss waits for the round: the collectives of two rounds could deadlock.
            losses.append(float(loss))
            _check_convergence(losses, done)
            report(done, losses[-1])
    if not losses:
        raise ValueError(
            f"word vectors: no word of the text was left by subsample {config.subsample:g}; set it "
            "to 0 or add text"
        )
    return tables


def _check_convergence(losses: Sequence[float], done: float) -> None:
    """Raises FloatingPointError once the loss has grown too far, long before it is infinite."""
    if not losses[-1] < _MAX_GROWTH * max(losses[0], 1.0):
        raise FloatingPointError(
            f"word vectors: the loss was {losses[0]:.3g} and is {losses[-1]:.3g} after {done:.0%} "
            "of the work; lower the learning rate or the number of replicas"
        )
