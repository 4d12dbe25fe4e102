"""The processes of one run: how they find each other, agree, and end together.

One process a host, or one a GPU. All run the same program; ``jax.distributed`` joins them, and its
coordination service, which process 0 keeps, carries what is said here, but for ``Group.ask``, which
goes by way of the devices.
"""

from tfm.processes.group import ALONE, Group
from tfm.processes.hosts import Hosts
from tfm.processes.session import joined

__all__ = ["ALONE", "Group", "Hosts", "joined"]
