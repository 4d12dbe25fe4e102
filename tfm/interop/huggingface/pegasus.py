"""Pegasus: pre-norm, the sinusoids of MarianMT, one table, a bias of the logits."""

from collections.abc import Iterable, Mapping
from typing import Any

from tfm.interop.huggingface import common, names
from tfm.interop.mapping import Entry
from tfm.transformer import Architecture


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json → fields of the architecture."""
    return common.fields(config) | {"norm_placement": "pre", "output_bias": True}


def entries(arch: Architecture) -> Iterable[Entry]:
    """The table of its tensors."""
    return names.bart(arch, output_bias=True)
