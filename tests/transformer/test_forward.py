import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import embeddings, positions, transformer
from tfm.transformer import Architecture, Execution

pytestmark = pytest.mark.usefixtures("quick_compile")

ARCH = Architecture(
    source_vocab=11, target_vocab=11, d_model=16, heads=4, d_ff=24,
    encoder_layers=2, decoder_layers=2, dropout=0.0, tie="none",
)  # fmt: skip
SCAN = Execution(unroll=1)  # one compiled layer a side
PAIRS = [(7, 5), (3, 4), (5, 2)]


def architecture(**changes):
    return dataclasses.replace(ARCH, **changes)


def source(batch):
    return [jnp.asarray(x) for x in batch[:3]]


def target(batch):
    return [jnp.asarray(x) for x in batch[3:6]]


def without_padding(batch, x_BTD):
    return np.asarray(x_BTD)[batch.target_segments > 0]


def test_no_position_sees_the_future_and_all_see_the_source(rng, draw, sentences):
    """All tokens of a side differ, so the gradient of a table's row is that of one token."""
    params = draw(transformer.declare(ARCH))
    from_source = np.array([[2, 7, 4, 9, 5, 1, 3]], np.int32)
    from_target = np.array([[2, 7, 4, 9, 5]], np.int32)
    batch = sentences(rng, [(7, 5)])._replace(source=from_source, target_input=from_target)
    weight = jnp.asarray(rng.normal(size=(1, 5, 16)), jnp.float32)

    @jax.jit
    @jax.jacrev
    def sensitivity(tables):  # a table → [T,V,D]
        hidden = transformer.forward(params | {"tables": tables}, ARCH, batch, execution=SCAN)
        return (hidden * weight).sum(axis=(0, 2))

    tables = jax.tree.map(lambda x: np.abs(x).max(axis=-1), sensitivity(params["tables"]))
    sees = tables["target"][:, from_target[0]]
    assert np.all(sees[np.triu_indices(5, 1)] == 0.0)
    assert np.all(sees[np.tril_indices(5)] > 1e-4)
    assert np.all(tables["source"][:, from_source[0]] > 1e-4)


def test_padding_does_not_matter(rng, draw, sentences):
    params, batch = draw(transformer.declare(ARCH)), sentences(rng, PAIRS)
    run = lambda batch: without_padding(batch, transformer.forward(params, ARCH, batch))  # noqa: E731

    def other_padding(tokens, segments, positions):
        random = rng.integers(0, 11, tokens.shape)
        return np.where(segments, tokens, random), segments, np.where(segments, positions, 0)

    other = transformer.Batch(*other_padding(*batch[:3]), *other_padding(*batch[3:6]))
    assert np.any(other.source != batch.source)
    np.testing.assert_array_equal(run(other), run(batch))


def test_width_and_neighbours_do_not_matter(rng, draw, sentences):
    """A sentence alone, without padding, gives what it gives in the batch."""
    params, batch = draw(transformer.declare(ARCH)), sentences(rng, PAIRS)
    run = jax.jit(lambda batch: transformer.forward(params, ARCH, batch, execution=SCAN))
    assert PAIRS[1] == (3, 4)
    alone = transformer.Batch(*(x[1:2, :3] for x in batch[:3]), *(x[1:2, :4] for x in batch[3:6]))
    np.testing.assert_allclose(run(alone)[0], run(batch)[1, :4], atol=2e-5)


@pytest.mark.parametrize("scheme", ["sinusoidal", "learned", "none", "rotary"])
@pytest.mark.parametrize(("side", "table"), [("encoder", "source"), ("decoder", "target")])
def test_input_is_the_scaled_embedding_plus_its_position(draw, scheme, side, table):
    """Vaswani 2017, §3.4: embeddings times sqrt(D); learned positions are scaled alike."""
    arch = architecture(positions=scheme)
    params, tokens, at = draw(transformer.declare(arch)), jnp.array([[3, 1]]), jnp.array([[0, 4]])
    added = {
        "sinusoidal": lambda: positions.sinusoidal(at, 16),
        "learned": lambda: 4.0 * params[side]["positions"][at],
    }.get(scheme, lambda: 0.0)()
    x_BTD = transformer.embed_tokens(params, arch, side, tokens, at)
    expected = 4.0 * params["tables"][table][tokens] + added
    np.testing.assert_allclose(x_BTD, expected, atol=1e-6)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned:max_length=8"])
