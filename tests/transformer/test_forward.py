import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import embeddings, positions, transformer

pytestmark = pytest.mark.usefixtures("quick_compile")

CONFIG = transformer.Config(
    source_vocab=11, target_vocab=11, d_model=16, heads=4, d_ff=24, max_length=8,
    encoder_layers=2, decoder_layers=2, dropout=0.0, tie="none",
)  # fmt: skip
PAIRS = [(7, 5), (3, 4), (5, 2)]


def config(**changes):
    return dataclasses.replace(CONFIG, **changes)


def hidden(weights, c, batch, key=None):
    return transformer.forward(weights, c, batch, key=key)


def source(batch):
    return [jnp.asarray(batch[f"source{x}"]) for x in ("", "_segments", "_positions")]


def target(batch):
    return [jnp.asarray(batch[f"target_{x}"]) for x in ("input", "segments", "positions")]


def real(batch, x_BTD):
    return np.asarray(x_BTD)[batch["target_segments"] > 0]


def test_no_position_sees_the_future_and_all_see_the_source(rng, draw, sentences):
    """All tokens of a side differ, so the gradient of a table's row is that of one token."""
    c = config(unroll=1)
    weights, batch = draw(transformer.declare(c)), sentences(rng, [(7, 5)])
    from_source = batch["source"] = np.array([[2, 7, 4, 9, 5, 1, 3]], np.int32)
    from_target = batch["target_input"] = np.array([[2, 7, 4, 9, 5]], np.int32)
    mix = jnp.asarray(rng.normal(size=(1, 5, 16)), jnp.float32)

    @jax.jit
    @jax.jacrev
    def sensitivity(tables):  # a table → [T,V,D]
        return (hidden(weights | {"tables": tables}, c, batch) * mix).sum(axis=(0, 2))

    tables = jax.tree.map(lambda x: np.abs(x).max(axis=-1), sensitivity(weights["tables"]))
    sees = tables["target"][:, from_target[0]]
    assert np.all(sees[np.triu_indices(5, 1)] == 0.0)
    assert np.all(sees[np.tril_indices(5)] > 1e-4)
    assert np.all(tables["source"][:, from_source[0]] > 1e-4)


def test_padding_does_not_matter(rng, draw, sentences):
    weights, batch = draw(transformer.declare(CONFIG)), sentences(rng, PAIRS)
    expected = real(batch, hidden(weights, CONFIG, batch))
    other = dict(batch)
    for name in ("source", "target"):
        tokens = "target_input" if name == "target" else name
        hide = batch[f"{name}_segments"] == 0
        other[tokens] = np.where(hide, rng.integers(0, 11, hide.shape), batch[tokens])
        other[f"{name}_positions"] = np.where(hide, 0, batch[f"{name}_positions"])
    assert np.any(other["source"] != batch["source"])
    np.testing.assert_array_equal(real(batch, hidden(weights, CONFIG, other)), expected)


def test_width_and_neighbours_do_not_matter(rng, draw, sentences):
    """Alone and without padding, a sentence is read as it is in the batch."""
    c = config(unroll=1)
    weights, batch = draw(transformer.declare(c)), sentences(rng, PAIRS)
    run = jax.jit(lambda batch: hidden(weights, c, batch))
    alone = {name: x[1:2, : 3 if name.startswith("source") else 4] for name, x in batch.items()}
    assert PAIRS[1] == (3, 4)
    np.testing.assert_allclose(run(alone)[0], run(batch)[1, :4], atol=2e-5)


