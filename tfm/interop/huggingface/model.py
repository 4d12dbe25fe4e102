"""A model of Hugging Face as an architecture and its weights, and back."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfm import hint
from tfm.interop import mapping
from tfm.interop.huggingface import names
from tfm.interop.huggingface.families import FAMILIES, Family
from tfm.interop.mapping import Imported, Rows
from tfm.transformer import Architecture

_SINUSOIDS = ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")


def family_of(config: Mapping[str, Any]) -> Family:
    """The family that ``model_type`` names.

    Raises:
      ValueError: it is none that tfm knows.
    """
    kind = config.get("model_type")
    if kind not in FAMILIES:
        near = hint.nearest(kind, FAMILIES) if isinstance(kind, str) else ""
        raise ValueError(f"config.json: model_type {kind!r} is not known{near}")
    return FAMILIES[kind]


def import_model(
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    unk: int | tuple[int, int],
    where: str = "weights",
) -> Imported:
    """config.json and tensors → a model of tfm.

    Args:
      unk: the foreign id of the unknown piece, which no config has; of each side if they differ.
      where: the file of weights, for messages.

    Raises:
      ValueError: another family, a field that tfm cannot express, or tensors that do not fit.
    """
    family = family_of(config)
    fields = family.fields(config)
    named = {n: x for n, x in tensors.items() if not _is_table_of_sinusoids(n, fields)}
    tie, named = names.resolve_tables(family.tables, named, where)
    sizes = [named[f"table.{name}"].shape[0] for name in names.kept_tables(tie)[:2]]
    special = _special(config)
    unks = unk if isinstance(unk, tuple) else (unk, unk)
    rows = {
        side: mapping.ordinary_rows(size, special | {"unk": one})
        for side, size, one in zip(("source", "target"), sizes, unks, strict=True)
    }
    start = int(config.get("decoder_start_token_id", -1))
    arch = Architecture(
        source_vocab=len(rows["source"]), target_vocab=len(rows["target"]), tie=tie,
        decoder_start=_our_id(rows["target"], start, "decoder_start_token_id"),
        closed_rows=mapping.closed_rows(rows["target"]),
        unwritten=tuple(
            _our_id(rows["target"], i, "bad_words_ids") for i in _single_bad_words(config)
        ),
        **fields,
    )  # fmt: skip
    if fields["output_bias"] and "final_logits_bias" not in named:
        named["final_logits_bias"] = np.zeros((1, sizes[1]), np.float32)
    params = mapping.to_ours(family.entries(arch), named, arch, rows, where)
    return Imported(arch, params, rows)


def export_tensors(kind: str, model: Imported) -> dict[str, np.ndarray]:
    """The tensors of an imported model, under the names of its family."""
    family, arch = FAMILIES[kind], model.arch
    tensors = mapping.to_theirs(family.entries(arch), model.params, model.rows)
    return names.expand_tables(family.tables, arch.tie, tensors)


def _special(config: Mapping[str, Any]) -> dict[str, int | None]:
    """Foreign ids of pad, bos and eos. A decoder that starts from pad has it for its bos."""
    ids = {name: config.get(f"{name}_token_id") for name in ("pad", "bos", "eos")}
    for name, value in ids.items():
        if value is not None and (not isinstance(value, int) or value < 0):
            raise ValueError(f"config.json: {name}_token_id is {value!r}; it must be an id")
    if ids["eos"] is None:
        raise ValueError("config.json: eos_token_id is missing; search would never end")
    if config.get("decoder_start_token_id") == ids["pad"]:
        ids |= {"pad": None, "bos": ids["pad"]}
    if ids["bos"] == ids["eos"]:
        ids["bos"] = None
    return ids


def _our_id(rows: Rows, theirs: int, name: str) -> int:
    found = np.flatnonzero(rows == theirs)
    if theirs < 0 or len(found) != 1:
        raise ValueError(f"config.json: {name} {theirs} is no id of its target vocabulary")
    return int(found[0])


def _single_bad_words(config: Mapping[str, Any]) -> list[int]:
    words = config.get("bad_words_ids") or []
    if not isinstance(words, list) or not all(isinstance(w, list) for w in words):
        raise ValueError("config.json: bad_words_ids must be a list of lists of ids")
    return [w[0] for w in words if len(w) == 1 and isinstance(w[0], int)]


def _is_table_of_sinusoids(name: str, fields: Mapping[str, Any]) -> bool:
    """Whether a tensor holds sinusoids, which tfm computes."""
    learned = "positions" in fields and fields["positions"].longest is not None
    return name in _SINUSOIDS and not learned
