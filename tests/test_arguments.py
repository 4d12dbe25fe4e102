"""Wrong arguments of layers, masks, embeddings, linear and params are refused by name."""

import jax
import jax.numpy as jnp
import pytest
import refusals
from refusals import Call, bools, floats, ints

from tfm import embeddings, layers, linear, masks, params, quantize
from tfm.params import Param

B, T, S, D, F, V, L = 2, 5, 7, 6, 9, 11, 3
KEY = jax.random.key(0)
NORM = {"params": {"scale": floats(D), "bias": floats(D)}}
NORM_LETTERS = {"params/scale": "D", "params/bias": "D"}
NO_BIAS = ("params/bias/text", "params/bias/missing")  # without one it is RMSNorm
LEAF = Param((3, 4), ("embed", "mlp"), params.zeros)
DECLARATION = {"declaration": {"a": LEAF, "b": {"c": LEAF}}}

CALLS = [
    Call(layers.norm_params, {"d_model": D, "kind": "rms"}),
    Call(
        layers.layer_norm,
        {"x": floats(B, D), "scale_D": floats(D), "bias_D": floats(D), "epsilon": 1e-5},
        {"x": "...D"},
    ),
    Call(
        layers.rms_norm, {"x": floats(B, D), "scale_D": floats(D), "epsilon": 1e-5}, {"x": "...D"}
    ),
    Call(
        layers.norm, NORM | {"x": floats(B, D), "epsilon": 1e-4}, NORM_LETTERS | {"x": "...D"},
        accepts=NO_BIAS,
    ),
    Call(
        layers.dropout, {"x": floats(B, D), "rate": 0.1, "key": KEY}, {"x": "..."},
    ),
    Call(layers.split, {"key": KEY, "n": 3}),
    Call(layers.is_gated, {"activation": "relu"}),
    Call(
        layers.feed_forward_params, {"d_model": D, "d_ff": F, "activation": "relu", "bias": True},
    ),
    Call(
        layers.feed_forward,
        {
            "params": {
                "up": floats(D, F), "up_bias": floats(F),
                "down": floats(F, D), "down_bias": floats(D),
            },
            "x_BTD": floats(B, T, D), "activation": "gelu", "dropout_rate": 0.1, "key": KEY,
        },
        {"params/up": "DF", "params/up_bias": "F", "params/down": "FD", "params/down_bias": "D"},
        accepts=[f"params/{x}_bias/{y}" for x in ("up", "down") for y in ("text", "missing")],
    ),
    Call(layers.deepnorm, {"encoder_layers": 6, "decoder_layers": 3}),
    Call(
        layers.pre_norm,
        NORM | {"x_BTD": floats(B, T, D), "placement": "pre", "epsilon": 1e-4}, NORM_LETTERS,
        accepts=NO_BIAS,
    ),
    Call(
        layers.add_norm,
        NORM | {
            "x_BTD": floats(B, T, D), "y_BTD": floats(B, T, D), "placement": "deepnorm",
            "alpha": 2.0, "epsilon": 1e-4, "dropout_rate": 0.1, "key": KEY,
        },
        NORM_LETTERS, accepts=NO_BIAS,
    ),
    Call(masks.padding, {"valid_BS": ints(B, S)}, accepts=("valid_BS/dtype",)),
    Call(
        masks.causal, {"queries": T, "keys": S, "offset": 2},
        least={"queries": 0, "keys": 0, "offset": None},
    ),
    Call(
        masks.window, {"queries": T, "keys": S, "width": 2, "offset": 2},
        least={"queries": 0, "keys": 0, "width": 0, "offset": None},
    ),
    Call(masks.segment, {"query_segments_BT": ints(B, T), "key_segments_BS": ints(B, S)}),
    Call(
        masks.combine, {"*": [bools(B, 1, T, S), bools(B, 3, T, S)]},
        {"*/0": "B1TS", "*/1": "BNTS"}, accepts=("*/0/missing", "*/1/missing"), name="combine",
    ),
    Call(embeddings.embedding_params, {"vocab": V, "d_model": D}),
    Call(embeddings.one_hot, {"ids": ints(B, T), "vocab": V}, {"ids": "..."}, accepts=("dtype",)),
    Call(
        embeddings.embed, {"ids": ints(B, T), "table_VD": floats(V, D), "method": "gather"},
        {"ids": "..."}, accepts=("table_VD/dtype",),  # tables of integers too
    ),
    Call(
        embeddings.logits, {"hidden": floats(B, D), "table_VD": floats(V, D)}, {"hidden": "...D"}
    ),
    Call(linear.linear, {"x": floats(B, D), "weight_DF": floats(D, F)}, {"x": "...D"}),
    Call(quantize.project, {"x": floats(B, D), "weight_DF": floats(D, F)}, {"x": "...D"}),
    Call(
        quantize.product, {"x": floats(B, D), "weight": floats(D, F), "axis": 0},
        {"x": "...D", "weight": "DF"}, least={"axis": 0},
    ),
    Call(
        quantize.int8, {"weight": floats(D, F), "inputs": (0,)}, {"weight": "..."},
        least={"inputs/0": None}, accepts=("weight/size D",),
    ),
    Call(params.init, {"key": KEY} | DECLARATION, accepts=("dtype",)),
    Call(params.abstract, DECLARATION, accepts=("dtype",)),
    Call(params.axes, DECLARATION),
    Call(params.stack, DECLARATION | {"layers": L}),
    Call(params.count, DECLARATION),
    Call(params.table, DECLARATION),
    Call(
        params.unstack, {"tree": {"w": floats(L, D), "b": floats(L)}, "layers": L},
        {"tree/w": "LD", "tree/b": "L"}, shared="L",
        accepts=("tree/w/dtype", "tree/w/complex", "tree/b/dtype", "tree/b/complex",
                 "tree/w/missing", "tree/b/missing", "tree/w/size D"),
    ),
    Call(
        params.like, {"weight": floats(D), "x": floats(B, D)}, {"weight": "D", "x": "...D"},
        accepts=("weight/rank-1",),
    ),
    Call(
        params.Param, {"shape": (3, 4), "axes": ("embed", "mlp"), "init": params.zeros},
        accepts=("axes/0/unknown", "axes/1/unknown"),
    ),
]  # fmt: skip
LEFT_OUT = {
    "quantize.matrix": "reshapes what is declared",
    "linear.saveable": "is a policy, which JAX calls",
    "params.is_param": "is a question about anything",
    "params.xavier": "gives an initializer of jax.nn",
}


