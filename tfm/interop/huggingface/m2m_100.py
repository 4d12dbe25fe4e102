"""M2M100 and NLLB-200: pre-norm, sinusoids from position 2 that reach their longest wavelength."""

from collections.abc import Iterable, Mapping
from typing import Any

from tfm.interop.huggingface import common, names
from tfm.interop.mapping import Entry
from tfm.positions import Sinusoidal
from tfm.transformer import Architecture


def fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json → fields of the architecture."""
    return common.fields(config) | {
        "norm_placement": "pre",
        "positions": Sinusoidal(endpoint=True, offset=2),
        "output_bias": False,
    }


def entries(arch: Architecture) -> Iterable[Entry]:
    """The table of its tensors."""
    return names.bart(arch, output_bias=False)
