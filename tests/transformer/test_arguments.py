"""Wrong arguments of the model's functions are refused by name, at trace time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import refusals
from refusals import Call, bools, floats, ints

from tfm import params, transformer
from tfm.attention import KeyValue
from tfm.sharding import NO_MESH
from tfm.transformer import Architecture, Batch, Execution

B, S, T, R, V, D, N, K, H, F = 2, 5, 7, 3, 11, 12, 4, 2, 6, 9
ARCH = Architecture(
    source_vocab=V, target_vocab=V + 2, d_model=D, heads=N, kv_heads=K, head_dim=H, d_ff=F,
    encoder_layers=2, decoder_layers=2, positions="learned:max_length=20", qk_norm=True,
)  # fmt: skip
KEY = jax.random.key(0)


def arrays(declaration):
    return jax.tree.map(lambda p: floats(*p.shape), declaration, is_leaf=params.is_param)


PARAMS = arrays(transformer.declare(ARCH))
LAYERED = jax.tree.map(np.asarray, transformer.inference_params(PARAMS, ARCH))
ENCODER_LAYER = jax.tree.map(lambda x: x[0], PARAMS["encoder"]["layers"])
DECODER_LAYER = jax.tree.map(lambda x: x[0], PARAMS["decoder"]["layers"])
BATCH = Batch(*[ints(B, S)] * 3, *[ints(B, T)] * 3)
SOURCE = {"source_BS": ints(B, S), "segments_BS": ints(B, S), "positions_BS": ints(B, S)}
TARGET = {"target_BT": ints(B, T), "segments_BT": ints(B, T), "positions_BT": ints(B, T)}
HOW = {"execution": Execution(), "layout": NO_MESH}
MEMORY = {"memory_BSD": floats(B, S, D), "memory_segments_BS": ints(B, S)}
CACHE = transformer.init_cache(
    LAYERED, ARCH, jnp.asarray(MEMORY["memory_BSD"]), jnp.asarray(ints(B, S)), hypotheses=R,
    max_length=T,
)  # fmt: skip
CACHE = jax.tree.map(np.asarray, CACHE)
CACHE_LETTERS = {
    "cache/cross_mask": "BNQS",
    "cache/ancestors": "BRT",
    "cache/step": "B",
    "cache/cursor": "",
} | {
    f"cache/{kind}/{layer}/{name}": letters
    for kind, S_ in (("self_attention", "Z"), ("cross_attention", "S"))
    for layer in range(2)
    for name, letters in (("k", f"BKH{S_}"), ("v", f"BK{S_}H"))
}
KV = KeyValue(floats(B, K, S, H), floats(B, K, S, H))
KV_LETTERS = {"kv/k": "BKSH", "kv/v": "BKSH"}
SELF = transformer.self_context(
    PARAMS["encoder"], ARCH, jnp.asarray(ints(B, T)), jnp.asarray(ints(B, T)), causal=False
)
CROSS = transformer.cross_context(ARCH, jnp.asarray(ints(B, T)), jnp.asarray(ints(B, S)))
BATCH_LETTERS = {f"batch/{name}": "BS" for name in Batch._fields[:3]} | {
    f"batch/{name}": "BT" for name in Batch._fields[3:]
}
CONTEXT = tuple(
    f"{name}/{field}"
    for name in ("context", "cross_context")
    for field in transformer.AttentionContext._fields
)  # checked where they are read; what self-attention checks is tested below


def declared(tree, *names):
    """The paths of parameters, all of whose dimensions are declared."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    paths = ["/".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in p) for p, _ in leaves]
    return {f"params/{path}": "*" * x.ndim for path, (_, x) in zip(paths, leaves, strict=True)}


WHOLE, LISTED = declared(PARAMS), declared(LAYERED)
BIASED_ARCH = dataclasses.replace(ARCH, output_bias=True)
BIASED = {**PARAMS, "decoder": {**PARAMS["decoder"], "output_bias": floats(V + 2)}}
ENCODER = declared(PARAMS["encoder"])


def unread(letters, *read):
    """Parameters that a function does not read."""
    return tuple(path for path in letters if not any(r in path for r in read))


