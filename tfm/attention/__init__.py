"""Attention: a query looks at keys and takes a weighted mean of their values.

Letters: N query heads share K key/value heads, G = N / K queries each (multi-head K = N, grouped
1 < K < N (Ainslie 2023), multi-query K = 1 (Shazeer 2019)).

Variants take q [B,T,N,H], k and v [B,S,K,H] as ``attend`` does. Each has the name of its module,
``from tfm.attention.linear import linear``. What one of them cannot take it refuses with a word on
what to pass instead.

============================= ========== ============================================= ============
function                      T and S    whom a query sees                             weights
============================= ========== ============================================= ============
``attend``                    any        ``mask``                                      returned
``additive.additive``         any        ``mask``                                      returned
``local.local``               equal      ``window``, ``segments_BT``, ``causal``       in blocks
``linear.linear``             equal      ``segments_BT``, ``causal``                   never formed
``ring.ring`` (heads first)   any, parts segments of queries and of keys, ``causal``   never whole
============================= ========== ============================================= ============

``bias``, ``soft_cap`` and dropout: ``attend``, ``additive`` and ``local``; ``relative``: ``attend``
and ``local``; ``soft_cap``: ``ring`` too.
"""

from tfm.attention.dot_product import attend, attend_heads_first, look_up, masked_softmax
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
    "look_up",
    "masked_softmax",
    "multi_head",
    "output",
    "queries",
]
