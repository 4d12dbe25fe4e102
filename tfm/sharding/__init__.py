"""Where arrays live: a mesh of devices, and rules from the names of dimensions to its axes.

Every dimension of a parameter or activation has a logical name ("embed", "batch"); ``RULES`` says
over which axes of the mesh it is cut. A ``Layout`` is a mesh with its rules. Functions take one as
an argument, and their default, ``NO_MESH``, does nothing: no global state, no mesh in force. XLA's
partitioner cuts what lies between (GSPMD, Xu et al. 2021).
"""

from tfm.sharding.layout import NO_MESH, RULES, Layout
from tfm.sharding.mesh import AXES, Mesh, describe, make, resolve

__all__ = ["AXES", "NO_MESH", "RULES", "Layout", "Mesh", "describe", "make", "resolve"]
