"""Wrong arguments of attention are refused by name, at trace time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import refusals
from refusals import Call, bools, floats, ints

from tfm import attention, positions
from tfm.attention import additive, kernels, linear, local, ring

B, T, S, N, K, H, D, W = 3, 5, 7, 4, 2, 8, 6, 2
KEY = jax.random.key(0)
QKV = {"q_BTNH": floats(B, T, N, H), "k_BSKH": floats(B, S, K, H), "v_BSKH": floats(B, S, K, H)}
HEADS = {"q_BNTH": floats(B, N, T, H), "k_BKSH": floats(B, K, S, H), "v_BKSH": floats(B, K, S, H)}
TERMS = {
    "mask": bools(B, N, T, S), "bias": floats(B, N, T, S), "soft_cap": 2.0, "dropout_rate": 0.1,
    "key": KEY,
}  # fmt: skip
BNTS = {"mask": "BNTS", "bias": "BNTS"}
OPTIONAL = ("mask/missing", "bias/missing")
RELATIVE = positions.Relative(scores=lambda q, k: jnp.zeros((B, N, T, S)))
SCORES = {"relative": RELATIVE, "scale": 0.5}

QUERIES = {"q": {"w": floats(D, N, H), "b": floats(N, H)}, "q_norm": {"scale": floats(H)}}
KEYS = {
    "k": {"w": floats(D, K, H), "b": floats(K, H)}, "v": {"w": floats(D, K, H), "b": floats(K, H)},
    "k_norm": {"scale": floats(H)},
}  # fmt: skip
OUTPUT = {"out": {"w": floats(N, H, D), "b": floats(D)}}
LETTERS = {
    "params/q/w": "DNH", "params/q/b": "NH", "params/q_norm/scale": "H", "params/k/w": "DKH",
    "params/k/b": "KH", "params/v/w": "DKH", "params/v/b": "KH", "params/k_norm/scale": "H",
    "params/out/w": "NHE", "params/out/b": "E", "kv/k": "BKSH", "kv/v": "BKSH",
}  # fmt: skip
MAY_LACK = tuple(
    f"params/{name}/{how}"
    for name in ("q/b", "k/b", "v/b", "out/b", "q_norm/scale", "k_norm/scale")
    for how in ("text", "missing")
)  # biases and norms: without one there is none

OWN = {
    "q_BTNH": floats(B, T, N, H), "k_BTKH": floats(B, T, K, H), "v_BTKH": floats(B, T, K, H),
    "segments_BT": ints(B, T),
}  # fmt: skip
OWN_HEADS = {
    "q_BNTH": floats(B, N, T, H), "k_BKTH": floats(B, K, T, H), "v_BKTH": floats(B, K, T, H),
    "segments_BT": ints(B, T),
}  # fmt: skip
BLOCKS = 3 * B
LOCAL = {
    "window": W, "bias": floats(1, N, W, 3 * W), "scale": 0.5, "soft_cap": 2.0, "dropout_rate": 0.1,
    "relative": positions.Relative(scores=lambda q, k: jnp.zeros((BLOCKS, N, W, 3 * W))),
    "key": KEY,
}  # fmt: skip
LOCAL_LETTERS = {"bias": "NTS", "segments_BT": "BT"}
NEWEST = floats(B, K, 3, H)
STATE = linear.State(floats(B, K, 3, H, H), floats(B, K, 3, H))
SEGMENTS = {"query_segments_BT": ints(B, T), "key_segments_BS": ints(B, S)}
LONG = {
    "q_BNTH": floats(1, 2, 128, 4), "k_BKSH": floats(1, 2, 256, 4), "v_BKSH": floats(1, 2, 256, 4),
    "query_segments_BT": ints(1, 128), "key_segments_BS": ints(1, 256),
}  # fmt: skip
rotate = lambda x: x  # noqa: E731


def in_a_ring(**arguments):
    """``ring`` within ``shard_map``, as it must be called."""
    mesh = jax.make_mesh((1,), ("sequence",), axis_types=(jax.sharding.AxisType.Auto,))
    names = [name for name, x in arguments.items() if refusals.is_array(x)]
    rest = {name: x for name, x in arguments.items() if name not in names}
    return jax.shard_map(
        lambda *arrays: ring.ring(**dict(zip(names, arrays, strict=True)), **rest),
        mesh=mesh, in_specs=jax.sharding.PartitionSpec(), out_specs=jax.sharding.PartitionSpec(),
        check_vma=False,
    )(*(arguments[name] for name in names))  # fmt: skip


functools.update_wrapper(in_a_ring, ring.ring)

CALLS = [
    Call(attention.attend, QKV | TERMS | SCORES, BNTS, accepts=OPTIONAL),
    Call(attention.attend_heads_first, HEADS | TERMS | SCORES, BNTS, accepts=OPTIONAL),
    Call(
        attention.weighted_values,
        {"scores_BNTS": floats(B, N, T, S), "v_BKSH": floats(B, K, S, H)} | TERMS
        | {"more_values": lambda w: jnp.zeros((B, N, T, H))},
        BNTS, accepts=OPTIONAL,
    ),
    Call(
        attention.masked_softmax,
        {"scores": floats(B, N, T, S), "mask": bools(B, N, T, S)},
        {"scores": "...TS", "mask": "BNTS"}, accepts=("mask/missing",), shared="BNTS",
    ),
    Call(
        attention.attention_params,
        {"d_model": D, "heads": N, "kv_heads": K, "head_dim": H, "bias": True},
    ),
    Call(
        attention.queries, {"params": QUERIES, "x_BTD": floats(B, T, D)}, LETTERS,
        accepts=MAY_LACK,
    ),
    Call(
        attention.keys_values, {"params": KEYS, "x_BSD": floats(B, S, D)}, LETTERS,
        accepts=MAY_LACK,
    ),
    Call(
        attention.output, {"params": OUTPUT, "heads_BNTH": floats(B, N, T, H)}, LETTERS,
        accepts=MAY_LACK,
    ),
    Call(
        attention.multi_head,
        {
            "params": QUERIES | OUTPUT, "x_BTD": floats(B, T, D),
            "kv": attention.KeyValue(floats(B, K, S, H), floats(B, K, S, H)),
            "mask": bools(B, N, T, S), "bias": floats(B, N, T, S), "dropout_rate": 0.1, "key": KEY,
        },
        LETTERS | BNTS, accepts=(*OPTIONAL, *MAY_LACK),
    ),
    Call(additive.additive_params, {"heads": N, "head_dim": H}),
    Call(additive.additive, QKV | {"weight_NH": floats(N, H)} | TERMS, BNTS, accepts=OPTIONAL),
    Call(
        additive.additive_heads_first, HEADS | {"weight_NH": floats(N, H)} | TERMS, BNTS,
        accepts=OPTIONAL,
    ),
    Call(
        additive.additive_scores,
        {"q_BNTH": floats(B, N, T, H), "k_BKSH": floats(B, K, S, H), "weight_NH": floats(N, H)},
    ),
    Call(
        local.local, OWN | LOCAL, LOCAL_LETTERS, shared="NTS",
        accepts=("bias/missing", "bias/rank-1", "segments_BT/missing"),
    ),
    Call(
        local.local_heads_first, OWN_HEADS | LOCAL, LOCAL_LETTERS, shared="NTS",
        accepts=("bias/missing", "bias/rank-1"),
    ),
    Call(local.block_distances, {"length": T, "window": W}),
    Call(
        local.fold_blocks, {"x": floats(B, T, H), "window": W, "axis": 1}, {"x": "..."},
        accepts=("x/dtype",),
    ),
    Call(
        linear.linear, OWN | {"chunk": 2, "rotate": rotate},
        {"v_BTKH": "BTKV"}, accepts=("segments_BT/missing",),
    ),
    Call(linear.linear_heads_first, OWN_HEADS | {"chunk": 2, "rotate": rotate}, {"v_BKTH": "BKTV"}),
    Call(linear.features, {"x": floats(B, T)}, {"x": "..."}),
    Call(
        linear.empty_state, {"batch": B, "kv_heads": K, "hypotheses": 3, "head_dim": H},
    ),
    Call(
        linear.reorder_state, {"state": STATE, "parents_BR": ints(B, 3)},
        {"state/kv": "BKRHH", "state/k": "BKRH"},
    ),
    Call(
        linear.update_state,
        {"state": STATE, "k_BKRH": NEWEST, "v_BKRH": NEWEST, "rotate": rotate},
        {"state/kv": "BKRHH", "state/k": "BKRH"},
    ),
    Call(
        linear.attend_state, {"state": STATE, "q_BNRH": floats(B, N, 3, H), "rotate": rotate},
        {"state/kv": "BKRHH", "state/k": "BKRH"},
    ),
    Call(in_a_ring, HEADS | SEGMENTS | {"axis": "sequence", "soft_cap": 2.0}),
    Call(kernels.unable, {"kernel": "cudnn", "needs": ("bias",)}, accepts=("needs/text",)),
    Call(
        kernels.choose,
        {
            "asked": "auto", "needs": ("bias",), "platform": "cpu", "dtype": jnp.float32,
            "head_dim": H, "queries": T, "keys": S,
        },
        accepts=("platform/unknown",),
    ),
    Call(
        kernels.flash, HEADS | SEGMENTS | {"bias": floats(1, N, T, S), "implementation": "xla"},
        {"bias": "1NTS"}, accepts=("bias/missing",),
    ),
    Call(kernels.splash, LONG | {"soft_cap": 2.0}),
]  # fmt: skip
LEFT_OUT = {
    "attention.dot_product.heads_first": "moves an axis of arrays that were checked",
    "attention.dot_product.check_scores": "is a check",
    "attention.dot_product.check_one_sequence": "is a check",
}


def test_every_function_is_here():
    found = refusals.functions(attention) | refusals.exported(attention)
    assert found == {str(call) for call in CALLS} | LEFT_OUT.keys()


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_what_is_wrong_is_refused_by_function_and_argument(call):
    refusals.assert_refused(call)


def refused(message, *arrays, **options):
    with pytest.raises(ValueError, match=f"^attend: {message}"):
        attention.attend(*arrays, **options)


@pytest.fixture
def qkv(rng):
    shapes = (B, T, N, H), (B, S, K, H), (B, S, K, H)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def test_an_additive_mask_is_refused_and_not_inverted(qkv):
    """Numbers that are not 0 would count as True: the hidden keys as the visible ones."""
    hidden = jnp.where(jnp.tri(T, S, dtype=bool), 0.0, -1e9)
    message = r"mask is a float32 array of shape \(5, 7\); it must be bool, True = may attend: comp"
    refused(message, *qkv, mask=hidden)
    refused("mask is a int32 array .*; it must be bool", *qkv, mask=hidden.astype(jnp.int32))
    refused("bias is a bool array .*; pass a bool array as mask", *qkv, bias=hidden == 0)
    masked = attention.attend(*qkv, mask=hidden == 0)
    np.testing.assert_allclose(masked, attention.attend(*qkv, bias=hidden), atol=1e-6)


def test_a_mask_of_two_dimensions_is_queries_by_keys_and_of_three_is_refused(qkv):
    """[B,T,S] would be read as [N,T,S] where B equals N, and [B,S] as [T,S] where B equals T."""
    mask = jnp.tri(T, S, dtype=bool)
    np.testing.assert_array_equal(
        attention.attend(*qkv, mask=mask), attention.attend(*qkv, mask=mask[None, None])
    )
    three = r"mask has shape \(4, 5, 7\); it must have 4 dimensions \[B,N,T,S\] or 2 dimensions"
    refused(three, *qkv, mask=jnp.ones((N, T, S), bool))
    padding = r"mask \[T,S\] has shape \(3, 7\), but T is 5 in q_BTNH; masks\.padding makes"
    refused(padding, *qkv, mask=jnp.ones((B, S), bool))
    refused(r"mask has shape \(\); it must have", *qkv, mask=jnp.array(True))


def test_arrays_that_do_not_fit_each_other_are_refused(qkv):
    q, k, v = qkv
    refused(r"k_BSKH \[B,S,K,H\] has shape \(1, 7, 2, 8\), but B is 3 in q_BTNH", q, k[:1], v)
    refused(r"v_BSKH \[B,S,K,H\] has shape \(3, 6, 2, 8\), but S is 7 in k_BSKH", q, k, v[:, 1:])
    refused(r"k_BSKH .* has shape \(3, 7, 2, 4\), but H is 8 in q_BTNH", q, k[..., :4], v)
    refused(r"k_BSKH .* has shape \(3, 0, 2, 8\), but S must be 1 or more", q, k[:, :0], v[:, :0])
    refused(r"q_BTNH has shape \(5, 4, 8\); it must have 4 dimensions \[B,T,N,H\]", q[0], k, v)
    refused(r"q_BTNH is of type list; it must be a float array \[B,T,N,H\]", q.tolist(), k, v)
    refused("4 query heads are not a multiple of 3", q, *(jnp.ones((B, S, 3, H)),) * 2)
    assert attention.attend(q[:, :0], k, v).shape == (B, 0, N, H)  # no query, no output


def test_numbers_out_of_range_are_refused(qkv):
    refused("scale is 0; it must be positive and finite", *qkv, scale=0)
    refused("scale is -1.0; it must be", *qkv, scale=-1.0)
    refused("soft_cap is nan; it must be 0 or more", *qkv, soft_cap=float("nan"))
    refused("dropout_rate is 1.0; it must be 0 or more and less", *qkv, dropout_rate=1.0, key=KEY)
    learned = jax.grad(lambda scale: attention.attend(*qkv, scale=scale).sum())(0.3)
    assert np.isfinite(learned) and learned != 0.0  # a traced scale is not known, and passes


def test_a_rate_without_a_key_and_keys_of_other_kinds_are_refused(qkv):
    refused(r"dropout_rate is 0\.1, but key is None: pass key=", *qkv, dropout_rate=0.1)
    drop = {"dropout_rate": 0.1}
    refused(r"key is 0; it must be a typed key: pass jax\.random\.key\(seed\)", *qkv, **drop, key=0)
    old = r"key is a uint32 array of shape \(2,\); .* pass jax\.random\.wrap_key_data\(key\)"
    refused(old, *qkv, **drop, key=jax.random.PRNGKey(0))
    refused(r"key has shape \(2,\); it must be a single key, or an array of keys whose number divi",
            *qkv, **drop, key=jax.random.split(KEY))  # fmt: skip
    attention.attend(*qkv, **drop, key=jax.random.split(KEY, B))


def test_terms_of_a_relative_scheme_have_the_shape_of_what_they_are_added_to(qkv):
    scores = positions.Relative(scores=lambda q, k: jnp.zeros((B, 1, T, S)))
    with pytest.raises(ValueError, match=r"relative\.scores\(q, k\) .* has shape \(3, 1, 5, 7\)"):
        attention.attend(*qkv, relative=scores)
    values = RELATIVE._replace(values=lambda weights: weights)
    with pytest.raises(ValueError, match=r"more_values\(weights\) .* has shape \(3, 4, 5, 7\)"):
        attention.attend(*qkv, relative=values)


def test_a_ring_needs_its_axis():
    arrays = HEADS | SEGMENTS
    with pytest.raises(ValueError, match="ring: axis is 'sequence'; it must be a mesh axis of the"):
        ring.ring(**{name: jnp.asarray(x) for name, x in arrays.items()}, axis="sequence")
    with pytest.raises(ValueError, match="causal needs as many queries as keys on a device, got 5"):
        in_a_ring(**arrays, axis="sequence", causal=True)


def test_splash_takes_lengths_of_128():
    with pytest.raises(ValueError, match="splash: T is 5; it must be a multiple of 128"):
        kernels.splash(**{name: jnp.asarray(x) for name, x in (HEADS | SEGMENTS).items()})
