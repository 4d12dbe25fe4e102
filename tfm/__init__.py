"""tfm: the encoder-decoder Transformer as pure functions in JAX, from one-hot to translation.

The pieces are plain modules: ``from tfm import attention, masks, positions``. A trained run is a
folder: ``model = tfm.load("runs/demo"); model.translate(["我喜欢茶。"])``.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfm.translator import Translator

__version__ = "0.1.0"


def load(folder: str) -> "Translator":
    """Opens a trained run for translation; see ``tfm.translator.load``."""
    from tfm import translator  # here, so that importing one piece does not import all of them

    return translator.load(folder)
