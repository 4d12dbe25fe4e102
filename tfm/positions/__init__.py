"""Where a token is in its sentence: added to the input or to the scores, or rotated into q and k.

============== ==================================== ======================================
scheme         acts on                              functions
============== ==================================== ======================================
sinusoidal     the input                            ``sinusoidal``
learned        the input                            ``learned``
shaw           scores and values, by distance       ``shaw_scores``, ``shaw_values``
t5             scores, by bucket of the distance    ``t5_bucket``, ``t5_bias``
alibi          scores, by distance                  ``alibi_slopes``, ``alibi_bias``
rotary         queries and keys, by position        ``rotate``
transformer_xl scores, by distance                  ``transformer_xl_scores``
fire           scores, by distance over position    ``fire_bias``
============== ==================================== ======================================

The functions serve anyone's model; the relative ones take ``Distances``, of whole sentences
``consecutive(T, S)``. A ``Scheme`` (``schemes.py`` lists them) binds functions, hyperparameters and
parameters for this package's Transformer.
"""

from tfm.positions.absolute import Learned, Sinusoidal, learned, learned_params, sinusoidal
from tfm.positions.bias import (
    T5,
    ALiBi,
    alibi_bias,
    alibi_slopes,
    t5_bias,
    t5_bucket,
    t5_params,
    t5_problem,
)
from tfm.positions.distances import Distances, consecutive, from_one_position
from tfm.positions.fire import FIRE, fire_bias, fire_params
from tfm.positions.relative import (
    Shaw,
    TransformerXL,
    shaw_params,
    shaw_scores,
    shaw_values,
    transformer_xl_params,
    transformer_xl_scores,
)
from tfm.positions.rotary import Rotary, rotate
from tfm.positions.scheme import NoPositions, Rotation, Scheme
from tfm.positions.schemes import SCHEMES, make
from tfm.positions.terms import Relative

__all__ = [
    "FIRE",
    "SCHEMES",
    "T5",
    "ALiBi",
    "Distances",
    "Learned",
    "NoPositions",
    "Relative",
    "Rotary",
    "Rotation",
    "Scheme",
    "Shaw",
    "Sinusoidal",
    "TransformerXL",
    "alibi_bias",
    "alibi_slopes",
    "consecutive",
    "fire_bias",
    "fire_params",
    "from_one_position",
    "learned",
    "learned_params",
    "make",
    "rotate",
    "shaw_params",
    "shaw_scores",
    "shaw_values",
    "sinusoidal",
    "t5_bias",
    "t5_bucket",
    "t5_params",
    "t5_problem",
    "transformer_xl_params",
    "transformer_xl_scores",
]
