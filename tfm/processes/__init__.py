"""The processes of one run: how they find each other, exchange values, and end together.

One process a host, or one a GPU; all run the same program. ``jax.distributed`` connects them.
Values are exchanged through its coordination service, a server in process 0, except by
``Group.all_gather``, which goes through the devices.
"""

from tfm.processes.group import ALONE, Group
from tfm.processes.hosts import Hosts
from tfm.processes.session import joined

__all__ = ["ALONE", "Group", "Hosts", "joined"]
