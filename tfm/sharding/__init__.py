"""Sharding: a mesh of devices, and rules that map logical axis names to mesh axes.

Every dimension of a parameter or activation has a logical name ("embed", "batch"); ``RULES`` says
over which mesh axes it is sharded. A ``Layout`` is a mesh with its rules. Functions take one as an
argument; the default, ``NO_MESH``, leaves every array as it is, so there is no global mesh. Between
the constraints that a layout sets, XLA's partitioner chooses the shardings (GSPMD, Xu et al. 2021).
"""

from tfm.sharding.layout import NO_MESH, RULES, Layout
from tfm.sharding.mesh import AXES, Mesh, describe, make, resolve

__all__ = ["AXES", "NO_MESH", "RULES", "Layout", "Mesh", "describe", "make", "resolve"]