def test_every_function_is_here():
    found = set().union(
        *map(refusals.functions, (layers, masks, embeddings, linear, params, quantize))
    )
    assert found - LEFT_OUT.keys() <= {str(call) for call in CALLS}


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_what_is_wrong_is_refused_by_function_and_argument(call):
    refusals.assert_refused(call)


def test_dropout_with_none_for_a_key_is_inference_and_a_forgotten_key_an_error():
    """``layers.dropout`` has no default: whoever passes None means it."""
    x = jnp.ones((2, 3, 4))
    assert layers.dropout(x, 0.5, None) is x
    norm = {"scale": jnp.ones(4)}
    with pytest.raises(ValueError, match=r"add_norm: dropout_rate is 0\.5, but key is None: pass"):
        layers.add_norm(norm, x, x, "pre", dropout_rate=0.5)


def test_masks_of_two_dimensions_are_combined_as_queries_by_keys():
    both = masks.combine(masks.causal(3), jnp.ones((3, 3), bool))
    assert both.shape == (1, 1, 3, 3)
    with pytest.raises(ValueError, match=r"masks\[1\] has shape \(2, 3, 3\); it must have 4 dim"):
        masks.combine(masks.causal(3), jnp.ones((2, 3, 3), bool))


def test_a_declaration_is_of_dicts():
    with pytest.raises(
        ValueError, match=r"count: declaration\['a'\] is of type list; .*nested dict of Param"
    ):
        params.count({"a": [Param((3,), ("mlp",), params.zeros)]})
