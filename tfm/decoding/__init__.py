"""Search for target sentences over a step callback; knows no model.

A strategy is four functions (``beam.py``, ``diverse.py``, ``sample.py``): ``start`` makes a state,
``advance`` moves every sentence of a batch one token further, ``running`` says whether any is
unfinished, and ``finish`` gives the hypotheses. ``search`` is the loop over them, in the strategy
that ``Decode.strategy`` names.
"""

from tfm.decoding.config import Decode, check
from tfm.decoding.constraints import Constraints
from tfm.decoding.ensemble import ensemble
from tfm.decoding.search import STRATEGIES, run, search
from tfm.decoding.types import Attended, Hypotheses, Step, Transform, without

__all__ = [
    "STRATEGIES", "Attended", "Constraints", "Decode", "Hypotheses", "Step", "Transform", "check",
    "ensemble", "run", "search", "without",
]  # fmt: skip
