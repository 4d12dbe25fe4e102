"""The programs of a model, compiled once for each shape, on one device or a mesh."""

import dataclasses
import functools
import inspect
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from tfm import signals, transformer
from tfm.decoding import Constraints, Decode, Hypotheses
from tfm.params import Tree
from tfm.sharding import NO_MESH, Layout
from tfm.transformer import Execution
from tfm.translator import engine, programs
from tfm.translator.programs import Models

_log = logging.getLogger(__name__)


class CompiledPrograms:
    """What is compiled for an architecture, whatever its weights are.

    Attributes:
      arch: of the model, or of each model of an ensemble.
      execution: of the model.
      layout: the mesh that weights and sentences are sharded over, if any.
      by_shape: the programs, by name, shapes and static arguments.
      compile_seconds: spent on compilation so far.
    """

    def __init__(
        self,
        arch: Models,
        execution: Execution,
        layout: Layout = NO_MESH,
        replicate: bool = False,
    ) -> None:
        """Compiles nothing yet.

        Args:
          layout: of training; ``prepare`` takes weights that are sharded as it says.
          replicate: gives every device of the mesh all weights; see
            ``transformer.inference_layout``.
        """
        self.arch, self.execution = arch, execution
        self._trained_layout = layout
        self.layout = transformer.inference_layout(layout, replicate)
        prepare = functools.partial(transformer.inference_params, arch=arch, execution=execution)
        self._prepare: Callable[[Tree], Tree] = prepare
        if layout.mesh is not None:
            everywhere = self.layout.sharding((), ()) if replicate else None
            self._prepare = jax.jit(prepare, out_shardings=everywhere)
        self.by_shape: dict[tuple, Callable] = {}
        self.compile_seconds = 0.0

    def prepare(self, params: Tree) -> Tree:
        """The weights as inference reads them, on the devices of the mesh."""
        layout = self._trained_layout
        on_host = all(isinstance(x, np.ndarray) for x in jax.tree.leaves(params))
        if layout.mesh is not None and on_host:
            placed = layout.abstract_like(params, transformer.declare(self.arch))
            params = jax.tree.map(lambda x, like: _distribute(x, like.sharding), params, placed)
        return self._prepare(params)

    def search(
        self,
        params: Tree,
        arrays: Sequence[np.ndarray],
        slots: int,
        decode: Decode,
        constraints: Callable[[Sequence[int]], Constraints] | None = None,
    ) -> Iterator[tuple[int, Hypotheses]]:
        """The hypotheses of each row: all at once, or if they are more than the slots in turn.

        Args:
          arrays: source ids [n,S] and, for a strategy that draws, seeds [n].
          slots: sentences that are searched together.
          constraints: gives those of the chosen rows, padded to ``slots``. The engine takes none:
            their vocabulary-wide parts belong to no slot.
        """
        count = len(arrays[0])
        if count > slots and constraints is None:
            yield from self._engine(params, slots, decode).translate(arrays)
            return
        for start in range(0, count, slots):
            chosen = range(start, min(start + slots, count))
            given: list[Any] = [self._put(engine.rows(x, chosen, slots)) for x in arrays]
            if constraints is not None:
                seeds = given[1] if given[1:] else None
                given = [given[0], seeds, constraints(chosen)]
            run = self.compile(params, "search", programs.search, *given, decode=decode)
            found = Hypotheses(*map(np.asarray, run(params, *given)))
            for row, i in enumerate(chosen):
                yield i, Hypotheses(*(x[row] for x in found))

    def compile_search(
        self, params: Tree, decode: Decode, sentences: int, source_tokens: int
    ) -> None:
        """Compiles the search of so many padded sentences."""
        arrays = map(self._put, _no_sentences(decode, sentences, source_tokens))
        self.compile(params, "search", programs.search, *arrays, decode=decode)

    def warm_up_engine(self, params: Tree, decode: Decode, slots: int, source_tokens: int) -> None:
        """Compiles what a search of more sentences than slots needs."""
        self._engine(params, slots, decode).warm_up(_no_sentences(decode, 1, source_tokens))

    def compile(
        self,
        params: Tree,
        name: str,
        program: Callable,
        *arrays: Any,
        donate: int | tuple[()] = (),
        **static: Any,
    ) -> Callable:
        """A program of (params, *arrays) compiled for these shapes, once; logs how long it took.

        Args:
          donate: the argument whose memory the result may take.
        """
        if "decode" in static:  # what the guard does is no part of a program
            static["decode"] = dataclasses.replace(static["decode"], guard="off")
        shapes = [x.shape for x in jax.tree.leaves(arrays)]
        key = (name, jax.tree.structure(arrays), *shapes, *static.values())
        if key not in self.by_shape:
            start = time.perf_counter()
            static |= {"arch": self.arch, "execution": self.execution, "layout": self.layout}
            known = inspect.signature(program).parameters
            f = functools.partial(program, **{k: v for k, v in static.items() if k in known})
            lowered = jax.jit(f, donate_argnums=donate).lower(params, *arrays)
            self.by_shape[key] = signals.interruptible(lowered.compile)
            seconds = time.perf_counter() - start
            self.compile_seconds += seconds
            _log.info(
                "compiled %s for %s in %.1f s (shape %d)",
                name,
                " and ".join(
                    "x".join(map(str, x.shape)) for x in arrays if getattr(x, "shape", ())
                ),
                seconds,
                len(self.by_shape),
            )
        return self.by_shape[key]

    def _engine(self, params: Tree, slots: int, decode: Decode) -> engine.Engine:
        """Continuous batching over so many slots."""
        return engine.Engine(
            functools.partial(self.compile, params),
            params,
            decode,
            slots=slots,
            multiple=self.layout.axis_size("batch"),
            put=self._put,
        )

    def _put(self, x: np.ndarray) -> jax.Array | np.ndarray:
        """An array of rows, which every process has, sharded over the mesh."""
        if self.layout.mesh is None:
            return x
        names = ("batch", *[None] * (x.ndim - 1))
        return _distribute(x, self.layout.sharding(names, x.shape))


def _no_sentences(decode: Decode, count: int, source_tokens: int) -> list[np.ndarray]:
    """The arrays of a search, empty."""
    arrays = [np.zeros((count, source_tokens), np.int32)]
    return [*arrays, np.zeros(count, np.uint32)] if decode.search == "sample" else arrays


def _distribute(x: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """An array of the host, which every process has, sharded over a mesh."""
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
