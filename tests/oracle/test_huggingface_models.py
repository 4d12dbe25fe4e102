"""Every family of Hugging Face with random weights: imported, decoded, and exported again."""

import functools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import transformer
from tfm.data.tokenizer import BOS, PAD
from tfm.decoding import Decode
from tfm.interop.huggingface.families import FAMILIES
from tfm.interop.huggingface.model import export_tensors, import_model
from tfm.translator import programs

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.numpy")

pytestmark = pytest.mark.usefixtures("quick_compile")

V, B, S, T, LIMIT = 23, 4, 7, 5, 24
LENGTHS = np.array([7, 3, 5, 1])
BART = {
    "vocab_size": V, "d_model": 16, "max_position_embeddings": 64, "encoder_layers": 2,
    "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 20, "decoder_ffn_dim": 20, "forced_eos_token_id": None,
}  # fmt: skip
FAIRSEQ = BART | {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
MARIAN = BART | {
    "pad_token_id": V - 1, "eos_token_id": 0, "decoder_start_token_id": V - 1,
}  # fmt: skip
SHARED = {"share_encoder_decoder_embeddings": True, "tie_word_embeddings": True}
PEGASUS = BART | {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
T5 = {
    "vocab_size": V, "d_model": 16, "d_kv": 5, "num_heads": 3, "d_ff": 20, "num_layers": 2,
    "num_decoder_layers": 1, "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 6, "pad_token_id": 0, "eos_token_id": 1,
    "decoder_start_token_id": 0, "dropout_rate": 0.0,
}  # fmt: skip
VARIANTS = {
    "marian": (
        "marian", MARIAN | SHARED | {"scale_embedding": True, "activation_function": "swish"},
    ),
    "marian relu, two vocabularies": (
        "marian",
        MARIAN | {
            "share_encoder_decoder_embeddings": False, "decoder_vocab_size": V,
            "activation_function": "relu", "scale_embedding": False, "vocab_size": V + 3,
        },
    ),
    "pegasus": ("pegasus", PEGASUS | {"scale_embedding": True, "activation_function": "relu"}),
    "bart": ("bart", FAIRSEQ | {"decoder_start_token_id": 2, "activation_function": "gelu"}),
    "mbart-50": ("mbart", FAIRSEQ | {"decoder_start_token_id": 2, "scale_embedding": True}),
    "mbart-25": (
        "mbart", FAIRSEQ | {"decoder_start_token_id": 20, "activation_function": "gelu_new"},
    ),
    "m2m_100": (
        "m2m_100", FAIRSEQ | {"decoder_start_token_id": 2, "activation_function": "relu"},
    ),
    "t5": ("t5", T5),
    "t5 1.1": ("t5", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "t5 gated-silu": ("t5", T5 | {"feed_forward_proj": "gated-silu"}),
    "mt5": ("mt5", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
}  # fmt: skip
UNK = 3


def random_model(kind, config):
    torch.manual_seed(0)
    configuration = transformers.AutoConfig.for_model(kind, **config)
    model = getattr(transformers, FAMILIES[kind].kind)(configuration).eval()
    for name, x in [*model.named_parameters(), *model.named_buffers()]:
        if x.is_floating_point() and not ("embed_positions" in name and kind != "bart"):
            norm = "norm" in name and name.endswith("weight")
            torch.nn.init.normal_(x, mean=float(norm), std=0.3)
    # An end that is a little likely everywhere, so that most searches end.
    bias = getattr(model, "final_logits_bias", None)
    with torch.no_grad():
        if bias is not None:
            bias[0, configuration.eos_token_id] += 3.0
        else:
            table = model.get_output_embeddings().weight
            table[configuration.eos_token_id] = 2 * table[4:9].mean(dim=0)
    return model


@functools.cache
def imported(name):
    kind, config = VARIANTS[name]
    model = random_model(kind, config)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tensors = safetensors.load_file(f"{folder}/model.safetensors")
    if kind == "marian":
        model.generation_config.bad_words_ids = [[V - 1]]
    config = model.config.to_dict() | {"bad_words_ids": model.generation_config.bad_words_ids}
    ours = import_model(config, tensors, UNK)
    return model, tensors, ours._replace(params=jax.tree.map(jnp.asarray, ours.params))


def inverse(rows):
    """Foreign id → our id."""
    out = np.zeros(rows.max() + 1, int)
    out[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    return out


def sources(name, seed=0):
    """Foreign ids of sources without special ones, padded, and their mask."""
    model = imported(name)[0]
    rng = np.random.default_rng(seed)
    ids = rng.integers(4, 19, (B, S))
    real = np.arange(S) < LENGTHS[:, None]
    return np.where(real, ids, model.config.pad_token_id), real.astype(np.int32)


def logits(name, source, real, target):
    _, _, ours = imported(name)
    to_ours = {side: inverse(rows) for side, rows in ours.rows.items()}
    batch = transformer.Batch(
        np.where(real, to_ours["source"][source], 0), real, np.broadcast_to(np.arange(S), (B, S)),
        to_ours["target"][target], np.ones((B, T), np.int32),
        np.broadcast_to(np.arange(T), (B, T)),
    )  # fmt: skip
    batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.int32), batch)
    memory = transformer.encode(ours.params, ours.arch, *batch[:3])
    hidden = transformer.forward(ours.params, ours.arch, batch)
    return memory, transformer.logits(ours.params, ours.arch, hidden)


@pytest.mark.parametrize("name", VARIANTS)
def test_an_imported_model_gives_the_numbers_of_transformers(name):
    model, _, ours = imported(name)
    source, real = sources(name)
    target = np.random.default_rng(1).integers(4, 19, (B, T))
    target[:, 0] = model.config.decoder_start_token_id
    with torch.no_grad():
        want = model(
            input_ids=torch.tensor(source), attention_mask=torch.tensor(real),
            decoder_input_ids=torch.tensor(target),
        )  # fmt: skip
    # Our bos stands for whatever the decoder starts with.
    memory, got = logits(name, source, real, target)
    theirs = want.encoder_last_hidden_state.numpy()
    difference = np.abs(np.asarray(memory) - theirs)[real > 0]
    assert difference.max() <= 1e-4 * np.abs(theirs).max()
    rows = ours.rows["target"]
    got, theirs = np.asarray(got)[..., rows >= 0], want.logits.numpy()[..., rows[rows >= 0]]
    assert np.abs(got - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("beam", [1, 4])
def test_search_finds_what_generate_finds(name, beam):
    model, _, ours = imported(name)
    source, real = sources(name, seed=beam)
    rows = ours.rows["target"]
    never = [int(rows[i]) for i in (PAD, BOS) if rows[i] >= 0]  # which ours never writes
    with torch.no_grad():
        want = model.generate(
            input_ids=torch.tensor(source), attention_mask=torch.tensor(real), num_beams=beam,
            do_sample=False, max_new_tokens=LIMIT, early_stopping=beam > 1, length_penalty=1.0,
            return_dict_in_generate=True, output_scores=True, suppress_tokens=never or None,
        )  # fmt: skip
    decode = Decode(
        beam_size=beam,
        length_penalty=1.0,
        length_norm="power",
        unk=True,
        max_length_factor=0.0,
        max_length_offset=LIMIT,
    )
    ids = jnp.asarray(np.where(real, inverse(ours.rows["source"])[source], 0), jnp.int32)
    params = transformer.inference_params(ours.params, ours.arch)
    search = jax.jit(functools.partial(programs.search, arch=ours.arch, decode=decode))
    got = search(params, ids)
    compared = 0
    for b in range(B):
        theirs = [int(i) for i in want.sequences[b][1:]]
        ends = model.config.eos_token_id in theirs
        theirs = theirs[: theirs.index(model.config.eos_token_id) + 1] if ends else theirs
        if beam == 1:
            n = min(len(theirs), LIMIT - 1)  # at the limit ours ends with eos, theirs without
            assert [int(ours.rows["target"][i]) for i in got.tokens[b, 0, :n]] == theirs[:n]
        elif ends:
            compared += 1
            assert abs(float(got.scores[b, 0]) - float(want.sequences_scores[b])) <= 1e-4
    if not compared and beam > 1:
        pytest.skip("no search of this random model ended before the limit")


@pytest.mark.parametrize("name", VARIANTS)
def test_an_exported_model_has_the_same_bits(name, tmp_path):
    model, _, ours = imported(name)
    tensors = export_tensors(VARIANTS[name][0], ours)
    safetensors.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    want = {
        n: x for n, x in model.state_dict().items() if "embed_positions" not in n or n in tensors
    }
    assert want.keys() <= again.state_dict().keys()
    for key, x in want.items():
        assert (again.state_dict()[key].numpy() == x.numpy()).all(), key
