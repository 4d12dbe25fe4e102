"""Checkpoints: saved in the background during training, and verified bit for bit on restore."""

from tfm.checkpoint.manager import CheckpointManager
from tfm.checkpoint.manifest import StructureMismatch
from tfm.checkpoint.restore import Advice, Restored, load

__all__ = ["Advice", "CheckpointManager", "Restored", "StructureMismatch", "load"]