CALLS = [
    Call(
        transformer.forward,
        {"params": PARAMS, "arch": ARCH, "batch": BATCH, "key": KEY} | HOW, BATCH_LETTERS | WHOLE,
        shared="*",
    ),
    Call(
        transformer.encode, {"params": PARAMS, "arch": ARCH} | SOURCE | {"key": KEY} | HOW, WHOLE,
        shared="*", accepts=unread(WHOLE, "params/encoder", "tables/source"),
    ),
    Call(
        transformer.decode,
        {"params": PARAMS, "arch": ARCH} | MEMORY | TARGET | {"key": KEY} | HOW, WHOLE,
        shared="*D", accepts=unread(WHOLE, "params/decoder", "tables/target"),
    ),
    Call(
        transformer.activations,
        {"params": PARAMS, "arch": ARCH, "batch": BATCH, "keep": lambda p, o: o.x,
         "execution": Execution()},
        BATCH_LETTERS | WHOLE, shared="*",
    ),
    Call(transformer.declare, {"arch": ARCH}),
    Call(transformer.validate, {"arch": ARCH, "execution": Execution()}),
    Call(transformer.table_names, {"arch": ARCH}),
    Call(transformer.head_width, {"arch": ARCH}),
    Call(transformer.compute_dtype, {"execution": Execution()}),
    Call(
        transformer.output_table, {"params": PARAMS, "arch": ARCH}, WHOLE, shared="*",
        accepts=unread(WHOLE, "tables/target"),
    ),
    Call(transformer.embedding_scale, {"arch": ARCH}),
    Call(transformer.has_final_norm, {"arch": ARCH}),
    Call(
        transformer.logits,
        {"params": PARAMS, "arch": ARCH, "hidden_BTD": floats(B, T, D)}, WHOLE, shared="*D",
        accepts=unread(WHOLE, "tables/target"),
    ),
    Call(
        transformer.output_bias, {"params": BIASED, "arch": BIASED_ARCH}, declared(BIASED),
        shared="*", accepts=unread(declared(BIASED), "output_bias"),
    ),
    Call(
        transformer.embed_tokens,
        {"params": PARAMS, "arch": ARCH, "side": "decoder", "tokens_BT": ints(B, T),
         "positions_BT": ints(B, T)} | HOW,
        WHOLE, shared="*", accepts=unread(WHOLE, "tables/target", "decoder/positions"),
    ),
    Call(
        transformer.self_context,
        {"side_params": PARAMS["encoder"], "arch": ARCH, "segments_BT": ints(B, T),
         "positions_BT": ints(B, T), "causal": False} | HOW,
        {f"side_{path}": letters for path, letters in declared(PARAMS["encoder"]).items()},
        shared="*",
        accepts=unread([f"side_{path}" for path in declared(PARAMS["encoder"])], "positions"),
    ),
    Call(
        transformer.cross_context,
        {"arch": ARCH, "target_segments_BT": ints(B, T), "source_segments_BS": ints(B, S)} | HOW,
    ),
    Call(
        transformer.step_context,
        {"side_params": PARAMS["decoder"], "arch": ARCH, "mask": bools(B, 1, R, T * R),
         "distances_S": ints(T * R), "step_B": ints(B), "slot": ints(), "parents_BR": ints(B, R)},
        {f"side_{path}": letters for path, letters in declared(PARAMS["decoder"]).items()}
        | {"mask": "BNRS", "slot": ""},
        shared="*N",
        accepts=unread([f"side_{path}" for path in declared(PARAMS["decoder"])], "positions"),
    ),
    Call(
        transformer.self_attention,
        {"params": ENCODER_LAYER["self"], "x_BTD": floats(B, T, D), "arch": ARCH, "context": SELF,
         "key": KEY, "layout": NO_MESH},
        declared(ENCODER_LAYER["self"]), shared="*BTD", accepts=("cache", *CONTEXT),
    ),
    Call(
        transformer.cross_attention,
        {"params": DECODER_LAYER["cross"], "x_BTD": floats(B, T, D), "kv": KV, "arch": ARCH,
         "context": CROSS, "key": KEY, "layout": NO_MESH},
        declared(DECODER_LAYER["cross"]) | KV_LETTERS, shared="*BTD", accepts=CONTEXT,
    ),
    Call(
        transformer.layer,
        {"params": DECODER_LAYER, "x_BTD": floats(B, T, D), "arch": ARCH, "context": SELF,
         "cross_kv": KV, "cross_context": CROSS, "key": KEY, "layout": NO_MESH},
        declared(DECODER_LAYER) | {f"cross_{path}": x for path, x in KV_LETTERS.items()},
        shared="*BTD", accepts=("cache", *CONTEXT),
    ),
    Call(
        transformer.final_norm,
        {"params": PARAMS["encoder"], "x_BTD": floats(B, T, D), "epsilon": 1e-4},
        ENCODER | {"params/norm/scale": "D", "params/norm/bias": "D"},
        accepts=(*unread(ENCODER, "params/norm"), "params/norm/bias/text",
                 "params/norm/bias/missing"),
    ),
    Call(
        transformer.inference_params,
        {"params": PARAMS, "arch": ARCH, "execution": Execution()}, WHOLE, shared="*",
    ),
    Call(transformer.inference_layout, {"layout": NO_MESH}),
    Call(
        transformer.init_cache,
        {"params": LAYERED, "arch": ARCH, "memory_BSD": floats(B, S, D), "segments_BS": ints(B, S),
         "hypotheses": R, "max_length": T, "layout": NO_MESH},
        LISTED, shared="*D", accepts=unread(LISTED, "params/decoder", "tables/target"),
    ),
    Call(
        transformer.decode_step,
        {"params": LAYERED, "arch": ARCH, "cache": CACHE, "tokens_BR": ints(B, R),
         "parents_BR": ints(B, R), "execution": Execution(), "layout": NO_MESH},
        LISTED | CACHE_LETTERS, shared="*",
        accepts=unread(LISTED, "params/decoder", "tables/target"),
    ),
    Call(
        transformer.single_sentences,
        {"source_BS": ints(B, S), "target_BT": ints(B, T), "bos": 2}, least={"bos": 0},
    ),
]  # fmt: skip


