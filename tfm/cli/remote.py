"""A server in place of a translator, for ``tfm translate --server``."""

import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from tfm.client import Client
from tfm.translator import Translation

_LINES = 128  # a request; the command translates sixteen times as many together


class RemoteTranslator:
    """``n_best`` of a server. What else a command asks of a translator, it does not have."""

    def __init__(self, url: str, source: str, target: str | None) -> None:
        """The API key is that of the variable TFM_API_KEY."""
        self._client = Client(url, os.environ.get("TFM_API_KEY"))
        self._source, self._target = source, target
        self.experiment = SimpleNamespace(decode=SimpleNamespace(batch_size=_LINES))

    def n_best(self, texts: Sequence[str], n: int, **decode: Any) -> list[list[Translation]]:
        """As of ``Translator``; settings of search are the server's own."""
        if decode:
            option = next(iter(decode)).replace("_", "-")
            raise ValueError(f"--{option}: a server searches with the settings of its model")
        # A line has no line breaks; the server translates lines apart.
        lines = [" ".join(text.split()) for text in texts]
        found = self._client.n_best(lines, n, self._source, self._target)
        return [
            [
                Translation(best.text, best.log_prob, best.score, ((line, best.text),))
                for best in own
            ]
            for line, own in zip(lines, found, strict=True)
        ]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise ValueError(f"an option needs the model itself ({name}): use --model")
