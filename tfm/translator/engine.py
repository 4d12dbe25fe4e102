"""Continuous batching: sentences enter and leave a search while it goes on.

A search has a fixed number of slots, a sentence each. Sentences that are done leave, waiting ones
take their slots, and no slot waits for the slowest sentence of a batch (Orca, Yu 2022, §4). Three
programs are compiled for a bucket of lengths: ``start`` encodes a few sentences,
``insert`` puts them into free slots, ``advance`` goes on until some are done. When none wait,
``keep`` moves the last sentences into a quarter of the slots.

What is found of a sentence is what ``programs.search`` finds: a slot computes with no other.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tfm import decoding
from tfm.attention import linear
from tfm.decoding import Decode, Hypotheses
from tfm.sharding import NO_MESH, Layout
from tfm.transformer import Architecture, Cache, Execution
from tfm.translator import programs

Compile = Callable[..., Callable]  # (name, program, *arrays, donate=..., **static) → compiled


class Progress(NamedTuple):
    """What ``advance`` gives.

    Attributes:
      state: of the search.
      done: [B] bool, sentences that were under way and are done.
      hypotheses: of all slots.
    """

    state: Any
    done: jax.Array
    hypotheses: Hypotheses


def start(
    params: Any,
    source_BS: jax.Array,
    seeds_B: jax.Array | None = None,
    *,
    arch: Architecture,
    decode: Decode,
    execution: Execution = Execution(),
    layout: Layout = NO_MESH,
) -> Any:
    """``programs.start``, sharded as the other programs leave a state."""
    state = programs.start(
        params, source_BS, seeds_B, arch=arch, decode=decode, execution=execution, layout=layout
    )
    return _sharded(state, layout)


def advance(
    params: Any,
    state: Any,
    active_B: jax.Array,
    wanted: jax.Array,
    *,
    arch: Architecture,
    decode: Decode,
    execution: Execution = Execution(),
    layout: Layout = NO_MESH,
) -> Progress:
    """Goes on until so many sentences are done.

    Args:
      active_B: bool, the slots that hold a sentence under way.
      wanted: how many sentences must be done; at most as many as are active.
    """
    strategy = decoding.STRATEGIES[decode.search]

    def done(state: Any) -> jax.Array:
        running = strategy.running(state)
        return active_B & ~running.reshape(running.shape[0], -1).any(axis=1)

    def step(state: Any) -> Any:
        state = programs.advance(
            params, state, arch=arch, decode=decode, execution=execution, layout=layout
        )
        # A free slot goes on; its positions stay within the cache and the model's.
        return _map_caches(state, _within)

    state = jax.lax.while_loop(lambda state: done(state).sum() < wanted, step, state)
    found = done(state), strategy.finish(state)
    everywhere = lambda x: layout.constrain(x, *[None] * x.ndim)  # noqa: E731
    return Progress(_sharded(state, layout), *jax.tree.map(everywhere, found))


def insert(
    params: Any, state: Any, fresh: Any, slots_P: jax.Array, *, layout: Layout = NO_MESH
) -> Any:
    """The state with sentences that ``programs.start`` prepared in some of its slots.

    Args:
      params: not used.
      fresh: from ``start``: the state of P sentences before their first token.
      slots_P: where they go; a number beyond the slots for one that is padding.
    """
    del params
    put = lambda old, new: old.at[slots_P].set(new, mode="drop") if old.ndim else old  # noqa: E731

    def put_cache(old: Cache, new: Cache) -> Cache:
        merged = jax.tree.map(put, old, new)
        if isinstance(old.self_attention[0], linear.State):
            return merged
        # What the slots of a KV cache hold is not seen by a sentence that begins.
        return dataclasses.replace(merged, self_attention=old.self_attention)

    merged = jax.tree.map(
        lambda old, new: put_cache(old, new) if isinstance(old, Cache) else put(old, new),
        state,
        fresh,
        is_leaf=_is_cache,
    )
    return _sharded(merged, layout)


def keep(params: Any, state: Any, slots_P: jax.Array, *, layout: Layout = NO_MESH) -> Any:
    """The state of some slots alone, of P instead of B."""
    del params
    return _sharded(jax.tree.map(lambda x: x[slots_P] if x.ndim else x, state), layout)


class Engine:
    """The compiled programs of one bucket, and the slots that they work on.

    Attributes:
      slots, group, fewer: how many sentences are searched together, enter at a time, and are left
        when the last ones move into fewer slots.
    """

    def __init__(
        self,
        compile: Compile,
        params: Any,
        decode: Decode,
        *,
        slots: int,
        multiple: int = 1,
        put: Callable[[np.ndarray], Any] = jnp.asarray,
    ) -> None:
        """Compiles nothing yet.

        Args:
          compile: gives a program compiled for the arrays that it is called with.
          slots: sentences that are searched together.
          multiple: numbers of sentences on the devices are multiples of this; so is ``slots``.
          put: a host array → one on the devices, sharded as rows of a batch.
        """
        self._compile, self._params, self._put, self._decode = compile, params, put, decode
        self.slots = slots
        self.group, self.fewer = (
            multiple * -(-slots // (multiple * share)) for share in (_GROUP, _FEWER)
        )

    def translate(self, arrays: Sequence[np.ndarray]) -> Iterator[tuple[int, Hypotheses]]:
        """The hypotheses of sentences, in the order in which they are done.

        Args:
          arrays: source ids [n,S] and, for a strategy that draws, seeds [n].
        """
        waiting = deque(range(len(arrays[0])))
        first = [waiting.popleft() for _ in range(min(len(waiting), self.slots))]
        state, holds = self._start(arrays, first, self.slots), np.full(self.slots, -1)
        holds[: len(first)] = first
        while (active := holds >= 0).any():
            last = 0 if len(holds) == self.fewer else self.fewer
            wanted = self.group if waiting else active.sum() - last
            state, done, found = self._advance(state, active, np.clip(wanted, 1, active.sum()))
            for slot in np.flatnonzero(done):
                yield int(holds[slot]), Hypotheses(*(x[slot] for x in found))
            holds[done] = -1
            while waiting and (holds < 0).any():
                free = np.flatnonzero(holds < 0)[: min(self.group, len(waiting))]
                chosen = [waiting.popleft() for _ in free]
                state = self._insert(state, self._start(arrays, chosen, self.group), free)
                holds[free] = chosen
            if not waiting and 0 < (holds >= 0).sum() <= last:
                left = np.argsort(holds < 0, kind="stable")[:last]
                state, holds = self._keep(state, left), holds[left]

    def warm_up(self, arrays: Sequence[np.ndarray]) -> None:
        """Compiles all programs for sentences like these."""
        none = np.array([], np.int32)
        state = self._start(arrays, none, self.slots)
        state, *_ = self._advance(state, np.zeros(self.slots, bool), 0)
        state = self._insert(state, self._start(arrays, none, self.group), none)
        state = self._keep(state, np.arange(self.fewer))
        self._advance(state, np.zeros(self.fewer, bool), 0)

    def _start(self, arrays: Sequence[np.ndarray], chosen: Sequence[int], size: int) -> Any:
        given = [self._put(rows(x, chosen, size)) for x in arrays]
        return self._compile("start", start, *given, decode=self._decode)(self._params, *given)

    def _advance(
        self, state: Any, active_B: np.ndarray, wanted: int
    ) -> tuple[Any, np.ndarray, Hypotheses]:
        given = self._put(active_B), np.int32(wanted)
        run = self._compile("advance", advance, state, *given, decode=self._decode, donate=1)
        state, done, hypotheses = run(self._params, state, *given)
        return state, np.asarray(done), Hypotheses(*map(np.asarray, hypotheses))

    def _insert(self, state: Any, fresh: Any, free: np.ndarray) -> Any:
        slots = np.full(self.group, self.slots, np.int32)
        slots[: len(free)] = free
        run = self._compile("insert", insert, state, fresh, slots, donate=1)
        return run(self._params, state, fresh, slots)

    def _keep(self, state: Any, left: np.ndarray) -> Any:
        slots = left.astype(np.int32)
        return self._compile("keep", keep, state, slots)(self._params, state, slots)


# Sentences enter an eighth of the slots at a time: fewer encode slower, more wait longer. The last
# ones move into a quarter of the slots.
_GROUP, _FEWER = 8, 4


def rows(x: np.ndarray, chosen: Sequence[int], size: int) -> np.ndarray:
    """The chosen rows, and zeros up to ``size``."""
    padded = np.zeros((size, *x.shape[1:]), x.dtype)
    padded[: len(chosen)] = x[list(chosen)]
    return padded


def _within(cache: Cache) -> Cache:
    last = cache.ancestors.shape[2] - 1
    return dataclasses.replace(cache, step=jnp.minimum(cache.step, last))


def _sharded(state: Any, layout: Layout) -> Any:
    """The state with sentences, and the heads of caches, sharded over the mesh."""

    def constrain(path: tuple, x: jax.Array) -> jax.Array:
        in_cache = any(getattr(key, "name", "").endswith("_attention") for key in path)
        names = ("batch", "kv_heads" if in_cache else None)[: x.ndim]
        return layout.constrain(x, *names, *[None] * (x.ndim - len(names)))

    return state if layout.mesh is None else jax.tree_util.tree_map_with_path(constrain, state)


def _is_cache(x: Any) -> bool:
    return isinstance(x, Cache)


def _map_caches(state: Any, f: Callable[[Cache], Cache]) -> Any:
    return jax.tree.map(lambda x: f(x) if _is_cache(x) else x, state, is_leaf=_is_cache)
