"""What a training run needs on hardware that is not here: the real update, compiled for it.

The compiler for the chip reports how much memory an update takes, which bytes it moves and which
collectives it runs; the vendor's figures turn these into a time. Nothing is executed.
"""

from tfm.plan.planning import Plan, plan
from tfm.plan.report import describe

__all__ = ["Plan", "describe", "plan"]