@pytest.mark.parametrize("scheme", ["sinusoidal", "learned", "none"])
def test_input_is_the_scaled_embedding_plus_the_place(draw, scheme):
    """Vaswani 2017, §3.4: embeddings times sqrt(D); free positions are drawn and scaled alike."""
    c = config(positions=scheme)
    weights, tokens, places = draw(transformer.declare(c)), jnp.array([[3, 1]]), jnp.array([[0, 4]])
    added = {
        "sinusoidal": lambda: positions.sinusoidal(places, 16),
        "learned": lambda: 4.0 * weights["encoder"]["positions"][places],
        "none": lambda: 0.0,
    }[scheme]()
    x_BTD = transformer.embed_tokens(weights, c, "source", "encoder", tokens, places)
    expected = 4.0 * weights["tables"]["source"][tokens] + added
    np.testing.assert_allclose(x_BTD, expected, atol=1e-6)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_packed_equals_unpacked(rng, draw, sentences, positions):
    c = config(positions=positions)
    weights, batch = draw(transformer.declare(c)), sentences(rng, PAIRS)
    apart = real(batch, hidden(weights, c, batch))

    packed = {}
    for name, x in batch.items():
        side = name.split("_")[0]
        keep = batch[f"{side}_segments"] > 0
        numbers = np.arange(1, len(PAIRS) + 1, dtype=np.int32)[:, None]
        flat = (x * numbers if name.endswith("segments") else x)[keep]
        packed[name] = np.pad(flat, (0, 2))[None]  # and a little padding at the end
    assert packed["source_segments"].tolist() == [[1] * 7 + [2] * 3 + [3] * 5 + [0] * 2]
    np.testing.assert_allclose(real(packed, hidden(weights, c, packed)), apart, atol=2e-5)


def test_padded_rows_are_finite(rng, draw, sentences):
    """A row of nothing but padding: no NaN to poison a gradient with."""
    c = config(encoder_layers=1, decoder_layers=1, unroll=1)
    weights, batch = draw(transformer.declare(c)), sentences(rng, [(7, 5), (0, 0)])
    grads = jax.jit(jax.grad(lambda w: jnp.square(hidden(w, c, batch)).sum()))(weights)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads))


def test_scan_equals_loop_dropout_included(rng, draw, sentences):
    rates = {"dropout": 0.3, "attention_dropout": 0.2, "activation_dropout": 0.2}
    c = config(encoder_layers=3, **rates)
    weights, inputs = draw(transformer.declare(c)), source(sentences(rng, PAIRS))

    def memory(unroll):
        unrolled = dataclasses.replace(c, unroll=unroll)
        return transformer.encode(weights, unrolled, *inputs, key=jax.random.key(3))

    for unroll in (1, 2):
        np.testing.assert_allclose(memory(unroll), memory(0), atol=3e-5)


def test_recomputing_changes_no_number(rng, draw, sentences):
    """Nor the gradient of the memory, which every layer's recomputation closes over."""
    c = config(decoder_layers=3, dropout=0.3, unroll=1)
    weights, batch = draw(transformer.declare(c)), sentences(rng, PAIRS)
    mix = jnp.asarray(rng.normal(size=(3, 5, 16)), jnp.float32)
    memory = jnp.asarray(rng.normal(size=(3, 7, 16)), jnp.float32)

    def value_and_grad(remat):
        again = dataclasses.replace(c, remat=remat)

        def loss(layers, memory):
            params = weights | {"decoder": weights["decoder"] | {"layers": layers}}
            hidden = transformer.decode(
                params, again, memory, source(batch)[1], *target(batch), key=jax.random.key(1)
            )
            return (hidden * mix).sum()

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(
            weights["decoder"]["layers"], memory
        )

    value, grads = value_and_grad("none")
    for remat in ("dots", "full"):
        same, same_grads = value_and_grad(remat)
        np.testing.assert_allclose(same, value, rtol=1e-5)
        for a, b in zip(jax.tree.leaves(same_grads), jax.tree.leaves(grads), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5 * float(np.abs(b).max()) + 1e-6)


def test_full_recomputation_keeps_less(rng, draw, sentences):
    """What remat is for: residuals between forward and backward shrink in the stated order."""
    weights, batch = draw(transformer.declare(CONFIG)), sentences(rng, PAIRS)

    def kept(remat):
        c = config(remat=remat, unroll=1)
        _, backward = jax.eval_shape(
            lambda w: jax.vjp(lambda w: transformer.forward(w, c, batch), w), weights
        )
        return sum(x.size for x in jax.tree.leaves(backward))

    assert kept("full") < kept("dots") < kept("none")


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout", "activation_dropout"])
def test_every_dropout_needs_a_key_and_differs_by_key(rng, draw, sentences, rate):
    c = config(**{rate: 0.3}, encoder_layers=1, decoder_layers=1)
    weights, batch = draw(transformer.declare(c)), sentences(rng, PAIRS)
    plain = hidden(weights, dataclasses.replace(c, **{rate: 0.0}), batch, jax.random.key(0))
    np.testing.assert_allclose(hidden(weights, c, batch), plain, atol=1e-5)
    one, same, other = (hidden(weights, c, batch, jax.random.key(i)) for i in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - plain).max() > 0.1 and np.abs(one - other).max() > 0.1


