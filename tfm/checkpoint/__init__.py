"""Checkpoints: saved while training goes on, and checked bit for bit when they are read back."""

from tfm.checkpoint.manager import Checkpoints, load
from tfm.checkpoint.restore import Found

__all__ = ["Checkpoints", "Found", "load"]
