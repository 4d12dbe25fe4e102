"""Communication between the processes of a run, so that all of them decide alike."""

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

from tfm.processes.watchdog import Watchdog

T = TypeVar("T")

_NO_TIMEOUT = 7 * 24 * 3600 * 1000  # milliseconds; the watchdog ends what takes too long


class Group:
    """The processes of a run, as seen by one of them; all must make the same calls.

    Attributes:
      index, count: this is process ``index`` of ``count``.
    """

    def __init__(
        self, index: int = 0, count: int = 1, client: Any = None, watchdog: Watchdog | None = None
    ) -> None:
        self.index, self.count = index, count
        self._client, self._watchdog, self._gathered = client, watchdog, 0

    @property
    def is_primary(self) -> bool:
        """Whether this is process 0, which writes what is written once a run."""
        return self.index == 0

    def set_stage(self, stage: str, timeouts: float = 1.0) -> None:
        """Reports to the watchdog what this process does from now on; see its ``set_stage``."""
        if self._watchdog is not None:
            self._watchdog.set_stage(stage, timeouts)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by index, through the coordination service.

        Waits for all processes, but not for devices.

        Args:
          value: this process's, JSON-able.
        """
        if self.count == 1:
            return [value]
        self._gathered += 1
        name = f"tfm/gather/{self._gathered}"
        self._client.key_value_set(f"{name}/{self.index}", json.dumps(value))
        values = [
            json.loads(self._client.blocking_key_value_get(f"{name}/{i}", _NO_TIMEOUT))
            for i in range(self.count)
        ]
        if self._gathered > 1:  # all processes are here, so all have read the previous values
            self._client.key_value_delete(f"tfm/gather/{self._gathered - 1}/{self.index}")
        return values

    def all_gather(
        self, numbers: Sequence[float], after: jax.Array
    ) -> tuple[jax.Array | np.ndarray, jax.Array]:
        """The numbers of all processes, through the devices; cheap enough for every update.

        Returns at once, as any JAX computation. XLA's runtime for CPUs can deadlock when two
        programs that communicate run at the same time, hence ``after``: it orders this program
        between the one that computes it and the one that uses what is returned for it.

        Args:
          numbers: of this process.
          after: a scalar that is replicated over all devices.

        Returns:
          float32 [devices, numbers], a row for each device with its process's numbers
          ([1, numbers] for a single process); and ``after``.
        """
        own = np.asarray([numbers], np.float32)
        if self.count == 1:
            return own, after
        sharding: Any = after.sharding
        mesh = sharding.mesh
        by_device = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        shape = (mesh.size, own.shape[1])
        sharded = jax.make_array_from_callback(shape, by_device, lambda _: own)
        return _replicate_in_order(after.sharding)(sharded, after)

    def primary_first(self, primary: bool, make: Callable[[], T]) -> T:
        """The result of ``make``, called where ``primary`` is true, then in the other processes."""
        if primary:
            made = make()
            self.gather(None)
            return made
        self.gather(None)
        return make()

    def is_primary_for(self, folder: epath.Path) -> bool:
        """Whether this process is the one to fill a folder: the first of those that share it."""
        if self.count == 1:
            return True
        host = socket.gethostname()
        answers = self.gather([host, self._shares_with_primary(folder)])
        unshared = [i for i, (name, shares) in enumerate(answers) if name == host and not shares]
        return self.is_primary or unshared[:1] == [self.index]

    def check_shared(self, folder: epath.Path) -> None:
        """Raises ValueError unless all processes see the same folder."""
        shares = self.gather(self._shares_with_primary(folder)) if self.count > 1 else []
        if others := [i for i, same in enumerate(shares) if not same]:
            raise ValueError(
                f"{folder}: is another folder for process {', '.join(map(str, others))} than for "
                "process 0; several hosts need a shared folder: on a network disk or in a bucket "
                "(gs://BUCKET/...)"
            )

    def _shares_with_primary(self, folder: epath.Path) -> bool:
        """Whether this process sees a file that process 0 creates in the folder."""
        name = self.gather(f".tfm-{secrets.token_hex(8)}" if self.is_primary else None)[0]
        if self.is_primary:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("")
        self.gather(None)
        seen = (folder / name).exists()
        self.gather(None)
        if self.is_primary:
            (folder / name).unlink()
        return seen


ALONE = Group()
"""A single process, for which communication costs nothing."""


@functools.cache
def _replicate_in_order(replicated: NamedSharding) -> Callable:
    # Without the barrier the compiler would see that the second output does not need the first.
    return jax.jit(
        lambda *both: jax.lax.optimization_barrier(both), out_shardings=(replicated, replicated)
    )
