"""Subwords: text ↔ ids, by SentencePiece (Kudo & Richardson 2018).

Text goes in as it is, but for white space: every run of it, tabs included, becomes one space.
No Unicode normalisation: full-width Chinese punctuation comes back as it went in.
"""

import dataclasses
import functools
import hashlib
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from os import PathLike

import numpy as np
import sentencepiece
from etils import epath
from sentencepiece import sentencepiece_model_pb2

from tfm import config, storage
from tfm.data import corpus

PAD, UNK, BOS, EOS = 0, 1, 2, 3

_SPACE = "\u2581"  # SentencePiece writes a space as this letter inside its pieces.
_THREADS = 8  # Fixed, because the sums of unigram training depend on how they are split.


def normalise(text: str) -> str:
    """``text`` as the tokenizer sees it: white space collapsed, and U+2581, which would read as
    a space, replaced by the "_" it looks like.
    """
    return " ".join(text.replace(_SPACE, "_").split())


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
    """A trained vocabulary; picklable.

    Attributes:
      processor: the SentencePiece model.
      digest: hash of the model file, for names of cached work.
      kind, byte_fallback: how it was trained, as ``config.Tokenizer`` names it.
    """

    processor: sentencepiece.SentencePieceProcessor
    digest: str
    kind: str
    byte_fallback: bool

    @property
    def size(self) -> int:
        """Pieces, the four special ones included: V."""
        return self.processor.vocab_size()

    @property
    def vocabulary(self) -> list[str]:
        """All pieces, in the order of their ids."""
        return self.processor.id_to_piece(list(range(self.size)))

    @functools.cached_property
    def _log_probs_V(self) -> np.ndarray:
        return np.array([self.processor.get_score(i) for i in range(self.size)])

    def encode(self, text: str) -> list[int]:
        """Ids of the most probable pieces, then EOS."""
        return [*self.processor.encode(normalise(text)), EOS]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """``encode`` of many texts at once, on all cores."""
        return self.processor.encode([normalise(text) for text in texts], add_eos=True)

    def sample(self, text: str, rng: np.random.Generator, nbest: int, alpha: float) -> list[int]:
        """One of the ``nbest`` best segmentations x, drawn with p(x) ∝ P(x)^alpha, then EOS.

        The l-best sampling of Kudo 2018, "Subword Regularization", section 3.3. SentencePiece's
        own sampler cannot be seeded for each sentence; here the draw is the caller's.

        Raises:
          ValueError: the vocabulary is not a unigram model, the only kind with probabilities.
        """
        if self.kind != "unigram":
            raise ValueError(f"tokenizer.sample_nbest {nbest}: needs kind unigram, not {self.kind}")
        choices = self.processor.nbest_encode(normalise(text), nbest_size=nbest)
        log_probs = np.array([self._log_probs_V[ids].sum() for ids in choices])
        # The largest of alpha·log p + Gumbel noise is a draw from the softmax of alpha·log p.
        best = np.argmax(alpha * log_probs + rng.gumbel(size=len(choices)))
        return [*choices[best], EOS]

    def decode(self, ids: Iterable[int]) -> str:
        """One line of text: ``ids`` up to the first EOS, without PAD and BOS; UNK shows as "⁇"."""
        kept = itertools.takewhile(lambda i: i != EOS, map(int, ids))
        text = self.processor.decode([i for i in kept if i not in (PAD, BOS)])
        # Byte pieces can spell anything: the space mark (the word kind does), even a line break.
        return " ".join(text.replace(_SPACE, " ").split())

    def pieces(self, text: str) -> list[str]:
        """The pieces of ``encode`` as text, without EOS."""
        return self.processor.encode(normalise(text), out_type=str)


def load(path: str | PathLike) -> Tokenizer:
    """Reads a SentencePiece model file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a SentencePiece model, or one with other special ids than this package's.
    """
    path = storage.path(path)
    if not path.is_file():
        raise FileNotFoundError(f"tokenizer {path}: no such file")
    content = path.read_bytes()
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=content)
    except RuntimeError as error:
        raise ValueError(f"tokenizer {path}: not a SentencePiece model") from error
    special = processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id()
    if special != (PAD, UNK, BOS, EOS):
        raise ValueError(f"tokenizer {path}: pad, unk, bos, eos are {special}, not (0, 1, 2, 3)")
    spec = sentencepiece_model_pb2.ModelProto.FromString(content).trainer_spec
    return Tokenizer(
        processor=processor,
        digest=hashlib.sha256(content).hexdigest(),
        kind=spec.ModelType.Name(spec.model_type).lower(),
        byte_fallback=spec.byte_fallback,
    )


