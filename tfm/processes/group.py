"""What the processes of a run say to each other, so that all take the same way."""

import functools
import json
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from tfm.processes.watchdog import Watch

T = TypeVar("T")

_FOR_EVER = 7 * 24 * 3600 * 1000  # milliseconds; the watch ends what takes too long


class Group:
    """The processes of a run, as one of them sees them; all of them make the same calls.

    Attributes:
      index, count: this is number ``index`` of ``count``.
    """

    def __init__(
        self, index: int = 0, count: int = 1, client: Any = None, watch: Watch | None = None
    ) -> None:
        self.index, self.count = index, count
        self._client, self._watch, self._gathered = client, watch, 0

    @property
    def first(self) -> bool:
        """Whether this is process 0, which writes what is written once."""
        return self.index == 0

    def at(self, stage: str, times: float = 1.0) -> None:
        """Tells the watch what this process does now: see ``Watch.at``."""
        if self._watch is not None:
            self._watch.at(stage, times)

    def gather(self, value: Any) -> list[Any]:
        """What each process gives, in their order; waits for all of them, devices for nobody.

        Args:
          value: JSON-able.
        """
        if self.count == 1:
            return [value]
        self._gathered += 1
        name = f"tfm/gather/{self._gathered}"
        self._client.key_value_set(f"{name}/{self.index}", json.dumps(value))
        found = [
            json.loads(self._client.blocking_key_value_get(f"{name}/{i}", _FOR_EVER))
            for i in range(self.count)
        ]
        if self._gathered > 1:  # all are here, so nobody reads the last round's any more
            self._client.key_value_delete(f"tfm/gather/{self._gathered - 1}/{self.index}")
        return found

    def ask(
        self, numbers: Sequence[float], after: jax.Array
    ) -> tuple[jax.Array | np.ndarray, jax.Array]:
        """Numbers of all processes, by way of the devices: it may be asked with every update.

        Comes back at once, as any computation. XLA's runtime for CPUs can block for ever when two
        programs that communicate are under way, so one thing is made to follow from the other.

        Args:
          numbers: of this process.
          after: a scalar that every device holds; nothing is said before it is computed.

        Returns:
          float32 [devices, numbers], by the processes of the devices ([1, numbers] alone), and
          ``after``, for what has to come after it.
        """
        own = np.asarray([numbers], np.float32)
        if self.count == 1:
            return own, after
        mesh = after.sharding.mesh
        places = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        shape = (mesh.size, own.shape[1])
        spread = jax.make_array_from_callback(shape, places, lambda _: own)
        return _spreading(after.sharding)(spread, after)

    def in_turn(self, ahead: bool, make: Callable[[], T]) -> T:
        """What ``make`` gives: at first where ``ahead`` is true, then where it is made already."""
        made = make() if ahead else None
        self.gather(None)
        return made if ahead else make()

    def fills(self, folder: epath.Path) -> bool:
        """Whether this process has to fill the folder: the first of those that share it."""
        if self.count == 1:
            return True
        host = socket.gethostname()
        told = self.gather([host, self._seen(folder)])
        apart = [i for i, (name, seen) in enumerate(told) if name == host and not seen]
        return self.first or apart[:1] == [self.index]

    def check_shared(self, folder: epath.Path) -> None:
        """Raises ValueError unless all processes see the same folder."""
        seen = self.gather(self._seen(folder)) if self.count > 1 else []
        if blind := [i for i, sees in enumerate(seen) if not sees]:
            raise ValueError(
                f"{folder}: is another folder for process {', '.join(map(str, blind))} than for "
                "process 0; several hosts need one that they share: a network disk or a bucket "
                "(gs://BUCKET/...)"
            )

    def _seen(self, folder: epath.Path) -> bool:
        """Whether a file that process 0 puts there is there for this process, too."""
        name = self.gather(f".tfm-{secrets.token_hex(8)}" if self.first else None)[0]
        if self.first:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("")
        self.gather(None)
        seen = (folder / name).exists()
        self.gather(None)
        if self.first:
            (folder / name).unlink()
        return seen


ALONE = Group()
"""One process, which agrees with itself at no cost."""


@functools.cache
def _spreading(whole: NamedSharding) -> Callable:
    # A barrier, or the compiler would see that the second thing does not need the first.
    return jax.jit(lambda *both: jax.lax.optimization_barrier(both), out_shardings=(whole, whole))
