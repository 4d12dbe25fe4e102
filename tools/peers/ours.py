"""tfm's side: the update of the training loop, and the beam search of the translator."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from peers.measure import Side, warm_up
from peers.shapes import Shape, decoding_flops, training_flops
from tfm import config, params, sharding, transformer, translator
from tfm.data.tokenizer import EOS
from tfm.training import optimizer, step
from tfm.transformer import Batch
from tfm.transformer.config import Weights
from tfm.translator import buckets

MATRIX = "matrix product (jax)"


def experiment(shape: Shape, inner_dropout: float = 0.0) -> config.Config:
    """tfm's defaults at this size.

    Args:
      inner_dropout: on attention weights and inside the feed-forward.
    """
    arch = transformer.Architecture(
        source_vocab=shape.vocab,
        target_vocab=shape.vocab,
        d_model=shape.width,
        heads=shape.heads,
        d_ff=shape.d_ff,
        encoder_layers=shape.layers,
        decoder_layers=shape.layers,
        dropout=0.1,
        attention_dropout=inner_dropout,
        activation_dropout=inner_dropout,
    )
    data = config.Data(rows=shape.batch, source_length=shape.length, target_length=shape.length)
    train = config.Train(label_smoothing=0.1)
    return config.Config(model=arch, data=data, train=train, mesh=sharding.Mesh(data=1))


class Updates:
    """A training state and its compiled update on the experiment's mesh, as in the loop."""

    def __init__(self, experiment: config.Config, batch: Batch) -> None:
        rule = optimizer.make(experiment.optimizer, transformer.declare(experiment.model))
        self._layout = sharding.Layout(sharding.make(experiment.mesh))
        abstract = step.abstract_state(experiment, rule, self._layout)
        shardings = jax.tree.map(lambda x: x.sharding, abstract)
        init = functools.partial(step.init_state, experiment, rule)
        self._state = jax.jit(init, out_shardings=shardings)()
        update = step.jit_update(experiment, rule, self._layout)
        self.compiled, self.compile_seconds = _compile(update, self._state, self._shard(batch))

    def __call__(self, batch: Batch) -> step.Metrics:
        """Runs one update and waits for it."""
        self._state, metrics = self.compiled(self._state, self._shard(batch))
        return jax.block_until_ready(metrics)

    def _shard(self, batch: Batch) -> Batch:
        return jax.tree.map(lambda x: self._layout.put(x, "batch", "length"), batch)


def training(shape: Shape, batch: Batch, inner_dropout: float) -> Side:
    """Updates on one batch."""
    updates = Updates(experiment(shape, inner_dropout), batch)
    warm_up(lambda: updates(batch))
    return Side(
        "tfm",
        lambda: updates(batch),
        updates.compile_seconds,
        shape.batch * shape.length,
        training_flops(shape),
        MATRIX,
    )


def decoding(shape: Shape, source_BS: np.ndarray, beam: int, kind: Weights = "auto") -> Side:
    """Encoding and beam search of exactly ``length`` tokens, padded as the translator pads.

    The eos row of the output table is set to zero: its logit of 0 is never among the best of the
    thousands of random ones, so no hypothesis ends before its limit.
    """
    arch = experiment(shape).model
    decode = config.Decode(
        beam_size=beam,
        max_length_factor=0.0,
        max_length_offset=shape.length,
        batch_size=len(source_BS),
    )
    weights = params.init(jax.random.key(0), transformer.declare(arch))
    output = transformer.table_names(arch)[2]
    weights["tables"][output] = weights["tables"][output].at[EOS].set(0.0)
    padded_BS = buckets.pad(source_BS.tolist(), len(source_BS), buckets.length(shape.length, 512))
    execution = transformer.Execution(weights=kind)
    weights = transformer.inference_params(weights, arch, execution)
    search = functools.partial(translator.search, arch=arch, decode=decode, execution=execution)
    search, compile_seconds = _compile(jax.jit(search), weights, padded_BS)

    def run() -> None:
        found = jax.block_until_ready(search(weights, padded_BS))
        if not (np.asarray(found.lengths) == shape.length).all():
            raise RuntimeError(
                "decode: a hypothesis of tfm ended before the limit, so the sides do unequal work"
            )

    warm_up(run)
    tokens = shape.batch * shape.length
    name = "tfm" if kind == "auto" else f"tfm {kind}"
    return Side(name, run, compile_seconds, tokens, decoding_flops(shape, beam), MATRIX)


def matrix_product(m: int, k: int, n: int) -> Side:
    """A plain product [m,k] @ [k,n] in tfm's compute dtype."""
    dtype = transformer.compute_dtype(transformer.Execution())
    a, b = jnp.ones((m, k), dtype), jnp.ones((k, n), dtype)
    product = jax.jit(jnp.matmul)
    run = lambda: jax.block_until_ready(product(a, b))  # noqa: E731
    warm_up(run)
    return Side(MATRIX, run, 0.0, 0, 2.0 * m * k * n)


def _compile(f: Callable, *arguments: Any) -> tuple[Callable, float]:
    start = time.perf_counter()
    compiled = f.lower(*arguments).compile()
    return compiled, time.perf_counter() - start
