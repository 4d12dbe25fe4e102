"""mBART-25 and mBART-50: BART with pre-norm."""

from collections.abc import Mapping
from typing import Any

from tfm.interop.huggingface import bart


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json → fields of the architecture."""
    return bart.fields(config) | {"norm_placement": "pre"}
