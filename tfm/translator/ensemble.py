"""Several models that translate together."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from tfm import memory, transformer
from tfm.decoding import Decode
from tfm.translator import search_memory
from tfm.translator.compiled import CompiledPrograms
from tfm.translator.translator import Translator


class Ensemble(Translator):
    """Models with equal vocabularies as one; their architectures may differ.

    At every step they are averaged as ``Decode.ensemble_average`` says. Settings are those of the
    first model; a sentence may be as long as all of them take.
    """

    def __init__(self, models: Sequence[Translator]) -> None:
        """Takes the models, each with its weights.

        Raises:
          ValueError: vocabularies differ, or there is no model.
        """
        if not models:
            raise ValueError("an ensemble needs at least one model")
        first = models[0]
        for i, model in enumerate(models[1:], 2):
            for side in ("source", "target"):
                if getattr(model, side).digest != getattr(first, side).digest:
                    raise ValueError(
                        f"model {i} of the ensemble has another {side} vocabulary than the first: "
                        "train them with the same tokenizers"
                    )
        lengths = {
            name: min(getattr(model.experiment.data, name) for model in models)
            for name in ("source_length", "target_length")
        }
        data = dataclasses.replace(first.experiment.data, **lengths)
        experiment = dataclasses.replace(first.experiment, data=data)
        super().__init__(experiment, None, first.source, first.target)
        self.arch: Any = tuple(model.arch for model in models)
        self.programs = CompiledPrograms(self.arch, self.execution)
        self.params: Any = tuple(model.params for model in models)

    def with_params(self, params: Any) -> "Translator":
        """Not for an ensemble: make one of the models with other weights."""
        raise NotImplementedError("make an Ensemble of models with other weights")

    def require_memory(self, decode: Decode, sentences: int, source_tokens: int) -> None:
        """Raises ValueError if a search over so many padded sentences does not fit into memory."""
        itemsize = transformer.compute_dtype(self.execution).itemsize
        free, room = memory.free(jax.local_devices()[0]), None
        for i, arch in enumerate(self.arch):
            others = self.arch[:i] + self.arch[i + 1 :]
            if free is not None:  # every model needs room beside the others
                room = free - sum(
                    search_memory.search_bytes(other, decode, sentences, source_tokens, itemsize)
                    for other in others
                )
            search_memory.require(arch, decode, sentences, source_tokens, itemsize, room)
