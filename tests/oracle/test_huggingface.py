"""Against Hugging Face's Marian with random weights: the whole encoder-decoder, end to end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import embeddings, transformer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("quick_compile")

B, S, T, V, D, N, F, L = 3, 7, 5, 13, 16, 4, 24, 2
SOURCE_LENGTHS, TARGET_LENGTHS = [7, 3, 5], [5, 4, 2]


@pytest.fixture(scope="module")
def marian():
    """Post-norm, sines before cosines, embeddings scaled by sqrt(D), one table for all."""
    torch.manual_seed(0)
    model = transformers.MarianMTModel(
        transformers.MarianConfig(
            vocab_size=V, d_model=D, max_position_embeddings=16, pad_token_id=0, eos_token_id=3,
            encoder_layers=L, encoder_attention_heads=N, encoder_ffn_dim=F,
            decoder_layers=L, decoder_attention_heads=N, decoder_ffn_dim=F,
            decoder_start_token_id=2, forced_eos_token_id=None, activation_function="relu",
            scale_embedding=True, share_encoder_decoder_embeddings=True, tie_word_embeddings=True,
        )
    ).eval()  # fmt: skip
    for name, parameter in model.named_parameters():
        if "embed_positions" not in name:
            norm_scale = "layer_norm.weight" in name
            torch.nn.init.normal_(parameter, mean=float(norm_scale), std=0.25)
    return model


def from_marian(model):
    """Marian's parameters, one by one, in our tree."""
    state = {name: np.asarray(x.detach()) for name, x in model.model.named_parameters()}

    def matrix(name):
        return state[f"{name}.weight"].T, state[f"{name}.bias"]

    def attend(name):
        tree = {}
        for letter in "qkv":
            w, b = matrix(f"{name}.{letter}_proj")
            tree[letter] = {"w": w.reshape(D, N, D // N), "b": b.reshape(N, D // N)}
        w, b = matrix(f"{name}.out_proj")
        return tree | {"out": {"w": w.reshape(N, D // N, D), "b": b}}

    def norm(name):
        return {"scale": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}

    def layer(side, i):
        name = f"{side}.layers.{i}"
        up, up_bias = matrix(f"{name}.fc1")
        down, down_bias = matrix(f"{name}.fc2")
        tree = {
            "self": attend(f"{name}.self_attn"),
            "self_norm": norm(f"{name}.self_attn_layer_norm"),
            "ff": {"up": up, "up_bias": up_bias, "down": down, "down_bias": down_bias},
            "ff_norm": norm(f"{name}.final_layer_norm"),
        }
        if side == "decoder":
            tree["cross"] = attend(f"{name}.encoder_attn")
            tree["cross_norm"] = norm(f"{name}.encoder_attn_layer_norm")
        return tree

    def stacked(side):
        return {
            "layers": jax.tree.map(lambda *xs: jnp.stack(xs), *(layer(side, i) for i in range(L)))
        }

    return {
        "tables": {"source": jnp.asarray(state["shared.weight"])},
        "encoder": stacked("encoder"),
        "decoder": stacked("decoder"),
    }


ARCH = transformer.Architecture(
    source_vocab=V, target_vocab=V, d_model=D, heads=N, d_ff=F, encoder_layers=L, decoder_layers=L,
    norm_placement="post", activation="relu", positions="sinusoidal", dropout=0.0, tie="all",
)  # fmt: skip


def test_the_mapped_parameters_have_the_declared_shapes(marian):
    declared = jax.tree.map(
        lambda p: p.shape, transformer.declare(ARCH), is_leaf=lambda x: hasattr(x, "init")
    )
    assert jax.tree.map(lambda x: x.shape, from_marian(marian)) == declared
    assert all(float(b.abs().max()) == 0 for b in [marian.final_logits_bias])


@pytest.mark.parametrize("unroll", [0, 1])
def test_an_encoder_decoder_is_marian(marian, unroll):
    rng = np.random.default_rng(0)
    source, target = rng.integers(1, V, (B, S)), rng.integers(1, V, (B, T))
    real_source = (np.arange(S) < np.array(SOURCE_LENGTHS)[:, None]).astype(np.int32)
    real_target = (np.arange(T) < np.array(TARGET_LENGTHS)[:, None]).astype(np.int32)
    with torch.no_grad():
        theirs = marian(
            input_ids=torch.tensor(source),
            attention_mask=torch.tensor(real_source),
            decoder_input_ids=torch.tensor(target),
            decoder_attention_mask=torch.tensor(real_target),
        )
    params, options = from_marian(marian), {"execution": transformer.Execution(unroll=unroll)}
    batch = transformer.Batch(
        source=source,
        source_segments=real_source,
        source_positions=np.broadcast_to(np.arange(S), (B, S)),
        target_input=target,
        target_segments=real_target,
        target_positions=np.broadcast_to(np.arange(T), (B, T)),
    )
    batch = jax.tree.map(jnp.asarray, batch)

    def close(ours, theirs, real):
        ours, theirs = np.asarray(ours)[real > 0], theirs.numpy()[real > 0]
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()

    memory = transformer.encode(params, ARCH, *batch[:3], **options)
    close(memory, theirs.encoder_last_hidden_state, real_source)
    hidden = transformer.forward(params, ARCH, batch, **options)
    logits = embeddings.logits(hidden, transformer.output_table(params, ARCH))
    close(logits, theirs.logits, real_target)
