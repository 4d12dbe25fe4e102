"""A run folder → a folder of another toolkit."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tfm import storage
from tfm.data.foreign import ForeignTokenizer
from tfm.interop import ctranslate2
from tfm.interop.mapping import MADE_UP, Rows, put_rows
from tfm.params import Tree
from tfm.transformer import table_names
from tfm.translator import Translator


def to_ctranslate2(model: Translator, output: str | os.PathLike, *, int8: bool = False) -> None:
    """Writes a folder that ``ctranslate2.Translator`` opens, completely or not at all.

    Beside it stand the SentencePiece models, ``source.spm`` and ``target.spm``: pieces go in and
    come out. With a beam of 1 the translations are those of tfm; CTranslate2's beam search has
    other rules of stopping.

    Raises:
      FileExistsError: the folder is there already.
      ValueError: CTranslate2 cannot express the architecture; the message names the field.
    """
    ctranslate2.check_export(model.arch)
    params = _stacked(model.params)
    rows: dict[str, Rows] = {"source": _rows(model.source), "target": _rows(model.target)}
    bos = rows["target"][2] == MADE_UP
    if bos and np.abs(params["tables"][table_names(model.arch)[1]][2]).max() > 0:
        raise ValueError("its decoder starts from a bos that the exported vocabulary has not")
    content = ctranslate2.export(model.arch, params, rows, int8=int8, zero_start=bool(bos))
    pieces = {
        side: _in_order(tokenizer.vocabulary, rows[side])
        for side, tokenizer in (("source", model.source), ("target", model.target))
    }
    start = int(model.arch.decoder_start)
    target, default = model.target.vocabulary, 1e-5 if model.arch.norm == "layer" else 1e-6
    settings = {
        "unk_token": target[1], "bos_token": target[2], "eos_token": target[3],
        "decoder_start_token": target[3] if bos else target[start],
        "add_source_bos": False, "add_source_eos": getattr(model.source, "ends", True),
        "layer_norm_epsilon": model.arch.norm_epsilon or default,
    }  # fmt: skip

    def write(folder: Path) -> None:
        (folder / "model.bin").write_bytes(content)
        _write_json(folder / "config.json", settings)
        for side, names in pieces.items():
            _write_json(folder / f"{side}_vocabulary.json", names)
        for side, tokenizer in (("source", model.source), ("target", model.target)):
            if spm := _sentencepiece(tokenizer):
                (folder / f"{side}.spm").write_bytes(spm)

    write_folder(output, write)


def write_folder(output: str | os.PathLike, write: Callable[[Path], None]) -> None:
    """Makes a folder by ``write``, under another name until it is complete.

    Raises:
      FileExistsError: the folder is there already.
      OSError: it cannot be made; the message names it.
    """
    folder = Path(output)
    if folder.exists():
        raise FileExistsError(f"output {folder}: exists already; name a folder to be made")
    storage.make_folder(folder.parent, f"output {folder}")
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        write(made)
        made.chmod(0o755)
        made.rename(folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _stacked(params: Tree) -> Tree:
    """Weights as they are trained, in NumPy: inference keeps decoder layers as a list."""
    decoder = params["decoder"]
    if isinstance(decoder["layers"], list):
        layers = jax.tree.map(lambda *x: np.stack([np.asarray(y) for y in x]), *decoder["layers"])
        params = params | {"decoder": decoder | {"layers": layers}}
    return jax.tree.map(lambda x: np.asarray(x, np.float32), params)


def _rows(tokenizer: Any) -> Rows:
    """The exported id of each of our ids."""
    if isinstance(tokenizer, ForeignTokenizer):
        return np.array(tokenizer.foreign_ids)
    return np.arange(tokenizer.size)


def _in_order(pieces: list[str], rows: Rows) -> list[str]:
    return [str(piece) for piece in put_rows(np.array(pieces, dtype=object), rows)]


def _sentencepiece(tokenizer: Any) -> bytes:
    return tokenizer.model if isinstance(tokenizer, ForeignTokenizer) else tokenizer.model()


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
