"""Tokenizers of models that were made elsewhere, behind the protocol of ``tokenizer``.

Their vocabulary is a list of pieces in our order: pad, unk, bos and eos are 0 to 3. A text is split
by a SentencePiece model, whose own ids do not matter, or simply at spaces or between characters.
The run's folder keeps one JSON file for each side, and beside it the SentencePiece model.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import sentencepiece
from etils import epath

from tfm import storage
from tfm.data.tokenizer import BOS, EOS, PAD, UNK, normalise

Kind = Literal["sentencepiece", "words", "characters"]
KINDS = ("sentencepiece", "words", "characters")
UNKNOWN = "\u2047"  # what an unknown piece is decoded as, as by SentencePiece


@dataclasses.dataclass(frozen=True, eq=False)
class ForeignTokenizer:
    """A vocabulary in our order, and how text is split.

    Attributes:
      kind: what splits text.
      vocabulary: all V pieces, in the order of their ids.
      foreign_ids: the id of each of our ids where the model came from; -1 if it has none.
      ends: whether ``encode`` gives eos at the end; some models read sources without it.
      model: content of the SentencePiece model; empty for other kinds.
    """

    kind: Kind
    vocabulary: list[str]
    foreign_ids: tuple[int, ...]
    ends: bool = True
    model: bytes = b""

    @property
    def size(self) -> int:
        """Number of pieces: V."""
        return len(self.vocabulary)

    @property
    def byte_fallback(self) -> bool:
        """Whether unknown characters are spelled in bytes; nothing reads it here."""
        return False

    @functools.cached_property
    def digest(self) -> str:
        """Hash of everything that decides about ids."""
        return hashlib.sha256(self._text().encode() + self.model).hexdigest()

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        # Of pieces that occur twice the first counts.
        return {piece: i for i, piece in reversed(list(enumerate(self.vocabulary)))}

    @functools.cached_property
    def _processor(self) -> sentencepiece.SentencePieceProcessor:
        return sentencepiece.SentencePieceProcessor(model_proto=self.model)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: the fields alone."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def encode(self, text: str) -> list[int]:
        """Returns the ids of one line of text, then ``EOS`` where the model reads one."""
        ids = [self._ids.get(piece, UNK) for piece in self.pieces(text)]
        return [*ids, EOS] if self.ends else ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns ``encode`` of each text."""
        return [self.encode(text) for text in texts]

    def sample(self, text: str, rng: np.random.Generator, nbest: int, alpha: float) -> list[int]:
        """Raises ValueError: segmentations of a foreign vocabulary are not sampled."""
        raise ValueError(f"tokenizer.sample_nbest {nbest}: needs a vocabulary that tfm trained")

    def decode(self, ids: Iterable[int]) -> str:
        """Returns one line of text: the ids before the first ``EOS``, without PAD and BOS."""
        kept = itertools.takewhile(lambda i: i != EOS, map(int, ids))
        pieces = [UNKNOWN if i == UNK else self.vocabulary[i] for i in kept if i not in (PAD, BOS)]
        if self.kind == "sentencepiece":
            return " ".join(self._processor.decode_pieces(pieces).split())
        return ("" if self.kind == "characters" else " ").join(pieces)

    def pieces(self, text: str) -> list[str]:
        """Returns the pieces that ``encode`` splits a text into, without ``EOS``."""
        text = normalise(text)
        if self.kind == "sentencepiece":
            code = re.match(r">>[^<>]+<<", text)  # of a language, to be translated to
            if code and code[0] in self._ids:
                return [code[0], *self._processor.encode(text[code.end() :], out_type=str)]
            return self._processor.encode(text, out_type=str)
        return text.split() if self.kind == "words" else list(text)

    def id_to_piece(self, ids: Iterable[int]) -> list[str]:
        """Returns the piece of each id."""
        return [self.vocabulary[i] for i in ids]

    def _text(self) -> str:
        data = {
            "format": 1, "kind": self.kind, "ends": self.ends, "vocabulary": self.vocabulary,
            "foreign_ids": list(self.foreign_ids),
        }  # fmt: skip
        return json.dumps(data, ensure_ascii=False, indent=0) + "\n"

    def save(self, path: epath.Path) -> None:
        """Writes PATH.json, and PATH.spm of SentencePiece."""
        if self.model:
            storage.write_atomically(path.with_suffix(".spm"), self.model)
        storage.write_atomically(path.with_suffix(".json"), self._text().encode())


def load(path: epath.Path) -> ForeignTokenizer:
    """Reads what ``save`` wrote.

    Args:
      path: of the JSON file.

    Raises:
      ValueError: it is damaged.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != 1:
            raise ValueError(f"format {data['format']!r} is not known")
        kind, ids = data["kind"], tuple(data["foreign_ids"])
        model = path.with_suffix(".spm").read_bytes() if kind == "sentencepiece" else b""
        made = ForeignTokenizer(kind, data["vocabulary"], ids, data["ends"], model)
        check(made)
    except (KeyError, TypeError, ValueError, OSError) as error:
        text = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"tokenizer {path}: damaged ({text}); import the model again") from error
    return made


def check(made: ForeignTokenizer) -> None:
    """Raises ValueError for a vocabulary that is none, or a model that SentencePiece refuses."""
    if made.kind not in KINDS:
        raise ValueError(f"kind {made.kind!r} is not known")
    pieces = made.vocabulary
    if not isinstance(pieces, list) or not all(isinstance(piece, str) for piece in pieces):
        raise ValueError("the vocabulary is no list of pieces")
    if len(pieces) < 5 or len(made.foreign_ids) != len(pieces):
        raise ValueError(f"{len(pieces)} pieces with {len(made.foreign_ids)} ids")
    if made.kind == "sentencepiece":
        try:
            _ = made._processor
        except RuntimeError as error:
            raise ValueError("not a SentencePiece model") from error
