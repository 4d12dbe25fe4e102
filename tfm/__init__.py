"""tfm: the encoder-decoder Transformer as pure functions in JAX, from one-hot to translation.

The pieces are plain modules: ``from tfm import attention, masks, positions``. A trained run is a
folder: ``model = tfm.load("runs/demo"); model.translate(["我喜欢茶。"])``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from tfm.client import Client as Client
    from tfm.sharding import Mesh
    from tfm.transformer.config import Weights
    from tfm.translator import Translator

__version__ = "0.1.0"


def __getattr__(name: str) -> "ModuleType | type":
    """``tfm.inspect`` and its neighbours, imported when first asked for (PEP 562).

    So is ``tfm.Client``, of ``tfm.client``.
    """
    import importlib.util  # here, so that the package has no name but its own

    if name == "Client":
        return importlib.import_module("tfm.client").Client
    if name.startswith("_") or importlib.util.find_spec(f"tfm.{name}") is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"tfm.{name}")


def load(
    folder: str,
    source_length: int | None = None,
    target_length: int | None = None,
    rotary_scaling: float | None = None,
    weights: "Weights | None" = None,
    mesh: "Mesh | None" = None,
) -> "Translator":
    """Opens a trained run for translation; see ``tfm.translator.load``."""
    from tfm import translator  # here, so that importing one piece does not import all of them

    return translator.load(folder, source_length, target_length, rotary_scaling, weights, mesh)
