"""The trace: the model's own numbers, for every kind of attention and positions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tfm
from tfm import embeddings, inspect, transformer
from tfm.attention import linear
from tfm.inspect import alignment, space
from tfm.inspect import positions as pictures
from tfm.inspect.activations import activations, batch
from tfm.transformer import Architecture, Execution

pytestmark = pytest.mark.usefixtures("quick_compile")

SMALL = Architecture(
    source_vocab=11, target_vocab=11, d_model=16, heads=4, kv_heads=2, d_ff=24, encoder_layers=2,
    decoder_layers=2, window=2,
)  # fmt: skip
ROWS = batch([[5, 6, 7, 8, 9, 3], [4, 3]], [[7, 6, 5, 3], [8, 9, 4, 5, 3]], rows=2)
ROW = jax.tree.map(lambda x: x[:1], ROWS)
KINDS = [
    {},
    {"norm_placement": "post", "norm": "rms", "activation": "swiglu"},
    {"norm_placement": "deepnorm", "positions": "learned", "qk_norm": True, "soft_cap": 3.0},
    {"positions": "shaw:clip=3", "bias": False},
    {"positions": "t5:buckets=8,max_distance=12", "attention": "local"},
    {"positions": "alibi", "attention": "additive", "cross_attention": "additive"},
    {"positions": "rotary"},
    {"positions": "transformer_xl"},
    {"positions": "fire:hidden=8,threshold=4"},
    {"positions": "rotary:interleaved=True", "attention": "linear"},
    {"positions": "none", "attention": "linear"},
]


def name(kind):
    return "-".join(map(str, kind.values())) or "default"


def run_of(draw, arch, rows=ROWS):
    """Random parameters, and the activations of the pairs."""
    params = draw(transformer.declare(arch))
    return params, jax.jit(activations, static_argnums=1)(params, arch, rows)


@pytest.mark.parametrize("kind", KINDS, ids=name)
def test_activations_are_what_the_model_computes(kind, draw):
    arch = dataclasses.replace(SMALL, **kind)
    params, run = run_of(draw, arch)

    hidden = jax.jit(transformer.forward, static_argnums=1)(params, arch, ROWS)
    logits = embeddings.logits(hidden, transformer.output_table(params, arch))
    real = ROWS.target_segments != 0
    np.testing.assert_allclose(run.logits_BTV[real], logits[real], rtol=1e-4, atol=1e-4)

    for a in (run.encoder, run.decoder, run.cross):
        seen = jnp.broadcast_to(a.mask_BTS[:, None, None], a.weights_BLNTS.shape)
        assert (jnp.where(seen, 0.0, a.weights_BLNTS) == 0).all()
        sums = a.weights_BLNTS.sum(-1)
        if kind.get("positions") != "rotary:interleaved=True":  # features of any sign
            np.testing.assert_allclose(sums, seen.any(-1), atol=1e-5)
        if arch.attention == "linear" and a is not run.cross:
            continue
        expected = jax.nn.softmax(jnp.where(seen, a.scores_BLNTS, -1e30))
        np.testing.assert_allclose(
            a.weights_BLNTS, jnp.where(seen, expected, 0.0), rtol=1e-4, atol=1e-5
        )


def test_scores_are_the_sum_of_their_terms(draw):
    """Scaled products, and what positions add."""
    for kind in ({"positions": "shaw:clip=3"}, {"positions": "rotary"}, {"positions": "alibi"}):
        _, run = run_of(draw, dataclasses.replace(SMALL, **kind))
        a = run.decoder
        np.testing.assert_allclose(a.scores_BLNTS, a.products_BLNTS / 2 + a.added_BLNTS, atol=1e-5)
        assert np.abs(a.added_BLNTS).max() > 0.01
        cross = run.cross
        np.testing.assert_allclose(cross.scores_BLNTS, cross.products_BLNTS / 2, atol=1e-5)
        assert np.all(cross.added_BLNTS == 0)


def test_what_is_kept_can_be_read_from_either_kind_of_parameters(draw):
    """As trained, or as inference reads them: the decoder's layers a list."""
    params, run = run_of(draw, SMALL)
    fast = transformer.inference_params(params, SMALL)
    for execution in (Execution(), Execution(unroll=1)):
        again = activations(fast, SMALL, ROWS, execution)
        assert jax.tree.structure(again) == jax.tree.structure(run)
        for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(run), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_norms_are_those_of_the_residual_stream(draw):
    """Of the input, and after every sublayer: 2 in an encoder layer, 3 in a decoder layer."""
    params, run = run_of(draw, dataclasses.replace(SMALL, norm_placement="post"))
    assert run.encoder_norms_BPS.shape == (2, 1 + 2 * 2, 6)
    assert run.decoder_norms_BPT.shape == (2, 1 + 2 * 3, 5)
    arch = dataclasses.replace(SMALL, norm_placement="post")
    x = transformer.embed_tokens(params, arch, "encoder", ROWS.source, ROWS.source_positions)
    np.testing.assert_allclose(run.encoder_norms_BPS[:, 0], jnp.linalg.norm(x, axis=-1), rtol=1e-5)
    last = transformer.forward(params, arch, ROWS)  # post-norm: no norm after the last layer
    np.testing.assert_allclose(
        run.decoder_norms_BPT[:, -1], jnp.linalg.norm(last, axis=-1), rtol=1e-4
    )


