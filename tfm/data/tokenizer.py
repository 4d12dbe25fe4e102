"""Tokenizers: text ↔ ids of subword pieces.

``Tokenizer`` is the protocol that the rest of the package relies on. ``SentencePieceTokenizer``
implements it with SentencePiece (Kudo & Richardson 2018); ``vocabulary`` trains its models.

Text is used as it is, except for white space: every run of it, tabs included, becomes one space.
There is no Unicode normalisation: full-width Chinese punctuation is decoded as it was encoded.
"""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from os import PathLike
from typing import Protocol

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from tfm import storage

PAD, UNK, BOS, EOS = 0, 1, 2, 3

SPACE = "\u2581"
"""SentencePiece writes a space as this letter inside its pieces."""


def normalise(text: str) -> str:
    """Returns ``text`` as the tokenizer sees it.

    White space is collapsed, and U+2581, which would be decoded as a space, is replaced by "_".
    """
    return " ".join(text.replace(SPACE, "_").split())


class Tokenizer(Protocol):
    """What the package asks of a tokenizer.

    Ids 0 to 3 are ``PAD``, ``UNK``, ``BOS`` and ``EOS``. Implementations are picklable.
    """

    @property
    def size(self) -> int:
        """Number of pieces, the four special ones included: V."""

    @property
    def digest(self) -> str:
        """Hash of the vocabulary: equal digests mean equal ids for every text."""

    @property
    def vocabulary(self) -> list[str]:
        """All V pieces, in the order of their ids."""

    def encode(self, text: str) -> list[int]:
        """Returns the ids of one line of text, then ``EOS``."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns ``encode`` of each text; faster than one call a text."""

    def sample(self, text: str, rng: np.random.Generator, nbest: int, alpha: float) -> list[int]:
        """Returns a segmentation drawn by ``rng`` from the ``nbest`` most probable, then ``EOS``.

        A segmentation x of probability P(x) is drawn with a probability ∝ P(x)^alpha.

        Raises:
          ValueError: the vocabulary has no probabilities.
        """

    def decode(self, ids: Iterable[int]) -> str:
        """Returns one line of text: the ids before the first ``EOS``, without PAD and BOS."""

    def pieces(self, text: str) -> list[str]:
        """Returns the pieces that ``encode`` splits a text into, without ``EOS``."""

    def id_to_piece(self, ids: Iterable[int]) -> list[str]:
        """Returns the piece of each id."""


@dataclasses.dataclass(frozen=True, eq=False)
class SentencePieceTokenizer:
    """A SentencePiece model as a ``Tokenizer``.

    Attributes:
      digest: hash of the model file.
      kind, byte_fallback: how it was trained, in the terms of ``config.Tokenizer``.
    """

    _processor: sentencepiece.SentencePieceProcessor
    digest: str
    kind: str
    byte_fallback: bool

    @property
    def size(self) -> int:
        """Number of pieces, the four special ones included: V."""
        return self._processor.vocab_size()

    @property
    def vocabulary(self) -> list[str]:
        """All V pieces, in the order of their ids."""
        return self.id_to_piece(range(self.size))

    @functools.cached_property
    def _log_probs_V(self) -> np.ndarray:
        return np.array([self._processor.get_score(i) for i in range(self.size)])

    def encode(self, text: str) -> list[int]:
        """Returns the ids of the most probable segmentation, then ``EOS``."""
        return [*self._processor.encode(normalise(text)), EOS]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns ``encode`` of each text, computed on all cores."""
        return self._processor.encode([normalise(text) for text in texts], add_eos=True)

    def sample(self, text: str, rng: np.random.Generator, nbest: int, alpha: float) -> list[int]:
        """Returns one of the ``nbest`` best segmentations x, drawn ∝ P(x)^alpha, then ``EOS``.

        This is the l-best sampling of Kudo 2018, "Subword Regularization", section 3.3.
        SentencePiece's own sampler cannot be seeded for each sentence; here the caller's generator
        draws.

        Raises:
          ValueError: the vocabulary is not a unigram model, the only kind with probabilities.
        """
        if self.kind != "unigram":
            raise ValueError(f"tokenizer.sample_nbest {nbest}: needs kind unigram, not {self.kind}")
        choices = self._processor.nbest_encode(normalise(text), nbest_size=nbest)
        log_probs = np.array([self._log_probs_V[ids].sum() for ids in choices])
        # The argmax of alpha·log p + Gumbel noise is a draw from the softmax of alpha·log p.
        best = np.argmax(alpha * log_probs + rng.gumbel(size=len(choices)))
        return [*choices[best], EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns one line of text: the ids before the first ``EOS``, without PAD and BOS.

        UNK is decoded as "⁇".
        """
        kept = itertools.takewhile(lambda i: i != EOS, map(int, ids))
        text = self._processor.decode([i for i in kept if i not in (PAD, BOS)])
        # Byte pieces can spell anything: the space mark (the word kind does), even a line break.
        return " ".join(text.replace(SPACE, " ").split())

    def pieces(self, text: str) -> list[str]:
        """Returns the pieces that ``encode`` splits a text into, without ``EOS``."""
        return self._processor.encode(normalise(text), out_type=str)

    def id_to_piece(self, ids: Iterable[int]) -> list[str]:
        """Returns the piece of each id."""
        return self._processor.id_to_piece(list(map(int, ids)))

    def model(self) -> bytes:
        """Returns the content of the model file, in SentencePiece's format."""
        return self._processor.serialized_model_proto()


def load(path: str | PathLike) -> SentencePieceTokenizer:
    """Reads a SentencePiece model file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a SentencePiece model, or one with other special ids than this package's.
    """
    file = storage.path(path)
    if not file.is_file():
        raise FileNotFoundError(f"tokenizer {file}: no such file")
    content = file.read_bytes()
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    except RuntimeError as error:
        raise ValueError(f"tokenizer {file}: not a SentencePiece model") from error
    special = processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id()
    if special != (PAD, UNK, BOS, EOS):
        raise ValueError(f"tokenizer {file}: pad, unk, bos, eos are {special}, not (0, 1, 2, 3)")
    spec = sentencepiece_model_pb2.ModelProto.FromString(content).trainer_spec
    return SentencePieceTokenizer(
        processor,
        digest=hashlib.sha256(content).hexdigest(),
        kind=spec.ModelType.Name(spec.model_type).lower(),
        byte_fallback=spec.byte_fallback,
    )