def test_both_lookups_are_one_model(rng, draw, sentences):
    weights, batch = draw(transformer.declare(CONFIG)), sentences(rng, PAIRS)
    encode = lambda c: transformer.encode(  # noqa: E731
        weights, c, *source(batch)
    )
    np.testing.assert_array_equal(encode(CONFIG), encode(config(lookup="one_hot")))


TIES = {
    "none": ["output", "source", "target"],
    "target-output": ["source", "target"],
    "source-target": ["output", "source"],
    "source-output": ["source", "target"],
    "all": ["source"],
}
USES = {
    "none": {"source": {"source"}, "target": {"target"}, "output": {"output"}},
    "target-output": {"source": {"source"}, "target": {"target", "output"}},
    "source-target": {"source": {"source", "target"}, "output": {"output"}},
    "source-output": {"source": {"source", "output"}, "target": {"target"}},
    "all": {"source": {"source", "target", "output"}},
}


@pytest.mark.parametrize("tie", list(TIES))
def test_tied_tables_are_one_array_with_gradients_from_every_use(rng, draw, sentences, tie):
    """Each use touches classes of its own: the source 1–3, the target input 4–6, the label 9."""
    c = config(tie=tie, encoder_layers=1, decoder_layers=1)
    weights, batch = draw(transformer.declare(c)), sentences(rng, [(3, 3)])
    assert sorted(weights["tables"]) == TIES[tie]
    batch["source"] = np.array([[1, 2, 3, 0, 0, 0, 0]], np.int32)
    batch["target_input"] = np.array([[4, 5, 6, 0, 0]], np.int32)

    def score(tables):
        params = weights | {"tables": tables}
        scores = embeddings.logits(hidden(params, c, batch), transformer.output_table(params, c))
        return scores[0, :3, 9].sum()

    classes = {"source": [1, 2, 3], "target": [4, 5, 6], "output": [9]}
    for name, grad in jax.grad(score)(weights["tables"]).items():
        touched = set(np.flatnonzero(np.abs(grad).max(axis=-1)).tolist())
        assert touched == {i for use in USES[tie][name] for i in classes[use]}


def test_an_explicit_head_width_need_not_divide_the_model(rng, draw, sentences):
    c = config(d_model=18, head_dim=6, kv_heads=2)
    weights, batch = draw(transformer.declare(c)), sentences(rng, PAIRS)
    assert jax.eval_shape(lambda w: hidden(w, c, batch), weights).shape == (3, 5, 18)


def test_bfloat16_compute_is_close_and_parameters_stay_float32(rng, draw, sentences):
    c = config(norm="rms", activation="swiglu")
    weights, batch = draw(transformer.declare(c)), sentences(rng, PAIRS)
    low = dataclasses.replace(c, dtype="bfloat16")
    got, expected = (jax.jit(lambda w, c=c: hidden(w, c, batch))(weights) for c in (low, c))
    assert (got.dtype, expected.dtype) == (jnp.bfloat16, jnp.float32)
    error = np.abs(np.asarray(got, np.float32) - expected).max()
    assert 0 < error < 0.05 * np.abs(expected).max()
    loss = lambda w: jnp.square(hidden(w, low, batch).astype(jnp.float32)).sum()  # noqa: E731
    grads = jax.eval_shape(jax.grad(loss), weights)
    assert {x.dtype for x in jax.tree.leaves((weights, grads))} == {jnp.dtype("float32")}


def test_auto_dtype_is_float32_on_the_cpu():
    assert transformer.compute_dtype(config(dtype="auto")) == jnp.float32


def test_a_sentence_longer_than_the_learned_table_is_an_error_or_nan(rng, draw, sentences):
    """Never a guess; a compiled function cannot raise."""
    c = config(positions="learned", max_length=6)
    weights, batch = draw(transformer.declare(c)), sentences(rng, [(7, 5)])
    with pytest.raises(ValueError, match="place 6: the table of learned positions has 6 rows"):
        transformer.encode(weights, c, *source(batch))
    compiled = jax.jit(transformer.encode, static_argnums=1)
    assert np.all(np.isnan(compiled(weights, c, *source(batch))))
