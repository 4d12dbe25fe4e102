"""Wrong arguments of the position functions are refused by name, at trace time."""

import jax.numpy as jnp
import numpy as np
import pytest
import refusals
from refusals import Call, floats, ints

from tfm import positions
from tfm.positions import rotary

B, T, S, N, K, H, D, L = 3, 5, 7, 4, 2, 8, 6, 9
DISTANCES = positions.consecutive(T, S)
FIRE = {
    "c": floats(), "threshold": floats(), "w1": floats(1, 3), "b1": floats(3),
    "w2": floats(3, N), "b2": floats(N),
}  # fmt: skip
XL = {"w": floats(D, N, H), "u": floats(N, H), "v": floats(N, H)}

CALLS = [
    Call(
        positions.sinusoidal,
        {"positions": ints(B, T), "d_model": D, "max_wavelength": 100.0}, {"positions": "..."},
    ),
    Call(positions.learned_params, {"max_length": L, "d_model": D}),
    Call(
        positions.learned, {"positions": ints(B, T), "table_TD": floats(L, D)},
        {"positions": "...", "table_TD": "LD"},
    ),
    Call(
        positions.t5_bucket, {"distances": ints(T, S), "buckets": 8, "max_distance": 20},
        {"distances": "..."},
    ),
    Call(positions.t5_params, {"buckets": 8, "d_model": D, "heads": N}),
    Call(
        positions.t5_bias, {"table_LN": floats(8, N), "distances": DISTANCES, "max_distance": 20},
    ),
    Call(positions.alibi_slopes, {"heads": N}),
    Call(positions.alibi_bias, {"distances": DISTANCES, "heads": N}),
    Call(
        positions.consecutive, {"queries": T, "keys": S, "offset": 2}, least={"offset": None},
    ),
    Call(
        positions.from_one_position, {"key_positions_S": ints(S), "position": ints()},
        {"position": ""},
    ),
    Call(positions.fire_params, {"heads": N, "hidden": 3, "threshold": 2.0}),
    Call(
        positions.fire_bias,
        {"params": FIRE, "distances": DISTANCES, "positions_BT": ints(B, T)},
        {
            "params/c": "", "params/threshold": "", "params/w1": "IF", "params/b1": "F",
            "params/w2": "FN", "params/b2": "N",
        },
        shared="TF",
    ),
    Call(positions.shaw_params, {"clip": 2, "head_dim": H}),
    Call(
        positions.shaw_scores,
        {"q_BNTH": floats(B, N, T, H), "keys_LH": floats(5, H), "distances": DISTANCES},
        shared="TL",
    ),
    Call(
        positions.shaw_values,
        {"weights_BNTS": floats(B, N, T, S), "values_LH": floats(5, H), "distances": DISTANCES},
        shared="TSL",
    ),
    Call(positions.transformer_xl_params, {"d_model": D, "heads": N, "head_dim": H}),
    Call(
        positions.transformer_xl_scores,
        {
            "params": XL, "q_BNTH": floats(B, N, T, H), "k_BKSH": floats(B, K, S, H),
            "distances": DISTANCES,
        },
        {"params/w": "DNH", "params/u": "NH", "params/v": "NH"}, shared="TS",
    ),
    Call(rotary.frequencies, {"head_dim": H, "base": 100.0, "scaling": 2.0}),
    Call(
        positions.rotate,
        {"x": floats(B, T, N, H), "positions": ints(B, T, 1), "base": 100.0, "scaling": 2.0},
        {"x": "BTNH", "positions": "BT1"},
    ),
    Call(positions.make, {"name": "rotary"}, name="positions", accepts=("name/unknown",)),
    Call(
        positions.Distances.pick, {"self": DISTANCES, "x": floats(N, T, T + S)}, {"x": "NTM"},
        shared="TM", accepts=("self", "x/rank+1", "x/rank-1", "x/dtype"),
    ),
    Call(
        positions.Distances.spread, {"self": DISTANCES, "x": floats(N, T, S)}, {"x": "NTS"},
        shared="TS", accepts=("self", "x/rank+1", "x/rank-1", "x/dtype"),
    ),
    Call(positions.Distances, {"values_M": np.arange(12), "queries": T}, least={"queries": 0}),
]  # fmt: skip
LEFT_OUT = {
    f"positions.schemes.{name}": "reads and writes text; tested in test_schemes.py"
    for name in ("name", "parse", "to_text", "to_dict", "from_dict")
} | {"positions.bias.t5_problem": "says what is wrong instead of raising"}


def test_every_function_is_here():
    found = refusals.functions(positions) | refusals.exported(positions)
    assert found - LEFT_OUT.keys() <= {str(call) for call in CALLS}


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_what_is_wrong_is_refused_by_function_and_argument(call):
    refusals.assert_refused(call)


def test_rotate_is_told_which_dimension_is_time():
    """Positions [B,T] of vectors [B,T,N,H] would be read as [T,N] where T equals N."""
    x = jnp.ones((2, 4, 4, 8))
    with pytest.raises(ValueError, match=r"rotate: positions have shape \(2, 4\).*\[B,T,1\] for x"):
        positions.rotate(x, jnp.ones((2, 4), jnp.int32))
    assert positions.rotate(x, jnp.ones((2, 4, 1), jnp.int32)).shape == x.shape


def test_distances_of_another_number_of_queries_are_refused():
    with pytest.raises(
        ValueError, match=r"q_BNTH .* has shape \(3, 4, 6, 8\), but T is 5 in the d"
    ):
        positions.shaw_scores(floats(B, N, 6, H), floats(5, H), DISTANCES)
    with pytest.raises(ValueError, match=r"keys_LH has 4 rows; it must have 2c \+ 1"):
        positions.shaw_scores(floats(B, N, T, H), floats(4, H), DISTANCES)
    with pytest.raises(ValueError, match=r"values_M has 5 distances; for 5 queries T it must have"):
        positions.Distances(np.arange(5), 5)