def test_every_function_is_here():
    assert refusals.exported(transformer) == {str(call) for call in CALLS}


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_what_is_wrong_is_refused_by_function_and_argument(call):
    refusals.assert_refused(call)


@pytest.fixture
def model(draw, rng):
    """Parameters, and a batch of two pairs of real ids."""
    ids = lambda length: jnp.asarray(rng.integers(4, V, (B, length)), jnp.int32)  # noqa: E731
    return draw(transformer.declare(ARCH)), transformer.single_sentences(ids(S), ids(T), bos=2)


def test_known_ids_outside_the_vocabulary_are_refused(model):
    weights, batch = model
    wrong = [
        ("source", V, "batch.source holds 11, but the ids of arch.source_vocab are 0 to 10"),
        ("source", -1, "batch.source holds -1"),
        ("target_input", V + 2, "batch.target_input holds 13, .* arch.target_vocab are 0 to 12"),
    ]
    for field, value, message in wrong:
        changed = batch._replace(**{field: getattr(batch, field).at[1, 2].set(value)})
        with pytest.raises(ValueError, match=f"forward: {message}"):
            transformer.forward(weights, ARCH, changed)
    jax.jit(transformer.forward, static_argnums=1).lower(weights, ARCH, changed)  # not known


def test_a_decoding_step_has_known_parents_and_room(model):
    weights, batch = model
    weights = transformer.inference_params(weights, ARCH)
    memory = jnp.ones((B, S, D))
    cache = transformer.init_cache(
        weights, ARCH, memory, batch.source_segments, hypotheses=R, max_length=1
    )
    tokens, parents = jnp.ones((B, R), jnp.int32), jnp.zeros((B, R), jnp.int32)
    with pytest.raises(
        ValueError, match=r"decode_step: parents_BR holds 3, .* hypotheses are 0 to"
    ):
        transformer.decode_step(weights, ARCH, cache, tokens, parents + R)
    with pytest.raises(ValueError, match="decode_step: tokens_BR holds 13"):
        transformer.decode_step(weights, ARCH, cache, tokens + V + 1, parents)
    with pytest.raises(
        ValueError, match=r"decode_step: tokens_BR \[B,R\] has shape \(2, 2\), but R"
    ):
        transformer.decode_step(weights, ARCH, cache, tokens[:, :2], parents[:, :2])
    _, cache = transformer.decode_step(weights, ARCH, cache, tokens, parents)
    with pytest.raises(ValueError, match=r"cache has room for 1 steps, and all are taken"):
        transformer.decode_step(weights, ARCH, cache, tokens, parents)