def test_packed_equals_unpacked(rng, draw, sentences, positions):
    arch = architecture(positions=positions)
    params, batch = draw(transformer.declare(arch)), sentences(rng, PAIRS)
    run = lambda batch: without_padding(batch, transformer.forward(params, arch, batch))  # noqa: E731

    def pack(tokens, segments, positions):
        numbers = np.arange(1, len(PAIRS) + 1, dtype=np.int32)[:, None]
        flat = (x[segments > 0] for x in (tokens, segments * numbers, positions))
        return [np.pad(x, (0, 2))[None] for x in flat]  # with some padding at the end

    packed = transformer.Batch(*pack(*batch[:3]), *pack(*batch[3:6]))
    assert packed.source_segments.tolist() == [[1] * 7 + [2] * 3 + [3] * 5 + [0] * 2]
    np.testing.assert_allclose(run(packed), run(batch), atol=2e-5)


def test_padded_rows_are_finite(rng, draw, sentences):
    """A row of padding alone gives no NaN to a gradient."""
    arch = architecture(encoder_layers=1, decoder_layers=1)
    params, batch = draw(transformer.declare(arch)), sentences(rng, [(7, 5), (0, 0)])
    loss = lambda p: jnp.square(transformer.forward(p, arch, batch, execution=SCAN)).sum()  # noqa: E731
    grads = jax.jit(jax.grad(loss))(params)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads))


def test_a_scan_over_layers_equals_a_loop_with_dropout_too(rng, draw, sentences):
    rates = {"dropout": 0.3, "attention_dropout": 0.2, "activation_dropout": 0.2}
    arch = architecture(encoder_layers=3, **rates)
    params, inputs = draw(transformer.declare(arch)), source(sentences(rng, PAIRS))

    def memory(unroll):
        execution = Execution(unroll=unroll)
        return transformer.encode(params, arch, *inputs, key=jax.random.key(3), execution=execution)

    for unroll in (1, 2):
        np.testing.assert_allclose(memory(unroll), memory(0), atol=3e-5)


def test_recomputing_changes_no_number(rng, draw, sentences):
    """Nor the gradient of the memory, which every layer's recomputation closes over."""
    arch = architecture(decoder_layers=3, dropout=0.3)
    params, batch = draw(transformer.declare(arch)), sentences(rng, PAIRS)
    weight = jnp.asarray(rng.normal(size=(3, 5, 16)), jnp.float32)
    memory = jnp.asarray(rng.normal(size=(3, 7, 16)), jnp.float32)

    def value_and_grad(remat):
        def loss(layers, memory):
            decoder = params["decoder"] | {"layers": layers}
            hidden = transformer.decode(
                params | {"decoder": decoder},
                arch,
                memory,
                source(batch)[1],
                *target(batch),
                key=jax.random.key(1),
                execution=Execution(unroll=1, remat=remat),
            )
            return (hidden * weight).sum()

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(
            params["decoder"]["layers"], memory
        )

    value, grads = value_and_grad("none")
    for remat in ("dots", "full"):
        same, same_grads = value_and_grad(remat)
        np.testing.assert_allclose(same, value, rtol=1e-5)
        for a, b in zip(jax.tree.leaves(same_grads), jax.tree.leaves(grads), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5 * float(np.abs(b).max()) + 1e-6)


def test_full_recomputation_keeps_less(rng, draw, sentences):
    """What remat is for: the more is recomputed, the less the forward pass keeps."""
    params, batch = draw(transformer.declare(ARCH)), sentences(rng, PAIRS)

    def kept(remat):
        execution = Execution(unroll=1, remat=remat)
        run = lambda p: transformer.forward(p, ARCH, batch, execution=execution)  # noqa: E731
        _, backward = jax.eval_shape(lambda p: jax.vjp(run, p), params)
        return sum(x.size for x in jax.tree.leaves(backward))

    assert kept("full") < kept("dots") < kept("none")


@pytest.mark.parametrize("rate", ["dropout", "attention_dropout", "activation_dropout"])
def test_every_dropout_needs_a_key_and_differs_by_key(rng, draw, sentences, rate):
    arch = architecture(**{rate: 0.3}, encoder_layers=1, decoder_layers=1)
    params, batch = draw(transformer.declare(arch)), sentences(rng, PAIRS)
    off = dataclasses.replace(arch, **{rate: 0.0})
    plain = transformer.forward(params, off, batch, key=jax.random.key(0))
    np.testing.assert_allclose(transformer.forward(params, arch, batch), plain, atol=1e-5)
    one, same, other = (
        transformer.forward(params, arch, batch, key=jax.random.key(i)) for i in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - plain).max() > 0.1 and np.abs(one - other).max() > 0.1


