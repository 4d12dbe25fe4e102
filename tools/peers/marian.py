"""Hugging Face's Marian with random weights, and CTranslate2 with the same weights."""

import importlib.util
import tempfile
import warnings

import numpy as np
import torch
import transformers

from peers import torch_transformer
from peers.measure import Side, cores, warm_up
from peers.shapes import Shape, decoding_flops

EOS = 0


def model(shape: Shape) -> transformers.MarianMTModel:
    """Marian of this size in evaluation mode; the padding id is the last, as in released models."""
    config = transformers.MarianConfig(
        vocab_size=shape.vocab,
        d_model=shape.width,
        encoder_layers=shape.layers,
        decoder_layers=shape.layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=shape.d_ff,
        decoder_ffn_dim=shape.d_ff,
        activation_function="relu",
        max_position_embeddings=512,
        scale_embedding=True,
        pad_token_id=shape.vocab - 1,
        eos_token_id=EOS,
        forced_eos_token_id=EOS,
        decoder_start_token_id=shape.vocab - 1,
    )
    torch.manual_seed(0)
    return transformers.MarianMTModel(config).eval()


def decoding(shape: Shape, source_BS: np.ndarray, beam: int) -> Side:
    """``generate`` with exactly ``length`` new tokens: float32 on the CPU, bfloat16 on a GPU."""
    transformers.utils.logging.set_verbosity_error()
    where = torch_transformer.device()
    marian = model(shape).to(where)
    if where.type == "cuda":
        marian = marian.to(torch.bfloat16)
    source = torch.from_numpy(source_BS).long().to(where)

    def run() -> None:
        with torch.inference_mode():
            found = marian.generate(
                source,
                attention_mask=torch.ones_like(source),
                num_beams=beam,
                do_sample=False,
                min_new_tokens=shape.length,
                max_new_tokens=shape.length,
            )
        torch_transformer.wait()
        if found.shape[1] != shape.length + 1:
            raise RuntimeError(f"decode: Marian wrote {found.shape[1] - 1} tokens")

    warm_up(run)
    return Side(
        "HF Marian",
        run,
        0.0,
        shape.batch * shape.length,
        decoding_flops(shape, beam),
        torch_transformer.MATRIX,
    )


def has_ctranslate2() -> bool:
    """Whether CTranslate2, which the extra "bench" does not include, is installed."""
    return importlib.util.find_spec("ctranslate2") is not None


def ctranslate2_decoding(shape: Shape, source_BS: np.ndarray, beam: int, compute: str) -> Side:
    """CTranslate2 with Marian's random weights, in the given compute type."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import of pkg_resources is deprecated
        import ctranslate2
        from ctranslate2.converters.transformers import MarianMTLoader

    spec = MarianMTLoader().get_model_spec(model(shape))
    vocabulary = ["</s>", "<unk>", *(str(i) for i in range(2, shape.vocab - 1))]
    spec.register_source_vocabulary(vocabulary)
    spec.register_target_vocabulary(vocabulary)
    spec.config.eos_token, spec.config.unk_token = "</s>", "<unk>"
    spec.config.decoder_start_token = "</s>"
    spec.validate()
    spec.optimize()
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        translator = ctranslate2.Translator(
            folder, device=kind, compute_type=compute, inter_threads=1, intra_threads=cores()
        )
    sentences = [[str(i) for i in row] for row in source_BS.tolist()]

    def run() -> None:
        found = translator.translate_batch(
            sentences,
            beam_size=beam,
            min_decoding_length=shape.length,
            max_decoding_length=shape.length,
        )
        if any(len(result.hypotheses[0]) != shape.length for result in found):
            raise RuntimeError(f"decode: CTranslate2 did not write {shape.length} tokens")

    warm_up(run)
    tokens = shape.batch * shape.length
    return Side(f"CTranslate2 {compute}", run, 0.0, tokens, decoding_flops(shape, beam))
