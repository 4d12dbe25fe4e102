"""The loop: batches are cut on the host while the device works on those before."""

import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import jax
import numpy as np

from tfm import params
from tfm.params import Tree
from tfm.word2vec import corpus, huffman, model, pace, replicas
from tfm.word2vec.model import Config

_log = logging.getLogger(__name__)

Report = Callable[[float, float], None]

_WORST = 10  # times the first loss


def use_cores(c: Config) -> None:
    """Has JAX see a device for every replica on a CPU, as far as cores go, if it has not started.

    There are as many threads as replicas: an update is a hundred small operations, and more threads
    cost them more than they give (measured for one replica: 262 µs with one, 352 with two).
    """
    if jax.config.jax_num_cpu_devices > 0:
        return  # somebody has said how many
    os.environ.setdefault("NPROC", "1")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with suppress(RuntimeError):  # it has started: replicas share the devices there are
        jax.config.update("jax_num_cpu_devices", min(model.replicas(c), cores or 1))


def train(
    c: Config,
    stream: np.ndarray,
    vocabulary: corpus.Vocabulary,
    report: Report = lambda share, loss: None,
    devices: Sequence[jax.Device] = (),
) -> Tree:
    """Learns vectors from a stream of ids.

    The same seed gives the same vectors; not on a GPU, which adds up rows in any order.

    Args:
      stream: what ``corpus.write`` gave.
      report: told now and then the share of the work that is done, and the loss a centre.
      devices: those that replicas are spread over; by default all of this process.

    Returns:
      The tables: "input" [V,D] holds the vectors; "output" [V,D] those of words to be guessed, or
      of the tree's nodes.

    Raises:
      ValueError: frequent words were thinned out, and nothing was left.
      FloatingPointError: the loss grows without end.
    """
    mesh = replicas.spread(c, devices or jax.local_devices())
    device = mesh.devices.flat[0].platform
    _log.info(f"{model.replicas(c)} replica(s) on {mesh.size} {device} device(s)")
    paths = huffman.paths(vocabulary.counts_V) if c.objective == "hierarchical" else None
    tables = params.init(jax.random.key(c.seed), model.declare(c, len(vocabulary.words)))
    length = replicas.updates_alone(c, len(vocabulary.words))
    paces = pace.paces(c, vocabulary.counts_V, paths)
    shares = replicas.settled(c, vocabulary.counts_V, length, paths)
    tables, *others = replicas.place(mesh, (tables, paths, paces, shares))
    text = (
        (share, replicas.place_text(mesh, batches))
        for share, batches in corpus.batches(c, stream, vocabulary.counts_V, length)
    )
    losses = []
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, text, None)
        while (arrived := coming.result()) is not None:
            coming = pool.submit(next, text, None)
            share, batches = arrived
            tables, loss = replicas.learn(c, mesh, tables, batches, *others)
            losses.append(float(loss))  # waits: two sums in flight could wait for each other
            _check(losses, share)
            report(share, losses[-1])
    if not losses:
        raise ValueError(
            f"word vectors: no word of the text was left by subsample {c.subsample:g}; set it to 0 "
            "or add text"
        )
    return tables


def _check(losses: Sequence[float], share: float) -> None:
    """Losses fall; what overshoots multiplies, and stays a number for long."""
    if not losses[-1] < _WORST * max(losses[0], 1.0):
        raise FloatingPointError(
            f"word vectors: the loss was {losses[0]:.3g} and is {losses[-1]:.3g} after {share:.0%} "
            "of the work; lower the learning rate or the number of replicas"
        )
