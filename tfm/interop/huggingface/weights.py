"""Files of weights of Hugging Face: safetensors, or torch's, read as data alone."""

from pathlib import Path

import numpy as np


def read(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The file of weights in a folder, and its tensors.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged or holds more than tensors, or a package to read it is missing.
    """
    file = folder / "model.safetensors"
    if file.is_file():
        return file, _safetensors(file)
    file = folder / "pytorch_model.bin"
    if file.is_file():
        return file, _torch(file)
    raise FileNotFoundError(f"{folder}: has no model.safetensors or pytorch_model.bin")


def _safetensors(file: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors import SafetensorError, numpy
    except ImportError as error:
        raise ValueError(f"{file}: pip install 'tfm[huggingface]' to read it") from error
    try:
        return numpy.load_file(file)
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"{file}: damaged, or of a dtype that NumPy has not ({error})") from error


def _torch(file: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"{file}: install torch to read it, or convert it to safetensors"
        ) from error
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        return {name: x.float().numpy() for name, x in found.items()}
    except Exception as error:  # torch raises errors of many types for damaged files
        text = " ".join(str(error).split())[:100]
        raise ValueError(f"{file}: damaged, or holds more than tensors ({text})") from error