def test_both_lookups_are_one_model(rng, draw, sentences):
    params, batch = draw(transformer.declare(ARCH)), sentences(rng, PAIRS)
    gathered, multiplied = (
        transformer.encode(params, ARCH, *source(batch), execution=Execution(lookup=lookup))
        for lookup in ("gather", "one_hot")
    )
    np.testing.assert_array_equal(gathered, multiplied)


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
    arch = architecture(tie=tie, encoder_layers=1, decoder_layers=1)
    params = draw(transformer.declare(arch))
    assert sorted(params["tables"]) == TIES[tie]
    batch = sentences(rng, [(3, 3)])._replace(
        source=np.array([[1, 2, 3, 0, 0, 0, 0]], np.int32),
        target_input=np.array([[4, 5, 6, 0, 0]], np.int32),
    )

    def score(tables):
        tree = params | {"tables": tables}
        hidden = transformer.forward(tree, arch, batch)
        logits = embeddings.logits(hidden, transformer.output_table(tree, arch))
        return logits[0, :3, 9].sum()

    classes = {"source": [1, 2, 3], "target": [4, 5, 6], "output": [9]}
    for name, grad in jax.grad(score)(params["tables"]).items():
        touched = set(np.flatnonzero(np.abs(grad).max(axis=-1)).tolist())
        assert touched == {i for use in USES[tie][name] for i in classes[use]}


def test_an_explicit_head_width_need_not_divide_the_model(rng, draw, sentences):
    arch = architecture(d_model=18, head_dim=6, kv_heads=2)
    params, batch = draw(transformer.declare(arch)), sentences(rng, PAIRS)
    out = jax.eval_shape(lambda p: transformer.forward(p, arch, batch), params)
    assert out.shape == (3, 5, 18)


def test_bfloat16_compute_is_close_and_parameters_stay_float32(rng, draw, sentences):
    arch = architecture(norm="rms", activation="swiglu")
    params, batch = draw(transformer.declare(arch)), sentences(rng, PAIRS)

    def run(params, dtype="bfloat16"):
        return transformer.forward(params, arch, batch, execution=Execution(dtype=dtype))

    got, expected = (jax.jit(run, static_argnums=1)(params, d) for d in ("bfloat16", "float32"))
    assert (got.dtype, expected.dtype) == (jnp.bfloat16, jnp.float32)
    error = np.abs(np.asarray(got, np.float32) - expected).max()
    assert 0 < error < 0.05 * np.abs(expected).max()
    loss = lambda params: jnp.square(run(params).astype(jnp.float32)).sum()  # noqa: E731
    grads = jax.eval_shape(jax.grad(loss), params)
    assert {x.dtype for x in jax.tree.leaves((params, grads))} == {jnp.dtype("float32")}


def test_auto_dtype_is_float32_on_the_cpu():
    assert transformer.compute_dtype(Execution(dtype="auto")) == jnp.float32


def test_a_sentence_longer_than_the_learned_table_is_an_error_or_nan(rng, draw, sentences):
    """A compiled function cannot raise: it gives NaN."""
    arch = architecture(positions="learned:max_length=6")
    params, batch = draw(transformer.declare(arch)), sentences(rng, [(7, 5)])
    with pytest.raises(ValueError, match="position 6: the table of learned positions has 6 rows"):
        transformer.encode(params, arch, *source(batch))
    compiled = jax.jit(transformer.encode, static_argnums=1)
    assert np.all(np.isnan(compiled(params, arch, *source(batch))))


def test_inference_parameters_give_what_trained_ones_give(rng, draw, sentences):
    """In the compute dtype, with the decoder's layers as a list; making them twice is harmless."""
    params, batch = draw(transformer.declare(ARCH)), sentences(rng, PAIRS)
    fast = transformer.inference_params(params, ARCH)
    assert isinstance(fast["decoder"]["layers"], list) and len(fast["decoder"]["layers"]) == 2
    again = transformer.inference_params(fast, ARCH)
    jax.tree.map(np.testing.assert_array_equal, again, fast)
    run = lambda params: transformer.forward(params, ARCH, batch)  # noqa: E731
    np.testing.assert_array_equal(run(fast), run(params))
    low = transformer.inference_params(params, ARCH, Execution(dtype="bfloat16"))
    assert {x.dtype for x in jax.tree.leaves(low)} == {jnp.dtype("bfloat16")}
