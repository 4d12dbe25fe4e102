"""``tfm import``, ``tfm export`` and ``tfm models``: models of other toolkits."""

import json as jsonlib
from typing import Annotated, Literal

import tyro

from tfm.ranges import Length


def import_(
    form: Annotated[Literal["huggingface", "ctranslate2", "marian"], tyro.conf.Positional],
    path: Annotated[str, Length(1), tyro.conf.Positional],
    output: Annotated[str, Length(1)],
    source_language: str = "",
    target_language: str = "",
) -> int:
    """Makes a run folder of a model of another toolkit.

    translate, score, evaluate and inspect take it like any other run. No code in the files is run.

    Args:
        form: huggingface: a folder of MarianMT (OPUS-MT); ctranslate2: a folder with model.bin;
            marian: a folder with one .npz, or the .npz.
        path: The folder, or the file.
        output: The run folder to make.
        source_language: Code of the source, such as zh.
        target_language: Code of the target.
    """
    from tfm.interop import folders

    languages = source_language, target_language
    source = folders.read(path, form, languages)
    folders.write_run(source, output)
    arch = source.model.arch
    print(
        f"{output}: {arch.encoder_layers}+{arch.decoder_layers} layers of width {arch.d_model}, "
        f"vocabularies of {arch.source_vocab:,} and {arch.target_vocab:,} pieces"
    )
    return 0


def export(
    model: Annotated[str, Length(1), tyro.conf.Positional],
    to: Literal["ctranslate2"],
    output: Annotated[str, Length(1)],
    int8: bool = False,
) -> int:
    """Writes a run's model as a folder of another toolkit.

    Args:
        model: Folder of a run.
        to: ctranslate2: a folder that ctranslate2.Translator opens; beside it the SentencePiece
            models that split the text.
        output: The folder to make.
        int8: Quantise the matrices to 8 bits.
    """
    from tfm import translator
    from tfm.interop import exporting

    exporting.to_ctranslate2(translator.load(model), output, int8=int8)
    print(f"{output}: written for {to}")
    return 0


def models(path: Annotated[str, Length(1), tyro.conf.Positional], json: bool = False) -> int:
    """What a folder of a model is: its format, architecture, size, and what it can be exported to.

    Args:
        path: Folder of a run, or of a model of MarianMT, Marian or CTranslate2.
        json: Print JSON, with all fields of the architecture.
    """
    from tfm.interop import describing

    found = describing.describe(path)
    if json:
        print(jsonlib.dumps(found, ensure_ascii=False, indent=2))
        return 0
    arch, (source, target) = found["architecture"], found["vocabularies"]
    rows = {
        "format": found["format"],
        "languages": " → ".join(filter(None, found["languages"])) or "not stated",
        "parameters": f"{found['parameters']:,}",
        "vocabularies": f"{source:,} and {target:,} pieces, tie {arch['tie']}",
        "layers": f"{arch['encoder_layers']}+{arch['decoder_layers']} of width {arch['d_model']}, "
        f"{arch['heads']} heads, feed-forward {arch['d_ff']} ({arch['activation']})",
        "norm": f"{arch['norm']}, {arch['norm_placement']}",
        "positions": arch["positions"],
    } | {f"export to {target}": answer for target, answer in found["exports"].items()}
    for name, text in rows.items():
        print(f"{name:22} {text}")
    return 0
