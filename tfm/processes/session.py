"""From the first word between the processes of a run to the last."""

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from jax._src import distributed  # the client has no public name yet; orbax takes it from here too

from tfm import terminal
from tfm.processes.group import ALONE, Group
from tfm.processes.hosts import Hosts, Place, find
from tfm.processes.watchdog import AGAIN, Watch

_log = logging.getLogger(__name__)

# What XLA raises, as an error of this kind or that, when another process is gone.
_LOST = re.compile("(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED)\\b")
_PLAIN = (ValueError, OSError, FloatingPointError, KeyboardInterrupt)


@contextmanager
def joined(hosts: Hosts) -> Iterator[Group]:
    """The processes of this run, joined; when the block ends they wait for each other.

    If the block fails in one of them, or one of them dies or hangs, all end with a line that says
    why. Must come before the first use of a device. Alone, it does nothing.

    Raises:
      ValueError: see ``find``.
    """
    place = find(hosts)
    if place is None:
        yield ALONE
        return
    watch = Watch(hosts.timeout, place.process, place.processes)
    try:
        group = _join(hosts, place, watch)
        yield group
        group.at("waiting for the others to end", 10)
        group.gather(None)
    except BaseException as error:
        if watch.closed:  # alone, after all
            raise
        _end(watch, error)
    watch.close()


def _join(hosts: Hosts, place: Place, watch: Watch) -> Group:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM from us, and knows no other reason to stop than that.
    jax.config.update("jax_enable_preemption_service", False)
    if place.processes:
        terminal.speak_for(place.process, place.processes)
    watch.at(f"waiting for {place.processes or 'all'} processes to meet at {place.coordinator}")
    # Of what it notices itself JAX aborts the process, with a stack of C++: it comes second.
    patience = math.ceil(hosts.timeout) + 30
    try:
        jax.distributed.initialize(
            **place.arguments,
            initialization_timeout=patience,
            heartbeat_timeout_seconds=patience,
            shutdown_timeout_seconds=patience,
        )
    except RuntimeError as error:
        raise ConnectionError(f"no meeting at {place.coordinator}: {error}") from error
    except (OSError, ValueError) as error:
        if place.processes is not None:
            raise
        _log.info(f"one TPU machine, by itself: nothing tells of others ({error})")
        watch.close()
        return ALONE
    state = distributed.global_state
    if state.num_processes == 1:
        watch.close()
        return ALONE
    terminal.speak_for(state.process_id, state.num_processes)
    watch.join(state.client, state.process_id, state.num_processes)
    _log.info(f"{state.num_processes} processes met at {state.coordinator_address}")
    return Group(state.process_id, state.num_processes, state.client, watch)


def _end(watch: Watch, error: BaseException) -> None:
    """Ends all processes because of an error in this one, which may be the echo of another's."""
    lost = _LOST.match(str(error))
    echo = watch.others_words() if lost else ""
    line = " ".join(str(error).split())[:1000] or type(error).__name__
    if lost:
        line = f"while {watch.stage}: {line} (another process died, it seems); {AGAIN}"
    elif not isinstance(error, _PLAIN):
        _log.error("not expected:", exc_info=error)
    watch.end(f"error: {line}", echo)
