"""Attention: every query takes a weighted mean of values, weighted by how well their keys match.

Letters: N query heads share K key/value heads, G = N / K query heads each (multi-head K = N,
grouped 1 < K < N (Ainslie 2023), multi-query K = 1 (Shazeer 2019)).

All variants take q [B,T,N,H], k and v [B,S,K,H] as ``attend`` does, and those ``*_heads_first``
arrays with heads before time. Each has the name of its module: ``from tfm.attention.linear import
linear``.

============================= ============= ======================================= ==============
function                      T and S       keys that a query sees                  weights
============================= ============= ======================================= ==============
``attend``                    any           ``mask``                                returned
``additive.additive``         any           ``mask``                                returned
``local.local``               equal         ``window``, ``segments_BT``, ``causal`` by block
``linear.linear``             equal         ``segments_BT``, ``causal``             never formed
``ring.ring`` (heads first)   any, sharded  segments of both sides, ``causal``      never at once
============================= ============= ======================================= ==============

``bias``, ``soft_cap`` and dropout: ``attend``, ``additive`` and ``local``; ``relative``: ``attend``
and ``local``; ``soft_cap``: ``ring`` too.
"""

from tfm.attention.dot_product import (
    attend,
    attend_heads_first,
    masked_softmax,
    weighted_values,
)
from tfm.attention.projections import (
    KeyValue,
    attention_params,
    keys_values,
    multi_head,
    output,
    queries,
)

__all__ = [
    "KeyValue",
    "attend",
    "attend_heads_first",
    "attention_params",
    "keys_values",
    "masked_softmax",
    "multi_head",
    "output",
    "queries",
    "weighted_values",
]
