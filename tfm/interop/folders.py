"""Folders of models: what one is, how it becomes a run folder, and how a run folder leaves.

An imported run folder is an ordinary one: config.json, tokenizers, and the weights under best/. The
foreign ids of the vocabularies stand with the tokenizers, so that a model goes back as it came.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tfm import checkpoint, config, transformer
from tfm.data import foreign
from tfm.data.foreign import ForeignTokenizer
from tfm.decoding import Decode
from tfm.interop import ctranslate2, marian, model_bin
from tfm.interop.exporting import write_folder
from tfm.interop.huggingface import model as huggingface
from tfm.interop.huggingface import weights
from tfm.interop.mapping import Imported, Side
from tfm.run_folder import RunFolder

Format = Literal["huggingface", "ctranslate2", "marian"]
SIDES: tuple[Side, Side] = ("source", "target")
_LARGEST_TEXT = 2**28  # bytes of a vocabulary or a config


class Source(NamedTuple):
    """A model that was read.

    Attributes:
      model: architecture, weights, ids.
      tokenizers: of source and target.
      decode: settings of search that give what the model's own toolkit gives.
      languages: codes of source and target, or empty.
    """

    model: Imported
    tokenizers: dict[Side, ForeignTokenizer]
    decode: Decode
    languages: tuple[str, str] = ("", "")


def read(path: str | os.PathLike, form: Format, languages: tuple[str, str]) -> Source:
    """Reads a model of another toolkit.

    Args:
      languages: codes of source and target.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a damaged file, or a model that tfm cannot express; the message names the file.
    """
    folder = Path(path)
    if form == "marian" and folder.is_file():
        return _marian(folder, languages)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if form == "huggingface":
        return _huggingface(folder, languages)
    if form == "ctranslate2":
        return _ctranslate2(folder, languages)
    if form == "marian":
        found = sorted(folder.glob("*.npz"))
        if len(found) != 1:
            raise ValueError(f"{folder}: has {len(found)} files .npz; name the one to read")
        return _marian(found[0], languages)
    raise ValueError(f"{folder}: no reader of {form}")


def recognise(path: str | os.PathLike) -> Format | Literal["tfm"] | None:
    """What a folder holds; None if it is no model that tfm knows."""
    folder = Path(path)
    if folder.suffix == ".npz" and folder.is_file():
        return "marian"
    if not folder.is_dir():
        return None
    if (folder / "model.bin").is_file():
        return "ctranslate2"
    if list(folder.glob("*.npz")):
        return "marian"
    if (folder / "config.json").is_file():
        text = _json(folder / "config.json")
        return "huggingface" if "model_type" in text else "tfm" if "model" in text else None
    return None


def write_run(source: Source, output: str | os.PathLike) -> RunFolder:
    """Writes a run folder, completely or not at all.

    Raises:
      FileExistsError: the folder is there already.
    """
    write_folder(output, lambda made: _write(source, RunFolder(made)))
    return RunFolder(output)


def _write(source: Source, run: RunFolder) -> None:
    model, (own, other) = source.model, source.languages
    longest = model.arch.positions.longest
    length = min(512, longest or 512)
    experiment = config.Config(
        model=model.arch,
        data=config.Data(
            source=own or "und", target=other or "und", source_length=length, target_length=length,
        ),
        tokenizer=config.Tokenizer(
            source_size=max(5, model.arch.source_vocab), target_size=max(5, model.arch.target_vocab)
        ),
        decode=source.decode,
    )  # fmt: skip
    transformer.validate(model.arch)
    run.config.write_text(config.to_json(experiment))
    run.tokenizers.mkdir()
    for side, one in source.tokenizers.items():
        one.save(run.tokenizer(side))
    params = jax.tree.map(jnp.asarray, model.params)
    with checkpoint.CheckpointManager(run.best, keep=1) as manager:
        manager.save(1, params, {"update": 0}, wait=True)


def _marian(path: Path, languages: tuple[str, str]) -> Source:
    with _naming(path):
        model, arrays = marian.read(path.read_bytes())
    files = _marian_vocabularies(path)
    tokenizers: dict[Side, ForeignTokenizer] = {}
    special: dict[str, Any] = {}
    for side, file in zip(SIDES, files, strict=True):
        with _naming(file):
            made = _sentencepiece(_bytes(file))
            special[side] = {
                "unk": made.vocabulary.index("<unk>"), "eos": made.vocabulary.index("</s>")
            }  # fmt: skip
            tokenizers[side] = made
    with _naming(path):
        found = marian.import_model(model, arrays, special)
    for side, one in tokenizers.items():
        tokenizers[side] = _ordered(one, found.rows[side], side, path)
    # Marian's `--normalize 1` divides by the length with the end of sentence.
    decode = Decode(beam_size=6, length_norm="power", length_penalty=1.0, max_length_factor=3.0)
    return Source(found, tokenizers, decode, languages)


def _marian_vocabularies(path: Path) -> tuple[Path, Path]:
    """The two vocabularies that the decoder's YAML names, else those beside the model."""
    yaml = path.with_name(f"{path.name}.decoder.yml")
    names: list[str] = []
    if yaml.is_file():
        inside = False
        for line in _bytes(yaml).decode("utf-8", errors="replace").splitlines():
            inside = line.startswith("vocabs:") or (inside and line.startswith((" ", "-")))
            if inside and line.strip().startswith("- "):
                names.append(line.strip()[2:].strip().strip("'\""))
    files = [path.parent / Path(name).name for name in names]
    files = files or sorted(path.parent.glob("*.spm"))
    if len(files) != 2 or not all(file.is_file() for file in files):
        raise FileNotFoundError(f"{path}: its two vocabularies (.spm) are not beside it")
    return files[0], files[1]


