"""What a training run will need on hardware one does not have: the real step, compiled for it.

The compiler for the chip says how much memory a step takes, what it moves and what the chips send
each other; the vendor's figures turn that into time. Nothing is run.
"""

from tfm.plan.planning import Plan, plan
from tfm.plan.report import describe

__all__ = ["Plan", "describe", "plan"]