def test_one_matrix_gives_symmetric_scores_and_two_do_not(draw):
    _, run = run_of(draw, dataclasses.replace(SMALL, kv_heads=0, bias=False, positions="none"))
    one, two = run.one_matrix_BLNSS[0], run.two_matrices_BLNSS[0]
    np.testing.assert_allclose(one, one.swapaxes(-1, -2), rtol=1e-4, atol=1e-4)
    assert np.abs(two - two.swapaxes(-1, -2)).max() > 0.1
    np.testing.assert_allclose(two, run.encoder.products_BLNTS[0], rtol=1e-4, atol=1e-4)


def test_padding_beyond_the_table_of_positions_is_harmless(draw):
    arch = dataclasses.replace(SMALL, positions="learned:max_length=6")
    rows = batch([[5, 6, 7, 8, 9, 3]], [[7, 6, 3]], rows=2, multiple=8)
    assert rows.source.shape == (2, 8)
    _, run = run_of(draw, arch, rows)
    assert all(np.isfinite(x[:1]).all() for x in jax.tree.leaves(run))


def test_weights_of_linear_attention_give_its_output(rng):
    q, k, v = (jnp.asarray(rng.normal(size=(1, 2, 5, 4)), jnp.float32) for _ in range(3))
    segments = jnp.ones((1, 5), jnp.int32)
    one_hot = jnp.broadcast_to(jnp.eye(5), (1, 2, 5, 5))
    weights = linear.linear_heads_first(q, k, one_hot, segments, causal=True)
    out = linear.linear_heads_first(q, k, v, segments, causal=True)
    np.testing.assert_allclose(weights @ v, out, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scheme", ["t5:buckets=8,max_distance=12", "alibi"])
def test_what_is_drawn_by_distance_is_the_bias_of_that_distance(scheme, draw):
    arch = dataclasses.replace(SMALL, positions=scheme)
    params, run = run_of(draw, arch, ROW)
    found = pictures.draw(params, arch, jax.tree.map(np.asarray, run), 8)
    bias_NT = transformer.self_context(
        params["encoder"], arch, jnp.ones((1, 6), jnp.int32), jnp.arange(6)[None], causal=False
    ).bias[0, :, 0]
    middle = len(found.distances_M) // 2
    np.testing.assert_allclose(found.encoder_NM[:, middle:], bias_NT, atol=1e-4)
    assert np.isnan(found.decoder_NM[:, -1]).all()  # later keys are hidden
    assert found.added_PD is None and found.cosines_PC is None


def test_a_rotation_is_drawn_by_distance_and_by_its_cosines(draw):
    arch = dataclasses.replace(SMALL, positions="rotary")
    params, run = run_of(draw, arch, ROW)
    found = pictures.draw(params, arch, jax.tree.map(np.asarray, run), 8)
    assert found.added_PD is None and found.cosines_PC.shape == (8, 2)
    middle = len(found.distances_M) // 2
    np.testing.assert_allclose(found.encoder_NM[:, middle], 0.0, atol=1e-5)  # distance 0
    assert np.abs(found.encoder_NM[:, middle + 1]).max() > 1e-3


def test_learned_tables_are_those_of_their_sides(draw):
    arch = dataclasses.replace(SMALL, positions="learned:max_length=16")
    params, run = run_of(draw, arch, ROW)
    found = pictures.draw(params, arch, jax.tree.map(np.asarray, run), 64)
    for side, added in (("encoder", found.added_PD), ("decoder", found.decoder_added_PD)):
        expected = np.asarray(params[side]["positions"]) * arch.d_model**0.5
        assert len(added) == 16  # not 64: no longer than the table
        np.testing.assert_allclose(added, expected, rtol=1e-4, atol=1e-5)


def test_rotary_cosines(draw):
    arch = dataclasses.replace(SMALL, positions="rotary:base=500,scaling=2", head_dim=6)
    found = pictures._cosines(arch, 5)
    frequencies = 500.0 ** (-np.arange(3) / 3) / 2
    np.testing.assert_allclose(found, np.cos(np.outer(np.arange(5), frequencies)), atol=1e-6)
    assert pictures._cosines(SMALL, 5) is None


def test_neighbours_are_the_largest_cosines(rng):
    table = rng.normal(size=(12, 5))
    near, cosines = space.neighbours(np.array([4, 7]), table, 3)
    for i, ids, values in zip([4, 7], near, cosines, strict=True):
        others = [j for j in range(4, 12) if j != i]
        cosine = {
            j: table[i] @ table[j] / np.linalg.norm(table[i]) / np.linalg.norm(table[j])
            for j in others
        }
        assert ids.tolist() == sorted(others, key=lambda j: -cosine[j])[:3]
        np.testing.assert_allclose(values, [cosine[j] for j in ids])


def test_principal_axes_hold_the_plane_that_points_lie_in(rng):
    plane = np.linalg.qr(rng.normal(size=(7, 2)))[0].T
    flat = rng.normal(size=(20, 2)) * [3.0, 1.0]
    found, share = space.principal_axes(flat @ plane + 5.0)
    np.testing.assert_allclose(share.sum(), 1.0)
    assert share[0] > share[1] > 0
    apart = lambda x: np.linalg.norm(x[:, None] - x[None], axis=-1)  # noqa: E731
    np.testing.assert_allclose(apart(found), apart(flat), atol=1e-9)


@pytest.fixture(scope="module")
def model(tiny_run):
    return tfm.load(tiny_run)


@pytest.fixture(scope="module")
def traced(model):
    return inspect.trace(model, "abc de", "ABD DE", beam_size=3)


def test_the_trace_is_of_the_translators_own_translation(model, traced):
    assert traced.target.text == model.translate(["abc de"], beam_size=3)[0]
    own, other = model.score(["abc de"] * 2, [traced.target.text, "ABD DE"])
    np.testing.assert_allclose(traced.output.log_probs_T.sum(), own, rtol=1e-4)
    np.testing.assert_allclose(traced.reference_output.log_probs_T.sum(), other, rtol=1e-4)
    assert traced.source.pieces[-1] == traced.target.pieces[-1] == "</s>"
    T, S = len(traced.target.pieces), len(traced.source.pieces)
    assert traced.run.cross.weights_BLNTS.shape[-2:] == (T, S)
    assert all(
        isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(traced)
    )  # and the trace is a pytree


def test_the_tree_holds_what_search_found(model, traced):
    tree = traced.tree
    found = model.n_best(["abc de"], 3, beam_size=3)[0]
    ends = np.flatnonzero(~np.isnan(tree.scores_P))
    best_first = ends[np.argsort(-tree.scores_P[ends], kind="stable")]
    assert [tree.texts[i] for i in best_first] == [t.text for t in found]
    np.testing.assert_allclose(tree.log_probs_P[best_first], [t.log_prob for t in found], rtol=1e-4)
    assert (tree.parents_P[1:] < np.arange(1, len(tree.parents_P))).all()
    assert (tree.log_probs_P[1:] <= tree.log_probs_P[tree.parents_P[1:]] + 1e-5).all()
    assert tree.best_P.sum() == len(traced.target.pieces) + 1
    gained = np.diff(tree.log_probs_P[tree.best_P])  # the same numbers as teacher forcing
    np.testing.assert_allclose(gained, traced.output.log_probs_T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("sentence", "reference", "message"),
    [("  ", None, "the sentence is empty"), ("a" * 99, None, "tokens, the model takes 32"),
     ("a", "", "the reference is empty")],
)  # fmt: skip
def test_texts_that_cannot_be_traced(model, sentence, reference, message):
    with pytest.raises(ValueError, match=message):
        inspect.trace(model, sentence, reference)


@pytest.mark.parametrize("damaged", ["all", "one letter"])
def test_a_model_that_finds_no_translation_is_an_error(untrained, damaged):
    model = untrained()
    if damaged == "all":
        params = jax.tree.map(lambda x: x * jnp.nan, model.params)
    else:
        tables = dict(model.params["tables"])
        tables["source"] = tables["source"].at[model.source.encode("h")[-2]].set(jnp.nan)
        params = model.params | {"tables": tables}
    with pytest.raises(ValueError, match=r"inspect: no translation found.* weights damaged"):
        inspect.trace(model.with_params(params), "hab")


def test_pairs_leave_out_what_attends_to_the_end_most():
    weights_TS = np.array([[0.1, 0.7, 0.2], [0.2, 0.1, 0.7], [0.5, 0.3, 0.2], [0.9, 0.1, 0.0]])
    assert alignment.pairs(weights_TS) == ((1, 0), (0, 2))
