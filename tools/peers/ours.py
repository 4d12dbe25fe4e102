"""tfm's side: the update that the training loop runs, the search that the translator runs."""

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
from tfm.translator import buckets

MATRIX = "matrix product (jax)"


def settings(shape: Shape, inner_dropout: float = 0.0) -> config.Config:
    """tfm's defaults at this size."""
    model = transformer.Config(
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
    rows = config.Data(rows=shape.batch, source_length=shape.length, target_length=shape.length)
    train = config.Train(label_smoothing=0.1)
    return config.Config(model=model, data=rows, train=train, mesh=sharding.Mesh(data=1))


class Updates:
    """A training state and its compiled update on the config's mesh, as the loop has them."""

    def __init__(self, c: config.Config, batch: dict[str, np.ndarray]) -> None:
        rule = optimizer.make(c.optimizer, transformer.declare(c.model))
        self._layout = sharding.Layout(sharding.make(c.mesh))
        places = jax.tree.map(lambda x: x.sharding, step.abstract_state(c, rule, self._layout))
        init = functools.partial(step.init_state, c, rule)
        self._state = jax.jit(init, out_shardings=places)()
        update = step.jit_update(c, rule, self._layout)
        self.compiled, self.compile_seconds = _compile(update, self._state, self._spread(batch))

    def __call__(self, batch: dict[str, np.ndarray]) -> step.Metrics:
        """One update, waited for."""
        self._state, metrics = self.compiled(self._state, self._spread(batch))
        return jax.block_until_ready(metrics)

    def _spread(self, batch: dict[str, np.ndarray]) -> step.Batch:
        return {name: self._layout.put(x, "batch", "length") for name, x in batch.items()}


def training(shape: Shape, batch: dict[str, np.ndarray], inner_dropout: float) -> Side:
    """Updates on one batch."""
    updates = Updates(settings(shape, inner_dropout), batch)
    warm_up(lambda: updates(batch))
    return Side(
        "tfm",
        lambda: updates(batch),
        updates.compile_seconds,
        shape.batch * shape.length,
        training_flops(shape),
        MATRIX,
    )


def decoding(shape: Shape, source_BS: np.ndarray, beam: int) -> Side:
    """Encoding and beam search, padded as the translator pads; ``length`` tokens are forced.

    The eos row of the output table is zero: its logit, 0 among the random thousands, is never among
    the first, so that no hypothesis ends before its limit.
    """
    c = settings(shape).model
    decode = config.Decode(
        beam_size=beam,
        max_length_factor=0.0,
        max_length_offset=shape.length,
        batch_size=len(source_BS),
    )
    weights = params.init(jax.random.key(0), transformer.declare(c))
    output = transformer.table_names(c)[2]
    weights["tables"][output] = weights["tables"][output].at[EOS].set(0.0)
    padded_BS = buckets.pad(source_BS.tolist(), len(source_BS), buckets.length(shape.length, 512))
    search = jax.jit(functools.partial(translator.search, c=c, settings=decode))
    search, compile_seconds = _compile(search, weights, padded_BS)

    def run() -> None:
        found = jax.block_until_ready(search(weights, padded_BS))
        if not (np.asarray(found.lengths) == shape.length).all():
            raise RuntimeError("decode: a hypothesis of tfm ended early; the sides are not equal")

    warm_up(run)
    tokens = shape.batch * shape.length
    return Side("tfm", run, compile_seconds, tokens, decoding_flops(shape, beam), MATRIX)


def matrix_product(m: int, k: int, n: int) -> Side:
    """A bare product [m,k] @ [k,n] in the dtype that tfm computes in."""
    dtype = transformer.compute_dtype(transformer.Config())
    a, b = jnp.ones((m, k), dtype), jnp.ones((k, n), dtype)
    product = jax.jit(jnp.matmul)
    run = lambda: jax.block_until_ready(product(a, b))  # noqa: E731
    warm_up(run)
    return Side(MATRIX, run, 0.0, 0, 2.0 * m * k * n)


def _compile(f: Callable, *arguments: Any) -> tuple[Callable, float]:
    start = time.perf_counter()
    compiled = f.lower(*arguments).compile()
    return compiled, time.perf_counter() - start
