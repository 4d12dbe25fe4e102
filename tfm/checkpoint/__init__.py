"""Checkpoints: saved in the background during training, and verified bit for bit on restore."""

from tfm.checkpoint.manager import CheckpointManager
from tfm.checkpoint.restore import Restored, load

__all__ = ["CheckpointManager", "Restored", "load"]
