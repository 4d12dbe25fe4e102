"""How the folder of a run becomes a translator."""

import dataclasses
import logging
from os import PathLike
from typing import Annotated, Literal

from tfm import checkpoint, config, params, ranges, sharding, transformer
from tfm.config import SENTENCE_LENGTH
from tfm.data import foreign, tokenizer
from tfm.data.tokenizer import Tokenizer
from tfm.params import Tree
from tfm.positions.rotary import SCALING
from tfm.run_folder import RunFolder
from tfm.sharding import NO_MESH, Layout, Mesh
from tfm.transformer.config import Weights
from tfm.translator.translator import Translator

_log = logging.getLogger(__name__)


def load(
    folder: str | PathLike,
    source_length: int | None = None,
    target_length: int | None = None,
    rotary_scaling: float | None = None,
    weights: Weights | None = None,
    mesh: Mesh | None = None,
) -> Translator:
    """Opens the folder of a run: the best weights so far, else those of the newest checkpoint.

    Args:
      source_length, target_length: the most tokens it takes of a source to translate, and of a
        target to score or inspect, in place of the run's own.
      rotary_scaling: of rotary positions, in place of the run's own.
      weights: of matrix products, ``execution.weights``, in place of the run's own.
      mesh: of devices to translate on, such as ``Mesh(data=-1)`` for sentences shared out over all
        of them, or ``Mesh(data=1, fsdp=-1)`` for a model that is too large for one; the first
        device by default.

    Raises:
      FileNotFoundError: no run there, or nothing saved yet.
      ValueError: lengths that learned positions do not reach, a scaling of positions that are not
        rotary, a damaged model, or weights of another model than its config.json describes.
    """
    folder = RunFolder(folder)
    if not folder.config.is_file():
        raise FileNotFoundError(f"model {folder}: no config.json there; is it a folder of a run?")
    experiment = config.read(folder.config)
    try:
        experiment = with_lengths(experiment, source_length, target_length, rotary_scaling)
        if weights is not None:
            execution = dataclasses.replace(experiment.execution, weights=weights)
            experiment = dataclasses.replace(experiment, execution=execution)
            ranges.check(execution, "execution")
        expected = params.abstract(transformer.declare(experiment.model))
    except ValueError as error:
        raise ValueError(f"model {folder}: {error}") from error
    names: tuple[Literal["source", "target", "joint"], ...]
    names = ("joint", "joint") if experiment.tokenizer.joint else ("source", "target")
    source, target = (open_tokenizer(folder, name) for name in names)
    sizes = experiment.model.source_vocab, experiment.model.target_vocab
    if (source.size, target.size) != sizes:
        raise ValueError(
            f"model {folder}: its tokenizers have {source.size} and {target.size} pieces, but its "
            f"weights are for {sizes[0]} and {sizes[1]}: put back the tokenizers of the run"
        )
    update, trained = _weights(folder, expected)
    _log.info("model %s: weights of update %d", folder, update)
    layout = NO_MESH if mesh is None else Layout(sharding.make(mesh))
    return Translator(experiment, trained, source, target, layout)


def open_tokenizer(folder: RunFolder, name: Literal["source", "target", "joint"]) -> Tokenizer:
    """The tokenizer of one side, trained here or imported with the model."""
    imported = folder.imported_tokenizer(name)
    if imported.is_file():
        return foreign.load(imported)
    return tokenizer.load(folder.tokenizer(name))


def _weights(folder: RunFolder, expected: Tree) -> tuple[int, Tree]:
    """The best weights, else the newest, and the update that they are of."""
    mismatch = f"put back the config.json that belongs to these weights, or the weights of {folder}"
    copy = checkpoint.Advice().damaged
    newest = " or move this folder away to use the weights of its newest checkpoint"
    damaged = f"{copy},{newest}" if folder.checkpoints.is_dir() else copy
    try:
        try:
            _, weights, info = checkpoint.load(
                folder.best, expected=expected, advice=checkpoint.Advice(damaged, mismatch)
            )
            return info["update"], weights
        except FileNotFoundError:  # not validated yet, or there is no dev set
            update, state, _ = checkpoint.load(
                folder.checkpoints,
                only=("average", "params"),
                expected={"average": expected, "params": expected},
                advice=checkpoint.Advice(copy, mismatch),
            )
            return update, state.get("average") or state["params"]
    except checkpoint.StructureMismatch as error:
        raise ValueError(f"model {folder}: {error}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"model {folder}: nothing is saved there yet ({error}); train it until its first "
            "validation or checkpoint"
        ) from error


def with_lengths(
    experiment: config.Config,
    source_length: Annotated[int, SENTENCE_LENGTH] | None = None,
    target_length: Annotated[int, SENTENCE_LENGTH] | None = None,
    rotary_scaling: Annotated[float, SCALING] | None = None,
) -> config.Config:
    """The config of a trained model for other lengths than it was trained on; see ``load``."""
    given = {"source_length": source_length, "target_length": target_length}
    ranges.check_arguments(with_lengths, given | {"rotary_scaling": rotary_scaling})
    arch, data = experiment.model, experiment.data
    longest = arch.positions.longest
    for name, length in given.items():
        if length is None:
            continue
        if longest is not None and length > longest:
            raise ValueError(
                f"{name} {length}: the model has learned positions 0 to {longest - 1}; {longest} "
                "is the most"
            )
        data = dataclasses.replace(data, **{name: length})
    if rotary_scaling is not None:
        arch = dataclasses.replace(arch, positions=arch.positions.scaled(rotary_scaling))
    return dataclasses.replace(experiment, model=arch, data=data)
