"""A folder of MarianMT, as its tokenizer and its model save it, becomes a run folder."""

import io
import json

import pytest
import tiny

import tfm
from tfm.interop import folders

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")
pytest.importorskip("safetensors")

# As the other toolkit: no translation is decoded again, and length is limited by number alone.
EXACTLY = {"guard": "off", "max_length_factor": 0.0}


def spm(path, sentences):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, vocab_size=40, model_type="bpe",
        minloglevel=2,
    )  # fmt: skip
    path.write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [processor.id_to_piece(i) for i in range(processor.vocab_size())]


@pytest.fixture(scope="module")
def opus(tmp_path_factory):
    """A folder with random weights, of one vocabulary as OPUS-MT has it."""
    folder = tmp_path_factory.mktemp("opus")
    source = tiny.sentences(300, seed=1)
    pieces = spm(folder / "source.spm", source)
    pieces += spm(folder / "target.spm", [line.upper() for line in source])
    special = ["<unk>", "<s>", "</s>"]
    vocabulary = [
        "</s>",
        "<unk>",
        ">>xx<<",
        *(p for p in dict.fromkeys(pieces) if p not in special),
    ]
    vocabulary.append("<pad>")
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    V = len(ids)
    torch.manual_seed(0)
    config = transformers.MarianConfig(
        vocab_size=V, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=20, decoder_ffn_dim=20, pad_token_id=V - 1,
        eos_token_id=0, decoder_start_token_id=V - 1, forced_eos_token_id=None,
        scale_embedding=True, activation_function="swish", max_position_embeddings=64,
    )  # fmt: skip
    model = transformers.MarianMTModel(config).eval()
    for name, x in [*model.named_parameters(), *model.named_buffers()]:
        if x.is_floating_point() and "embed_positions" not in name:
            torch.nn.init.normal_(x, mean=float("norm.weight" in name), std=0.3)
    model.generation_config.bad_words_ids = [[V - 1]]
    model.save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"source_lang": "lower", "target_lang": "upper", "model_max_length": 64})
    )
    return folder, model


def test_a_folder_of_marianmt_translates_as_transformers_does(opus, tmp_path):
    folder, model = opus
    theirs = transformers.MarianTokenizer.from_pretrained(folder)
    folders.write_run(folders.read(folder, "huggingface", ("xx", "yy")), tmp_path / "run")
    ours = tfm.load(tmp_path / "run")
    texts = ["abc d", "fa gh ab", ">>xx<< cab", "hhh"]
    for text in texts:
        encoded = theirs(text)["input_ids"]
        assert [ours.source.foreign_ids[i] for i in ours.source.encode(text)] == encoded, text
    inputs = theirs(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        found = model.generate(**inputs, num_beams=1, do_sample=False, max_new_tokens=12)
    want = [[int(i) for i in row[1:] if int(i) != model.config.pad_token_id] for row in found]
    for text, row in zip(texts, want, strict=True):
        got = ours.n_best([text], 1, beam_size=1, **EXACTLY, max_length_offset=13)
        row = row[: row.index(0)] if 0 in row else row[:12]
        back = [ours.target.foreign_ids.index(i) for i in row]
        assert got[0][0].text == ours.target.decode(back)


def test_weights_with_code_or_damage_are_refused_and_nothing_is_written(opus, tmp_path):
    import pickle
    import shutil

    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    folder = tmp_path / "model"
    shutil.copytree(opus[0], folder)
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    for damaged in (content[:1000], b"\xff" * 8 + content[8:], content[:-4], b""):
        weights.write_bytes(damaged)
        with pytest.raises(ValueError, match="safetensors: damaged"):
            folders.read(folder, "huggingface", ("", ""))
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"model": Code()}))
    with pytest.raises(ValueError, match="holds more than tensors"):
        folders.read(folder, "huggingface", ("", ""))
    assert not (tmp_path / "ran").exists()
