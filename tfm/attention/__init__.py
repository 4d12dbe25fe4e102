"""Attention: a query looks at keys and takes a weighted mean of their values.

Letters: N query heads share K key/value heads, G = N / K queries each (multi-head K = N, grouped
1 < K < N (Ainslie 2023), multi-query K = 1 (Shazeer 2019)).
"""

from tfm.attention.core import attend, attend_heads_first, look_up, masked_softmax
from tfm.attention.heads import (
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