def test_parameters_that_are_not_those_of_the_architecture_are_refused_by_path(model):
    weights, batch = model
    wider = dataclasses.replace(ARCH, d_ff=F + 1)
    with pytest.raises(
        ValueError, match=r"forward: params\['encoder'\]\['layers'\]\['ff'\]\['down"
    ):
        transformer.forward(weights, wider, batch)
    with pytest.raises(
        ValueError, match=r"params\['decoder'\] is missing|params\['decoder'\].* is m"
    ):
        transformer.forward({k: weights[k] for k in ("tables", "encoder")}, ARCH, batch)
    with pytest.raises(ValueError, match="is stacked; pass what inference_params"):
        transformer.init_cache(
            weights, ARCH, jnp.ones((B, S, D)), batch.source_segments, hypotheses=R, max_length=T
        )
    layered = transformer.inference_params(weights, ARCH)
    layered["decoder"]["layers"].pop()
    with pytest.raises(ValueError, match=r"\['layers'\] has 1 layers; arch.decoder_layers is 2"):
        transformer.decode(layered, ARCH, jnp.ones((B, S, D)), batch.source_segments, *batch[3:6])


def test_contexts_belong_to_their_attention(model):
    weights, _ = model
    own = jax.tree.map(lambda x: x[0], weights["decoder"]["layers"]["self"])
    x = jnp.ones((B, T, D))
    with pytest.raises(ValueError, match="self_attention: context is of kind 'cross'; it must be"):
        transformer.self_attention(own, x, ARCH, CROSS)
    numbers = SELF._replace(mask=jnp.zeros((B, 1, T, T)))
    with pytest.raises(ValueError, match=r"context\.mask is a float32 array .*; it must be bool"):
        transformer.self_attention(own, x, ARCH, numbers)
    with pytest.raises(ValueError, match="cache is None, but context is of kind 'step'"):
        transformer.self_attention(own, x, ARCH, SELF._replace(kind="step"))
    with pytest.raises(ValueError, match="layer: cross_kv and cross_context belong together"):
        layer = jax.tree.map(lambda x: x[0], weights["decoder"]["layers"])
        transformer.layer(layer, x, ARCH, SELF, KV)


@pytest.mark.parametrize(
    ("field", "wrong", "message"),
    [
        ("positions", "rotery", "positions: no scheme 'rotery'; did you mean 'rotary'"),
        ("attention", "locall", "attention 'locall'.* '?local"),
        ("norm", "layr", "norm 'layr'.* '?layer"),
        ("tie", "al", "tie 'al'.* '?all"),
        ("activation", 3, "activation 3.* relu, gelu, .* swiglu"),
    ],
)
def test_unknown_names_in_an_architecture_are_refused_with_the_nearest(field, wrong, message):
    with pytest.raises(ValueError, match=message):
        transformer.declare(dataclasses.replace(ARCH, **{field: wrong}))


def test_unknown_names_in_an_execution_are_refused_with_the_nearest():
    for field, wrong in (("dtype", "float3"), ("remat", "doots"), ("implementation", "cudn")):
        with pytest.raises(ValueError, match=f"{field} '{wrong}'.* '?(float32|dots|cudnn)"):
            transformer.validate(ARCH, Execution(**{field: wrong}))


def test_a_key_may_be_one_for_each_row_but_not_for_any_number_of_rows(model):
    weights, batch = model
    forward = lambda key: jax.eval_shape(  # noqa: E731
        lambda w: transformer.forward(w, ARCH, batch, key=key), weights
    )
    assert forward(jax.random.split(KEY, B)).shape == forward(KEY).shape == (B, T, D)
    with pytest.raises(ValueError, match=r"key has shape \(3,\); .* whose number divides 2"):
        forward(jax.random.split(KEY, 3))
