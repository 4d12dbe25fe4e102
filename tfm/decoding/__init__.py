"""Search for target sentences over a step callback; knows no model.

A strategy is four functions (``beam.py``, ``sample.py``): ``start`` makes a state, ``advance``
moves every sentence of a batch one token further, ``running`` says whether any is unfinished, and
``finish`` gives the hypotheses. ``search`` is the loop over them, in the strategy that
``Decode.strategy`` names.
"""

from tfm.decoding.config import Decode
from tfm.decoding.search import STRATEGIES, run, search
from tfm.decoding.types import Hypotheses, Step, Transform

__all__ = ["STRATEGIES", "Decode", "Hypotheses", "Step", "Transform", "run", "search"]
