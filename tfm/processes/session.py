"""Connecting the processes of a run, and ending them together."""

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax._src import distributed  # the client has no public name yet; orbax uses this too

from tfm import signals, terminal
from tfm.processes.group import ALONE, Group
from tfm.processes.hosts import Hosts, Membership, find
from tfm.processes.watchdog import RESTART_HINT, Watchdog

_log = logging.getLogger(__name__)

# How the messages of XLA's errors begin when another process is gone; their types vary.
_LOST = re.compile("(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED)\\b")
_PLAIN = (ValueError, OSError, FloatingPointError, KeyboardInterrupt)


@contextmanager
def joined(hosts: Hosts) -> Iterator[Group]:
    """Connects the processes of this run; at the end of the block they wait for each other.

    If the block raises in one of them, or one of them dies or hangs, all end with a line that says
    why. Must be called before the first use of a device. A single process connects to nothing.

    Raises:
      ValueError: see ``find``.
    """
    membership = find(hosts)
    if membership is None:
        yield ALONE
        return
    watchdog = Watchdog(hosts.timeout, membership.process, membership.processes)
    try:
        group = _connect(hosts, membership, watchdog)
        yield group
        group.set_stage("waiting for the others to end", timeouts=10)
        group.gather(None)
    except BaseException as error:
        if watchdog.closed:  # this turned out to be a single process
            raise
        _end_all(watchdog, error)
    watchdog.close()


def _connect(hosts: Hosts, membership: Membership, watchdog: Watchdog) -> Group:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # JAX's own service would replace our SIGTERM handler, and handles no other signal.
    jax.config.update("jax_enable_preemption_service", False)
    if membership.processes and membership.process is not None:
        terminal.limit_log_to_primary(membership.process, membership.processes)
    count, address = membership.processes or "all", membership.coordinator
    watchdog.set_stage(f"waiting for {count} processes to connect to {address}")
    # Later than the watchdog: when JAX's own timeouts expire it aborts with a C++ stack trace.
    jax_timeout = math.ceil(hosts.timeout) + 30
    try:
        jax.distributed.initialize(
            **membership.arguments,
            initialization_timeout=jax_timeout,
            heartbeat_timeout_seconds=jax_timeout,
            shutdown_timeout_seconds=jax_timeout,
        )
    except RuntimeError as error:
        raise ConnectionError(f"cannot connect to {address}: {error}") from error
    except (OSError, ValueError) as error:
        if membership.processes is not None:
            raise
        _log.info(f"a single TPU machine: no other processes were found ({error})")
        watchdog.close()
        return ALONE
    state = distributed.global_state
    if state.num_processes == 1:
        watchdog.close()
        return ALONE
    terminal.limit_log_to_primary(state.process_id, state.num_processes)
    watchdog.connect(state.client, state.process_id, state.num_processes)
    _log.info(f"{state.num_processes} processes connected to {state.coordinator_address}")
    return Group(state.process_id, state.num_processes, state.client, watchdog)


def _end_all(watchdog: Watchdog, error: BaseException) -> None:
    """Ends all processes after an error in this one, which another process may have caused.

    After a signal all of them end with its exit code, for the run can be resumed.
    """
    if isinstance(error, signals.Stopped):
        watchdog.end(f"{error}; {RESTART_HINT}", code=error.exit_code)
    lost = _LOST.match(str(error))
    received = watchdog.reason_of_others() if lost else ""
    line = " ".join(str(error).split())[:1000] or type(error).__name__
    if lost:
        line = f"while {watchdog.stage}: {line} (another process may have died); {RESTART_HINT}"
    elif not isinstance(error, _PLAIN):
        _log.error("unexpected error:", exc_info=error)
    watchdog.end(f"error: {line}", received)
