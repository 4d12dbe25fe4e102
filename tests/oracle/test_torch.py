"""Against PyTorch, with its weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from tfm import attention, layers, masks, transformer
from tfm.transformer import AttentionContext

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("quick_compile")

B, T, S, D, N, H, F = 3, 5, 7, 16, 4, 4, 24


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def jax_array(tensor):
    return jnp.asarray(tensor.detach().numpy())


def close(ours, theirs, rel=1e-5):
    theirs = theirs.detach().numpy()
    assert np.abs(np.asarray(ours) - theirs).max() <= rel * np.abs(theirs).max()


def randomise(module):
    """Draws every parameter, also those that are 0 or 1 at first."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.25)
    return module.eval()


def attention_weights(module):
    """``torch.nn.MultiheadAttention`` → our tree: [3D,D] and [D,D] matrices, rows = outputs."""
    matrices = jax_array(module.in_proj_weight).reshape(3, N, H, D)
    offsets = jax_array(module.in_proj_bias).reshape(3, N, H)
    tree = {
        name: {"w": matrices[i].transpose(2, 0, 1), "b": offsets[i]} for i, name in enumerate("qkv")
    }
    out = jax_array(module.out_proj.weight).T.reshape(N, H, D)
    return tree | {"out": {"w": out, "b": jax_array(module.out_proj.bias)}}


def norm_weights(module):
    return {"scale": jax_array(module.weight), "bias": jax_array(module.bias)}


def feed_forward_weights(module):
    first, second = module.linear1, module.linear2
    return {
        "up": jax_array(first.weight).T,
        "up_bias": jax_array(first.bias),
        "down": jax_array(second.weight).T,
        "down_bias": jax_array(second.bias),
    }


@pytest.mark.parametrize("K", [4, 2, 1])
def test_attend_is_scaled_dot_product_attention(K):
    q, k, v = torch.randn(B, N, T, 8), torch.randn(B, K, S, 8), torch.randn(B, K, S, 8)
    mask = torch.rand(B, 1, T, S) < 0.6
    mask[..., 0] = True
    mask[1, 0, 2] = False  # nothing to attend to
    theirs = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, enable_gqa=True
    )
    ours = attention.attend(
        *(jax_array(x).swapaxes(1, 2) for x in (q, k, v)), mask=jax_array(mask)
    ).swapaxes(1, 2)
    theirs = torch.where(mask.any(-1, keepdim=True), theirs, 0.0)  # NaN in some versions
    close(ours, theirs)


def test_gradients_of_attend_are_torchs():
    import jax

    q, k, v = (torch.randn(B, N, n, 8, requires_grad=True) for n in (T, S, S))
    mix = torch.randn(B, N, T, 8)
    mask = torch.ones(T, S, dtype=torch.bool).tril(diagonal=S - T)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    theirs = torch.autograd.grad((out * mix).sum(), (q, k, v))

    def loss(*qkv):
        out = attention.attend(
            *(x.swapaxes(1, 2) for x in qkv), mask=masks.causal(T, S, offset=S - T)
        )
        return (out.swapaxes(1, 2) * jax_array(mix)).sum()

    ours = jax.grad(loss, argnums=(0, 1, 2))(*map(jax_array, (q, k, v)))
    for mine, yours in zip(ours, theirs, strict=True):
        close(mine, yours)


@pytest.mark.parametrize("cross", [False, True])
def test_multi_head_is_multihead_attention(cross):
    module = randomise(torch.nn.MultiheadAttention(D, N, batch_first=True))
    x = torch.randn(B, T, D)
    memory = torch.randn(B, S, D) if cross else x
    hidden = torch.arange(memory.shape[1])[None] >= torch.tensor([memory.shape[1], 3, 1])[:, None]
    theirs, their_weights = module(
        x, memory, memory, key_padding_mask=hidden, average_attn_weights=False
    )
    weights = attention_weights(module)
    ours, our_weights = attention.multi_head(
        weights,
        jax_array(x),
        attention.keys_values(weights, jax_array(memory)),
        mask=masks.padding(~jax_array(hidden)),
        return_weights=True,
    )
    close(ours, theirs)
    close(our_weights, their_weights)


def architecture(norm_first, activation):
    return transformer.Architecture(
        d_model=D, heads=N, d_ff=F, dropout=0.0, activation=activation,
        norm_placement="pre" if norm_first else "post",
    )  # fmt: skip


@pytest.mark.parametrize("norm_first", [True, False])
def test_an_encoder_layer_is_transformer_encoder_layer(norm_first):
    module = randomise(
        torch.nn.TransformerEncoderLayer(D, N, F, batch_first=True, norm_first=norm_first)
    )
    x = torch.randn(B, S, D)
    hidden = torch.arange(S)[None] >= torch.tensor([S, 3, 5])[:, None]
    theirs = module(x, src_key_padding_mask=hidden)
    weights = {
        "self": attention_weights(module.self_attn),
        "self_norm": norm_weights(module.norm1),
        "ff": feed_forward_weights(module),
        "ff_norm": norm_weights(module.norm2),
    }
    ours = transformer.layer(
        weights,
        jax_array(x),
        architecture(norm_first, "relu"),
        AttentionContext("self", masks.padding(~jax_array(hidden))),
    )
    real = ~hidden.numpy()
    close(np.asarray(ours.x)[real], theirs[~hidden])


@pytest.mark.parametrize("norm_first", [True, False])
def test_a_decoder_layer_is_transformer_decoder_layer(norm_first):
    module = randomise(
        torch.nn.TransformerDecoderLayer(D, N, F, batch_first=True, norm_first=norm_first)
    )
    x, memory = torch.randn(B, T, D), torch.randn(B, S, D)
    hidden = torch.arange(S)[None] >= torch.tensor([S, 3, 5])[:, None]
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    theirs = module(x, memory, tgt_mask=future, memory_key_padding_mask=hidden)
    weights = {
        "self": attention_weights(module.self_attn),
        "self_norm": norm_weights(module.norm1),
        "cross": attention_weights(module.multihead_attn),
        "cross_norm": norm_weights(module.norm2),
        "ff": feed_forward_weights(module),
        "ff_norm": norm_weights(module.norm3),
    }
    ours = transformer.layer(
        weights,
        jax_array(x),
        architecture(norm_first, "relu"),
        AttentionContext("self", masks.causal(T)),
        attention.keys_values(weights["cross"], jax_array(memory)),
        AttentionContext("cross", masks.padding(~jax_array(hidden))),
    )
    close(ours.x, theirs)


def test_norms_are_torchs():
    x = 3 + 5 * torch.randn(B, T, D)
    layer_norm, rms_norm = (
        randomise(torch.nn.LayerNorm(D)),
        randomise(torch.nn.RMSNorm(D, eps=1e-6)),
    )
    ours = layers.layer_norm(jax_array(x), jax_array(layer_norm.weight), jax_array(layer_norm.bias))
    close(ours, layer_norm(x))
    close(layers.rms_norm(jax_array(x), jax_array(rms_norm.weight)), rms_norm(x))
