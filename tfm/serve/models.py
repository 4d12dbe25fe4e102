"""The models of a service, by the language pairs that they translate."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tfm import hint
from tfm.data.languages import base
from tfm.decoding import Decode
from tfm.serve.refusal import Refusal
from tfm.translator import Translator


@dataclass(frozen=True, eq=False)
class Model:
    """A translator with the settings that it is served with.

    Attributes:
      name: of its lanes and in metrics.
      folder: of its run, for the reports on single sentences; None if there is none.
      options: of ``translator.load``, for the same.
      decode: the search of every request ...
      wide: ... and of those with more alternatives than ``decode`` finds; None if it finds enough.
    """

    name: str
    translator: Translator
    decode: Decode
    wide: Decode | None = None
    folder: str | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def source(self) -> str:
        """The normalised code of the language that it reads."""
        return base(self.translator.experiment.data.source)

    @property
    def target(self) -> str:
        """The normalised code of the language that it writes."""
        return base(self.translator.experiment.data.target)


def model(
    translator: Translator,
    batch_size: int,
    alternatives: int,
    folder: str | None = None,
    options: dict[str, Any] | None = None,
) -> Model:
    """A model that gives up to so many alternatives, with the search settings of its run.

    But without the guard: see ``translator.guard``.

    Args:
      batch_size: the most pieces that run together.
    """
    # What the guard decodes again would compile while the service runs, and hold up everybody.
    decode = translator.decode_settings(batch_size=batch_size, guard="off")
    wide = None
    if alternatives + 1 > decode.hypotheses:
        # One at a time, since each batch size is one more program to compile for every length.
        wider = {decode.width: alternatives + 1, "batch_size": 1}
        wide = translator.decode_settings(guard="off", **wider)
    data = translator.experiment.data
    name = f"{base(data.source)}-{base(data.target)}"
    return Model(name, translator, decode, wide, folder, options or {})


class Models:
    """All models, by pair."""

    def __init__(self, models: Iterable[Model]) -> None:
        """Takes one model or more.

        Raises:
          ValueError: none, or two of the same pair.
        """
        self._by_pair: dict[tuple[str, str], Model] = {}
        for one in models:
            if (one.source, one.target) in self._by_pair:
                raise ValueError(
                    f"two models translate {one.name}; a service routes by language pair: give one"
                )
            self._by_pair[one.source, one.target] = one
        if not self._by_pair:
            raise ValueError("no model to serve")

    def __iter__(self) -> Any:
        return iter(self._by_pair.values())

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All (source, target)."""
        return list(self._by_pair)

    def sources(self, target: str | None = None) -> list[str]:
        """The languages that can be translated, into ``target`` if given."""
        wanted = None if target is None else base(target)
        return list(dict.fromkeys(s for s, t in self._by_pair if wanted in (None, t)))

    def targets(self, source: str) -> list[str]:
        """The languages that ``source`` is translated into."""
        return [t for s, t in self._by_pair if s == base(source)]

    def route(self, source: str, target: str) -> Model:
        """The model of a pair.

        Raises:
          Refusal: there is none.
        """
        found = self._by_pair.get((base(source), base(target)))
        if found is None:
            known = [f"{s}-{t}" for s, t in self._by_pair]
            asked = f"{source[:20]}-{target[:20]}"
            raise Refusal(400, f"no model translates {asked!r}{hint.nearest(asked, known)}")
        return found