def _sentencepiece(content: bytes) -> ForeignTokenizer:
    """A SentencePiece model with the vocabulary in its own order."""
    made = ForeignTokenizer("sentencepiece", [""] * 5, (0,) * 5, model=content)
    foreign.check(made)
    processor = made._processor
    pieces = [processor.id_to_piece(i) for i in range(processor.vocab_size())]
    return dataclasses.replace(made, vocabulary=pieces, foreign_ids=tuple(range(len(pieces))))


def _ordered(one: ForeignTokenizer, rows: np.ndarray, side: str, path: Path) -> ForeignTokenizer:
    """A tokenizer with its vocabulary in our order."""
    if int(rows.max()) >= len(one.vocabulary):
        raise ValueError(
            f"{path}: the {side} vocabulary has {len(one.vocabulary)} pieces, but its table "
            f"{int(rows.max()) + 1} rows"
        )
    names = ("<pad>", "<unk>", "<s>", "</s>")
    pieces = [one.vocabulary[i] if i >= 0 else names[k] for k, i in enumerate(rows)]
    made = dataclasses.replace(
        one, vocabulary=pieces, foreign_ids=tuple(int(i) for i in rows)
    )  # fmt: skip
    foreign.check(made)
    return made


def _ctranslate2(folder: Path, languages: tuple[str, str]) -> Source:
    file = folder / "model.bin"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    settings = _object(folder / "config.json") if (folder / "config.json").is_file() else {}
    names: dict[Any, list[str]] = {side: _vocabulary(folder, side) for side in SIDES}
    with _naming(file):
        binary = model_bin.read(file.read_bytes())
        for side, place in (("source", "encoder/embeddings"), ("target", "decoder/embeddings")):
            table = binary.variables.get(
                f"{place}_0/weight", binary.variables.get(f"{place}/weight")
            )
            unk = settings.get("unk_token", "<unk>")
            # Files of old versions leave out the unknown piece, which is the last row.
            if (
                table is not None
                and table.ndim
                and len(table) == len(names[side]) + 1
                and unk not in names[side]
            ):
                names[side].append(unk)
        found = ctranslate2.import_model(binary, settings, names)
    tokenizers: dict[Side, ForeignTokenizer] = {}
    for side, pieces in names.items():
        spm = folder / f"{side}.spm"
        kind: foreign.Kind = "characters" if _are_characters(pieces) else "words"
        content = _bytes(spm) if spm.is_file() else b""
        made = ForeignTokenizer(
            "sentencepiece" if content else kind, pieces, tuple(range(len(pieces))), True, content
        )  # fmt: skip
        if side == "source":
            made = dataclasses.replace(made, ends=bool(settings.get("add_source_eos", False)))
        tokenizers[side] = _ordered(made, found.rows[side], side, folder)
    decode = Decode(beam_size=2, length_norm="power", length_penalty=1.0, max_length_factor=3.0)
    return Source(found, tokenizers, decode, languages)


