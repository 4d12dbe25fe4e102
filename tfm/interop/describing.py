"""What a folder of a model is, in a few facts: of a run of tfm or of another toolkit."""

import os
from dataclasses import asdict
from typing import Any

from tfm import config, params, transformer
from tfm.interop import ctranslate2, folders
from tfm.positions import schemes
from tfm.run_folder import RunFolder
from tfm.transformer import Architecture


def describe(path: str | os.PathLike) -> dict[str, Any]:
    """Format, architecture, parameters, vocabularies, and what the model can be exported to.

    Raises:
      ValueError: it is no model that tfm knows, or a damaged one.
    """
    form = folders.recognise(path)
    if form is None:
        raise ValueError(f"{path}: is neither a run nor a model of another toolkit that tfm reads")
    if form == "tfm":
        experiment = config.read(RunFolder(path).config)
        arch, languages = experiment.model, (experiment.data.source, experiment.data.target)
    else:
        arch, languages = folders.read(path, form, ("", "")).model.arch, ("", "")
    transformer.validate(arch)
    return {
        "path": os.fspath(path),
        "format": form,
        "languages": list(languages),
        "parameters": params.count(transformer.declare(arch)),
        "vocabularies": [arch.source_vocab, arch.target_vocab],
        "architecture": asdict(arch) | {"positions": schemes.to_text(arch.positions)},
        "exports": _exports(arch),
    }


def _exports(arch: Architecture) -> dict[str, str]:
    """By target: "yes", or the reason why not."""
    try:
        ctranslate2.check_export(arch)
    except ValueError as error:
        return {"ctranslate2": str(error)}
    return {"ctranslate2": "yes"}
