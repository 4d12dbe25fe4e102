"""BART: post-norm, learned positions from 2, a norm on the embeddings."""

from collections.abc import Iterable, Mapping
from typing import Any

from tfm.interop.huggingface import common, names
from tfm.interop.mapping import Entry
from tfm.positions import Learned
from tfm.transformer import Architecture


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json → fields of the architecture."""
    length = common.number(config, "max_position_embeddings")
    return common.fields(config) | {
        "norm_placement": "post",
        "positions": Learned(length, offset=2, like_embeddings=False),
        "embedding_norm": True,
        "output_bias": True,
    }


def entries(arch: Architecture) -> Iterable[Entry]:
    """The table of its tensors."""
    return names.bart(arch, output_bias=True)
