"""The loop: batches are cut on the host while the device works on those before."""

import logging
import math
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


def use_cores(c: Config) -> None:
    """Has JAX see a device for every replica on a CPU, as far as cores go, if it has not started.

    A replica keeps to one thread: an update is a hundred small operations, and more threads cost
    them more than they give (measured: 262 µs with one, 352 with two).
    """
    os.environ.setdefault("NPROC", "1")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if jax.config.jax_num_cpu_devices > 0:
        return  # somebody has said how many
    with suppress(RuntimeError):  # it has started: replicas share the devices there are
        jax.config.update("jax_num_cpu_devices", min(model.replicas(c), cores or 1))


def train(
    c: Config,
    stream: np.ndarray,
    vocabulary: corpus.Vocabulary,
    report: Report = lambda share, loss: None,
    devices: Sequence[jax.Device] = (),
) -> Tree:
    """Learns vectors from a stream of ids; the same seed gives the same vectors.

    Args:
      stream: what ``corpus.write`` gave.
      report: told now and then the share of the work that is done, and the loss a centre.
      devices: those that replicas are spread over; by default all of this process.

    Returns:
      The tables: "input" [V,D] holds the vectors; "output" [V,D] those of words to be guessed, or
      of the tree's nodes.

    Raises:
      FloatingPointError: the loss is no number any more.
    """
    mesh = replicas.spread(c, devices or jax.local_devices())
    device = mesh.devices.flat[0].platform
    _log.info(f"{model.replicas(c)} replica(s) on {mesh.size} {device} device(s)")
    paths = huffman.paths(vocabulary.counts_V) if c.objective == "hierarchical" else None
    tables = params.init(jax.random.key(c.seed), model.declare(c, len(vocabulary.words)))
    paces = pace.paces(c, vocabulary.counts_V, paths)
    tables, paths, paces = replicas.place(mesh, (tables, paths, paces))
    length = replicas.updates_alone(c, len(vocabulary.words))
    text = (
        (share, replicas.place_text(mesh, batches))
        for share, batches in corpus.batches(c, stream, vocabulary.counts_V, length)
    )
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, text, None)
        while (arrived := coming.result()) is not None:
            coming = pool.submit(next, text, None)
            share, batches = arrived
            tables, loss = replicas.learn(c, mesh, tables, batches, paths, paces)
            _check(float(loss), share)  # waits: two sums in flight could wait for each other
            report(share, float(loss))
    report(1.0, float(loss))
    return tables


def _check(loss: float, share: float) -> None:
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"word vectors: the loss is {loss} after {share:.0%} of the work; "
            "lower the learning rate"
        )