def _huggingface(folder: Path, languages: tuple[str, str]) -> Source:
    """MarianMT: two SentencePiece models, and the ids of their pieces in vocab.json."""
    settings = _object(folder / "config.json")
    if (folder / "generation_config.json").is_file():
        more = _object(folder / "generation_config.json")
        settings |= {name: x for name, x in more.items() if x is not None}
    if settings.get("model_type") != "marian":
        raise ValueError(
            f"{folder / 'config.json'}: model_type {settings.get('model_type')!r}; tokenizers of "
            "the family marian alone are read yet"
        )
    vocabularies = {"source": folder / "vocab.json", "target": folder / "target_vocab.json"}
    if not vocabularies["target"].is_file():
        vocabularies["target"] = vocabularies["source"]
    made: dict[Side, ForeignTokenizer] = {}
    for side in SIDES:
        with _naming(vocabularies[side]):
            pieces = _by_id(_object(vocabularies[side]))
        with _naming(folder / f"{side}.spm"):
            one = _sentencepiece(_bytes(folder / f"{side}.spm"))
            made[side] = dataclasses.replace(
                one, vocabulary=pieces, foreign_ids=tuple(range(len(pieces)))
            )
    file, tensors = weights.read(folder)
    with _naming(file):
        unk = tuple(made[side].vocabulary.index("<unk>") for side in SIDES)
        found = huggingface.import_model(settings, tensors, (unk[0], unk[1]), file.name)
    for side, tokenizer_ in made.items():
        made[side] = _ordered(tokenizer_, found.rows[side], side, folder)
    decode = Decode(
        beam_size=int(settings.get("num_beams", 4)), length_norm="power",
        length_penalty=float(settings.get("length_penalty", 1.0)), max_length_factor=3.0,
    )  # fmt: skip
    return Source(found, made, decode, languages)


def _by_id(ids: dict[str, Any]) -> list[str]:
    """The pieces of a vocab.json in the order of their ids, which must be 0 to V-1."""
    if sorted(ids.values(), key=str) != sorted(range(len(ids)), key=str):
        raise ValueError(f"its {len(ids)} ids are not 0 to {len(ids) - 1}")
    return sorted(ids, key=lambda piece: ids[piece])


def _are_characters(pieces: list[str]) -> bool:
    return all(len(piece) == 1 for piece in pieces if not piece.startswith("<"))


def _vocabulary(folder: Path, side: Side) -> list[str]:
    """The pieces of one side, from the file of this side or the one that both share."""
    for name in (side, "shared"):
        for ending in ("json", "txt"):
            file = folder / f"{name}_vocabulary.{ending}"
            if not file.is_file():
                continue
            pieces = _json(file) if ending == "json" else _lines(file)
            if not isinstance(pieces, list) or not all(isinstance(p, str) for p in pieces):
                raise ValueError(f"{file}: is no list of pieces")
            return pieces
    raise FileNotFoundError(f"{folder}: has no {side}_vocabulary.json, .txt or shared one")


def _lines(file: Path) -> list[str]:
    with _naming(file):
        return _bytes(file).decode("utf-8").removesuffix("\n").split("\n")


def _json(file: Path) -> Any:
    with _naming(file):
        try:
            return json.loads(_bytes(file))
        except RecursionError as error:
            raise ValueError("is nested too deeply") from error


def _object(file: Path) -> dict[str, Any]:
    found = _json(file)
    if not isinstance(found, dict):
        raise ValueError(f"{file}: holds no JSON object")
    return found


def _bytes(file: Path) -> bytes:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file")
    if file.stat().st_size > _LARGEST_TEXT:
        raise ValueError(f"{file}: has {file.stat().st_size:,} bytes, too many for what it is")
    return file.read_bytes()


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Adds a file's name to the ValueErrors of a block."""
    try:
        yield
    except ValueError as error:
        if str(error).startswith(str(file)):
            raise
        raise ValueError(f"{file}: {error}") from error
