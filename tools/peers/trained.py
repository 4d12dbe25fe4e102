"""A trained model on real sentences: tfm, and the same weights converted for CTranslate2 and HF.

A side translates all sentences as they come, in batches of its own making, or one after the other,
as a person waits for them.
"""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from peers.measure import Side, cores, warm_up
from tfm import evaluation
from tfm.transformer.config import Weights
from tfm.translator import Translator, load

BATCH = 64

Translate = Callable[[Sequence[str]], list[str]]


class Work(NamedTuple):
    """What every side does.

    Attributes:
      references: human translations, for BLEU.
      alone: one sentence after the other.
    """

    beam: int
    sentences: Sequence[str]
    references: Sequence[str]
    alone: bool


def tfm(
    run: Path,
    weights: Weights,
    work: Work,
) -> Side:
    """tfm with weights of this kind.

    Args:
      run: folder of the trained run.
    """
    model = load(run, weights=weights)
    translate = lambda texts: model.translate(texts, beam_size=work.beam, batch_size=BATCH)  # noqa: E731
    name = "tfm" if weights == "auto" else f"tfm {weights}"
    return _side(name, translate, model, work)


def ctranslate2(
    run: Path,
    folder: Path,
    compute: str,
    work: Work,
) -> Side:
    """CTranslate2 with a converted model, in the given compute type; pieces are the run's.

    Args:
      run: folder of the trained run that was converted.
      folder: the converted model.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import of pkg_resources is deprecated
        import ctranslate2 as library
    model = load(run)
    device = "cuda" if library.get_cuda_device_count() else "cpu"
    translator = library.Translator(
        str(folder), device=device, compute_type=compute, inter_threads=1, intra_threads=cores()
    )
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    end = [] if settings.get("add_source_eos") else [settings.get("eos_token", "</s>")]
    ids = {piece: i for i, piece in enumerate(model.target.id_to_piece(range(model.target.size)))}
    decode = model.experiment.decode

    def translate(texts: Sequence[str]) -> list[str]:
        found = translator.translate_batch(
            [model.source.pieces(text) + end for text in texts],
            beam_size=work.beam,
            max_batch_size=BATCH,
            length_penalty=decode.length_penalty,
        )
        return [model.target.decode([ids[p] for p in x.hypotheses[0] if p in ids]) for x in found]

    return _side(f"CTranslate2 {compute}", translate, model, work)


def hugging_face(
    run: Path,
    folder: Path,
    work: Work,
) -> Side:
    """``generate`` of a model and tokenizer in the format of Hugging Face.

    Args:
      run: folder of the trained run that was converted.
      folder: the converted model, with its tokenizer.
    """
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    marian = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval().to(where)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def translate(texts: Sequence[str]) -> list[str]:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = [""] * len(texts)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            given = tokenizer([texts[i] for i in batch], return_tensors="pt", padding=True)
            with torch.inference_mode():
                written = marian.generate(**given.to(where), num_beams=work.beam, do_sample=False)
            texts_out = tokenizer.batch_decode(written, skip_special_tokens=True)
            for i, text in zip(batch, texts_out, strict=True):
                found[i] = text
        return found

    return _side("HF", translate, load(run), work)


def _side(name: str, translate: Translate, model: Translator, work: Work) -> Side:
    """A side whose unit of work is a sentence."""
    sentences, target = work.sentences, model.experiment.data.target

    def run() -> None:
        if work.alone:
            for sentence in sentences:
                translate([sentence])
        else:
            translate(sentences)

    compile_seconds, details = warm_up(run), {}
    if not work.alone:
        details = {"BLEU": evaluation.bleu(translate(sentences), work.references, target).value}
    return Side(name, run, compile_seconds, len(sentences), 0.0, details=details)
