"""The backend that runs whole batches of a ``Translator``, all of shapes compiled beforehand."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tfm import inspect
from tfm.decoding import Decode
from tfm.inspect.annotation import Annotation
from tfm.serve.queue import Piece
from tfm.translator import Translation, Translator

_log = logging.getLogger(__name__)


class Found(NamedTuple):
    """What a piece became.

    Attributes:
      translations: the n best, best first.
      annotation: of the best one, if it was wanted.
    """

    translations: list[Translation]
    annotation: Annotation | None = None


class Batches:
    """Batches of one translator with one setting of search; see ``queue.Backend``."""

    def __init__(
        self,
        translator: Translator,
        decode: Decode,
        annotates: bool = True,
        on_compiled: Callable[[], None] = lambda: None,
    ) -> None:
        """Compiles nothing yet.

        Args:
          decode: of all searches; its batch size is the most pieces that run together.
          annotates: whether ``warm_up`` compiles the annotations of this translator.
          on_compiled: called after each compiled program.
        """
        self.translator, self.decode = translator, decode
        self._annotates, self._on_compiled = annotates, on_compiled
        self._held: list[Piece] = []

    def kind(self, text: str) -> int:
        """The padded length, which decides the compiled program."""
        return self.translator.padded_tokens(text)

    def warm_up(self) -> None:
        """Compiles the search of every shape, and the annotations of every length."""
        for B, S in self.translator.search_shapes(self.decode):
            self.translator.compile_search(self.decode, B, S)
            self._on_compiled()
        if self._annotates:
            for _ in inspect.annotation.warm_up(self.translator):
                self._on_compiled()

    def room(self) -> int:
        """How many more pieces the next batch takes."""
        return self.decode.batch_size - len(self._held)

    def add(self, piece: Piece) -> None:
        """Puts a piece into the next batch."""
        self._held.append(piece)

    def busy(self) -> bool:
        """Whether there is a next batch."""
        return bool(self._held)

    def drop(self, piece: Piece) -> bool:
        """Takes a piece out of the next batch."""
        self._held.remove(piece)
        return True

    def step(self) -> list[tuple[Piece, Any]]:
        """Runs the batch. If it fails, each piece runs alone, so that one spoils no other."""
        pieces, self._held = self._held, []
        pieces = [piece for piece in pieces if piece.state == "running"]
        try:
            return list(zip(pieces, self._run(pieces), strict=True))
        except Exception as error:
            _log.warning("a batch of %d failed: %s", len(pieces), type(error).__name__)
            if len(pieces) == 1:
                return [(pieces[0], error)]
        found: list[tuple[Piece, Any]] = []
        for piece in pieces:
            try:
                found.append((piece, self._run([piece])[0]))
            except Exception as error:
                found.append((piece, error))
        return found

    def _run(self, pieces: Sequence[Piece]) -> list[Found]:
        n = max(piece.n for piece in pieces)
        own = self.translator.experiment.decode
        changed = {k: v for k, v in vars(self.decode).items() if v != getattr(own, k)}
        best = self.translator.n_best([piece.text for piece in pieces], n, **changed)
        annotated = [i for i, piece in enumerate(pieces) if piece.annotate]
        pairs = [(pieces[i].text, best[i][0].text) for i in annotated]
        annotations = dict(zip(annotated, inspect.annotate(self.translator, pairs), strict=True))
        return [
            Found(translations[: piece.n], annotations.get(i))
            for i, (piece, translations) in enumerate(zip(pieces, best, strict=True))
        ]
