"""``transformer.activations``: forward, with what every layer computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import masks, transformer
from tfm.transformer import Architecture, Execution

pytestmark = pytest.mark.usefixtures("quick_compile")

PAIRS = [(7, 5), (3, 4), (5, 2)]
CASES = [
    ({}, 0),
    ({}, 1),
    ({"norm_placement": "post", "positions": "shaw:clip=2", "kv_heads": 2}, 1),
    ({"norm_placement": "deepnorm", "attention": "local", "window": 2, "positions": "t5"}, 1),
    ({"attention": "linear", "positions": "rotary"}, 1),
    ({"attention": "additive", "cross_attention": "additive", "soft_cap": 3.0}, 1),
]


def keep(params, output):
    return {
        "x": output.x,
        "self": output.self_attention,
        "cross": output.cross_attention,
        "residual": output.residual,
        "scale": params["ff_norm"]["scale"],
    }


@pytest.fixture(params=CASES, ids=lambda case: "-".join(map(str, [*case[0].values(), case[1]])))
def case(request, rng, draw, sentences):
    changes, unroll = request.param
    arch = Architecture(
        source_vocab=11, target_vocab=11, d_model=16, heads=4, d_ff=24, encoder_layers=2,
        decoder_layers=2, dropout=0.0, tie="none", **changes,
    )  # fmt: skip
    params, batch = draw(transformer.declare(arch)), sentences(rng, PAIRS)
    execution = Execution(unroll=unroll)
    found = transformer.activations(params, arch, batch, keep, execution=execution)
    return params, arch, batch, execution, found


def test_activations_are_those_of_forward(case):
    params, arch, batch, execution, found = case
    hidden = transformer.forward(params, arch, batch, execution=execution)
    real = batch.target_segments > 0
    # Local attention, for one, is computed otherwise where its weights are kept.
    np.testing.assert_allclose(np.asarray(found.hidden)[real], hidden[real], atol=2e-5)

    for side, kept, norms in (("encoder", found.encoder, 2), ("decoder", found.decoder, 3)):
        assert len(kept["residual"]) == norms and (kept["cross"] is None) == (side == "encoder")
        np.testing.assert_array_equal(kept["residual"][-1], kept["x"])  # of both layers
        scale = params[side]["layers"]["ff_norm"]["scale"]
        np.testing.assert_array_equal(kept["scale"], scale)  # of the layer's own parameters
    last = transformer.final_norm(params["decoder"], found.decoder["x"][-1])
    np.testing.assert_allclose(found.hidden, last, atol=1e-6)
    embed = lambda side, ids, at: transformer.embed_tokens(params, arch, side, ids, at)  # noqa: E731
    source = embed("encoder", batch.source, batch.source_positions)
    target = embed("decoder", batch.target_input, batch.target_positions)
    np.testing.assert_allclose(found.encoder_input, source, atol=1e-6)
    np.testing.assert_allclose(found.decoder_input, target, atol=1e-6)


def test_weights_are_the_softmax_of_the_scores_that_are_kept(case):
    _, arch, batch, _, found = case
    source, target = batch.source_segments, batch.target_segments
    visible = {
        "encoder": masks.segment(source, source),
        "decoder": masks.segment(target, target) & masks.causal(5),
        "cross": masks.segment(target, source),
    }
    if arch.attention == "local":
        visible["encoder"] &= masks.window(7, 7, arch.window)
        visible["decoder"] &= masks.window(5, 5, arch.window)
    attentions = {
        "encoder": found.encoder["self"],
        "decoder": found.decoder["self"],
        "cross": found.decoder["cross"],
    }
    for name, attention in attentions.items():
        mask, (T, S) = visible[name][None], visible[name].shape[2:]
        products, added, scores = attention.scores
        assert attention.weights.shape == scores.shape == (2, 3, 4, T, S)
        assert products.shape == added.shape == scores.shape
        assert np.all(np.where(mask, 0.0, attention.weights) == 0)
        if arch.attention == "linear" and name != "cross":
            continue
        softmax = jnp.where(mask, jax.nn.softmax(jnp.where(mask, scores, -1e30)), 0.0)
        np.testing.assert_allclose(attention.weights, softmax, atol=1e-5)
