"""Position schemes against the models in Hugging Face that use them."""

import jax.numpy as jnp
import numpy as np
import pytest

from tfm import positions

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("quick_compile")

B, T, N, H = 2, 9, 4, 8


def close(ours, theirs, rel=1e-5):
    theirs = theirs.detach().numpy()
    assert np.abs(np.asarray(ours) - theirs).max() <= rel * np.abs(theirs).max()


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "far"), [(32, 128), (8, 20), (16, 100), (64, 1000)])
def test_t5_buckets_are_t5s(bidirectional, buckets, far):
    from transformers.models.t5.modeling_t5 import T5Attention

    distances = np.arange(-1500, 1501)
    theirs = T5Attention._relative_position_bucket(
        torch.tensor(distances), bidirectional=bidirectional, num_buckets=buckets, max_distance=far
    )
    ours = positions.t5_bucket(
        jnp.asarray(distances), buckets=buckets, max_distance=far, bidirectional=bidirectional
    )
    np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("decoder", [True, False])
def test_t5_bias_is_t5s(decoder):
    from transformers.models.t5.modeling_t5 import T5Attention

    c = transformers.T5Config(
        d_model=N * H, d_kv=H, num_heads=N, is_decoder=decoder,
        relative_attention_num_buckets=8, relative_attention_max_distance=6,
    )  # fmt: skip
    torch.manual_seed(0)
    module = T5Attention(c, has_relative_attention_bias=True, layer_idx=0)
    table = module.relative_attention_bias.weight
    ours = positions.t5_bias(
        jnp.asarray(table.detach().numpy()),
        positions.consecutive(T, T),
        max_distance=6,
        bidirectional=not decoder,
    )
    close(ours, module.compute_bias(T, T))


def test_rotary_by_halves_is_llamas():
    from transformers.models.llama import modeling_llama as llama

    scaling = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
    c = transformers.LlamaConfig(hidden_size=N * H, num_attention_heads=N, rope_parameters=scaling)
    q, k = torch.randn(2, B, N, T, H)
    ids = torch.stack([torch.arange(T), torch.arange(T) * 3 + 100])
    cos, sin = llama.LlamaRotaryEmbedding(c)(q, ids)
    for ours, theirs in zip((q, k), llama.apply_rotary_pos_emb(q, k, cos, sin), strict=True):
        rotate = positions.Rotary(base=500.0, scaling=2.0).rotation(jnp.asarray(ids.numpy()))
        close(rotate(jnp.asarray(ours.numpy())), theirs)


def test_rotary_interleaved_is_gptjs():
    from transformers.models.gptj import modeling_gptj as gptj

    x = torch.randn(1, T, N, H)
    sin, cos = gptj.create_sinusoidal_positions(T, H).split(H // 2, dim=-1)
    theirs = gptj.apply_rotary_pos_emb(x, sin[None], cos[None])
    ids = jnp.arange(T)[None, :, None]
    close(positions.rotate(jnp.asarray(x.numpy()), ids, interleaved=True), theirs)


@pytest.mark.parametrize("heads", [1, 4, 6, 12])
def test_alibi_is_blooms(heads):
    """Bloom adds slope · key position: slope · distance but for a constant in every row."""
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    theirs = build_alibi_tensor(torch.ones(1, T), heads, torch.float32).reshape(heads, 1, T)
    theirs = theirs - theirs.transpose(1, 2)
    ours = np.asarray(positions.alibi_bias(positions.consecutive(T, T), heads))[0]
    past = np.tri(T, dtype=bool)
    close(ours[:, past], theirs[:, torch.tensor(past)])
