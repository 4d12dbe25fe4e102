"""Where a token stands: added to the input, to the scores, or turned into queries and keys.

============== ==================================== ======================================
scheme         acts on                              functions
============== ==================================== ======================================
sinusoidal     the input                            ``sinusoidal``
learned        the input                            ``learned``
shaw           scores and values, by distance       ``shaw_scores``, ``shaw_values``
t5             scores, by bucket of the distance    ``t5_bucket``, ``t5_bias``
alibi          scores, by distance                  ``alibi_slopes``, ``alibi_bias``
rotary         queries and keys, by place           ``rotate``
transformer_xl scores, by distance                  ``transformer_xl_scores``
============== ==================================== ======================================

The relative ones take ``Distances``: ``side_by_side(T, S)`` for whole sentences.
"""

from tfm.positions.absolute import learned, learned_params, sinusoidal
from tfm.positions.bias import alibi_bias, alibi_slopes, t5_bias, t5_bucket, t5_params, t5_problem
from tfm.positions.distances import Distances, from_one_place, side_by_side
from tfm.positions.relative import (
    Relative,
    shaw,
    shaw_params,
    shaw_scores,
    shaw_values,
    transformer_xl,
    transformer_xl_params,
    transformer_xl_scores,
)
from tfm.positions.rotary import rotate

__all__ = [
    "Distances",
    "Relative",
    "alibi_bias",
    "alibi_slopes",
    "from_one_place",
    "learned",
    "learned_params",
    "rotate",
    "shaw",
    "shaw_params",
    "shaw_scores",
    "shaw_values",
    "side_by_side",
    "sinusoidal",
    "t5_bias",
    "t5_bucket",
    "t5_params",
    "t5_problem",
    "transformer_xl",
    "transformer_xl_params",
    "transformer_xl_scores",
]