def train(
    sentences: Iterable[str],
    settings: config.Tokenizer,
    language: str,
    size: int,
    path: str | PathLike,
) -> Tokenizer:
    """Trains a vocabulary, writes it to ``path`` (whole or not at all) and loads it.

    The same sentences give the same model on any machine. The kinds unigram and bpe fill
    ``size`` exactly; char and word stop at what the text holds. The word kind cuts at white space,
    which Chinese does not write: there a "word" is a whole clause, so give it segmented text.

    Args:
      language: code ("zh"), or several joined by "+" for a shared vocabulary.
      size: pieces, special ones and (with byte fallback) 256 byte pieces included.

    Raises:
      ValueError: the text is empty, or too small or too varied for ``size``.
    """
    counter = itertools.count()
    texts = filter(None, map(normalise, sentences))
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(text for text, _ in zip(texts, counter, strict=False)),
            model_writer=model,
            model_type=settings.kind,
            vocab_size=size,
            hard_vocab_limit=settings.kind in ("unigram", "bpe"),
            character_coverage=settings.coverage or _coverage(language),
            byte_fallback=settings.byte_fallback,
            normalization_rule_name="identity",
            pad_id=PAD,
            unk_id=UNK,
            bos_id=BOS,
            eos_id=EOS,
            num_threads=_THREADS,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(_advice(str(error), language, size, next(counter))) from error
    storage.write_atomically(path, model.getvalue())
    return load(path)


def prepare(
    settings: config.Config, pairs: corpus.Pairs, folder: str | PathLike
) -> tuple[Tokenizer, Tokenizer]:
    """The tokenizers of a run: trained on ``pairs`` into ``folder`` at first, loaded afterwards.

    Files: ``source.model`` and ``target.model``, or ``joint.model`` for one shared vocabulary.

    Returns:
      The source and the target tokenizer; the same one twice if shared.

    Raises:
      ValueError: the kept vocabulary is not the one that ``settings`` describes, or training
        failed (see ``train``).
    """
    spec, languages = settings.tokenizer, (settings.data.source, settings.data.target)
    folder = storage.path(folder)
    stale = ("source", "target") if spec.joint else ("joint",)
    for name in stale:
        if (folder / f"{name}.model").exists():
            raise ValueError(
                f"tokenizer {folder / name}.model: does not fit tokenizer.joint {spec.joint}; "
                "use another folder or the old setting"
            )
    if spec.joint:
        sides = [("joint", "+".join(languages), spec.source_size, (0, 1))]
    else:
        sides = [
            ("source", languages[0], spec.source_size, (0,)),
            ("target", languages[1], spec.target_size, (1,)),
        ]
    made = []
    for name, language, size, columns in sides:
        path = folder / f"{name}.model"
        if not path.exists():
            most = spec.sentences // len(columns)
            train(_sentences(pairs, columns, most), spec, language, size, path)
        made.append(_checked(load(path), spec, size, path))
    return made[0], made[-1]


def _sentences(pairs: corpus.Pairs, columns: tuple[int, ...], most: int) -> Iterator[str]:
    """The given sides of at most ``most`` pairs, drawn evenly over the corpus."""
    count = min(len(pairs), most)
    edges = np.arange(count + 1) * len(pairs) // count
    # One from each of ``count`` equal stretches, at random: a corpus may repeat a pattern.
    indices = np.random.default_rng(0).integers(edges[:-1], edges[1:])
    for start in range(0, count, 4096):
        for pair in pairs.__getitems__(indices[start : start + 4096].tolist()):
            yield from (pair[column] for column in columns)


def _checked(kept: Tokenizer, spec: config.Tokenizer, size: int, path: epath.Path) -> Tokenizer:
    """Returns ``kept`` if it is what the config asks for; char and word may hold fewer pieces."""
    have = (kept.kind, kept.byte_fallback, kept.size)
    fewer_is_fine = spec.kind in ("char", "word") and kept.size <= size
    want = (spec.kind, spec.byte_fallback, kept.size if fewer_is_fine else size)
    if have != want:
        raise ValueError(
            f"tokenizer {path}: kept vocabulary has kind {have[0]}, byte_fallback {have[1]}, "
            f"{have[2]} pieces, but the config asks for {want[0]}, {want[1]}, {size}; "
            "use another folder or the old setting"
        )
    return kept


def _coverage(language: str) -> float:
    """Share of characters with a piece of their own: less than all where there are thousands."""
    codes = {re.split("[-_]", code)[0].lower() for code in language.split("+")}
    return 0.9995 if codes & {"zh", "ja", "ko", "yue"} else 1.0


def _advice(error: str, language: str, size: int, sentences: int) -> str:
    """SentencePiece's message in terms of the config."""
    where = f"tokenizer for {language}: {sentences:,} sentences"
    if most := re.search(r"Vocabulary size too high.*<= (\d+)", error):
        return (
            f"{where} give at most {most[1]} pieces, but {size} were asked for; "
            "lower tokenizer.source_size or target_size, or add text"
        )
    if least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", error):
        return (
            f"{where} need at least {least[1]} pieces for their characters, but {size} were asked "
            "for; raise tokenizer.source_size or target_size, or lower tokenizer.coverage"
        )
    if "sentences_.empty()" in error or "all_chars_count" in error:
        return f"{where} with text in them: nothing to train on"
    return f"{where}, {size} pieces asked for: {error}"
