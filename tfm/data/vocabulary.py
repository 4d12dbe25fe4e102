"""Training of SentencePiece vocabularies, and the vocabularies of an experiment."""

import functools
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from os import PathLike

import numpy as np
import sentencepiece
from etils import epath

from tfm import config, signals, storage
from tfm.data import corpus, languages
from tfm.data.tokenizer import BOS, EOS, PAD, SPACE, UNK, SentencePieceTokenizer, load, normalise

_THREADS = 8  # Fixed, because the sums of unigram training depend on how they are split.
_CHUNK = 4096  # Pairs read at a time.
_LONGEST = 4192  # Bytes; SentencePiece leaves out longer sentences.


def train(
    sentences: Iterable[str],
    spec: config.Tokenizer,
    language: str,
    size: int,
    path: str | PathLike,
    option: str = "tokenizer.source_size",
    tags: Iterable[str] = (),
) -> SentencePieceTokenizer:
    """Trains a vocabulary, writes it to ``path`` (completely or not at all) and loads it.

    The same sentences give the same model on any machine. The kinds unigram and bpe have exactly
    ``size`` pieces; char and word have fewer if the text has no more. The word kind splits at white
    space only; in Chinese a "word" would be a whole clause, so segment such text first.

    Args:
      sentences: the text to train on.
      spec: kind, byte fallback and character coverage.
      language: code ("zh"), or several joined by "+" for a shared vocabulary.
      size: number of pieces, special ones and (with byte fallback) 256 byte pieces included.
      path: of the model file.
      option: what sets ``size``, for error messages.
      tags: texts such as ``<bt>`` that are a piece of their own at the beginning of a sentence.

    Raises:
      ValueError: the text is empty, or too small or too varied for ``size``.
    """
    _check(spec, size, option)
    counter = itertools.count()
    texts = filter(None, map(normalise, sentences))
    model = io.BytesIO()
    train = functools.partial(
        sentencepiece.SentencePieceTrainer.train,
        sentence_iterator=(text for text, _ in zip(texts, counter, strict=False)),
        model_writer=model,
        model_type=spec.kind,
        vocab_size=size,
        hard_vocab_limit=spec.kind in ("unigram", "bpe"),
        character_coverage=spec.coverage or languages.coverage(language),
        byte_fallback=spec.byte_fallback,
        normalization_rule_name="identity",
        pad_id=PAD,
        unk_id=UNK,
        bos_id=BOS,
        eos_id=EOS,
        user_defined_symbols=[SPACE + tag for tag in tags],
        max_sentence_length=_LONGEST,
        num_threads=_THREADS,
        minloglevel=2,
    )
    try:
        signals.interruptible(train)
    except RuntimeError as error:
        text = _explain(str(error), language, size, next(counter), option)
        raise ValueError(text) from error
    storage.write_atomically(path, model.getvalue())
    return load(path)


def prepare(
    experiment: config.Config, pairs: corpus.Pairs, folder: str | PathLike
) -> tuple[SentencePieceTokenizer, SentencePieceTokenizer]:
    """Loads the tokenizers of a run from ``folder``; trains those that are missing on ``pairs``.

    The files are ``source.model`` and ``target.model``, or ``joint.model`` if shared.

    Returns:
      The source and the target tokenizer; the same one twice if shared.

    Raises:
      ValueError: a file holds another vocabulary than ``experiment`` describes, or training
        failed (see ``train``).
    """
    spec, codes = experiment.tokenizer, (experiment.data.source, experiment.data.target)
    directory = storage.path(folder)
    if (directory / "source.json").exists():
        raise ValueError(
            f"tokenizers {directory}: the folder holds an imported model, which tfm translates "
            "with but does not train yet; use another folder"
        )
    unexpected = ("source", "target") if spec.joint else ("joint",)
    for name in unexpected:
        if (directory / f"{name}.model").exists():
            raise ValueError(
                f"tokenizer {directory / name}.model: does not fit tokenizer.joint {spec.joint}; "
                "use another folder or the old setting"
            )
    sides: list[tuple[str, str, int, tuple[int, ...]]]
    if spec.joint:
        sides = [("joint", "+".join(codes), spec.source_size, (0, 1))]
    else:
        sides = [
            ("source", codes[0], spec.source_size, (0,)),
            ("target", codes[1], spec.target_size, (1,)),
        ]
    tags = sorted({c.tag for c in experiment.data.mixture if c.tag})
    tokenizers = []
    for name, language, size, columns in sides:
        path = directory / f"{name}.model"
        if not path.exists():
            limit = spec.sentences // len(columns)
            option = "tokenizer.target_size" if name == "target" else "tokenizer.source_size"
            own_tags = tags if 0 in columns else ()
            texts = _sentences(pairs, columns, limit)
            train(texts, spec, language, size, path, option, own_tags)
        tokenizers.append(_checked(load(path), spec, size, path))
    _check_tags(tokenizers[0], tags, directory)
    return tokenizers[0], tokenizers[-1]


def _sentences(pairs: corpus.Pairs, columns: tuple[int, ...], limit: int) -> Iterator[str]:
    """Yields the given sides of at most ``limit`` pairs, drawn evenly over the corpus."""
    count = min(len(pairs), limit)
    edges = np.arange(count + 1) * len(pairs) // count
    # A random pair of each of ``count`` equal stretches: a corpus may repeat a pattern.
    indices = np.random.default_rng(0).integers(edges[:-1], edges[1:])
    for start in range(0, count, _CHUNK):
        for pair in pairs.__getitems__(indices[start : start + _CHUNK].tolist()):
            yield from (pair[column] for column in columns)


def _checked(
    loaded: SentencePieceTokenizer, spec: config.Tokenizer, size: int, path: epath.Path
) -> SentencePieceTokenizer:
    """Returns ``loaded`` if it is what the config asks for; char and word may have fewer pieces."""
    have = (loaded.kind, loaded.byte_fallback, loaded.size)
    fewer_is_fine = spec.kind in ("char", "word") and loaded.size <= size
    want = (spec.kind, spec.byte_fallback, loaded.size if fewer_is_fine else size)
    if have != want:
        raise ValueError(
            f"tokenizer {path}: kept vocabulary has kind {have[0]}, byte_fallback {have[1]}, "
            f"{have[2]} pieces, but the config asks for {want[0]}, {want[1]}, {size}; "
            "use another folder or the old setting"
        )
    return loaded


def _check_tags(source: SentencePieceTokenizer, tags: list[str], directory: epath.Path) -> None:
    for tag in tags:
        if source.pieces(tag) != [SPACE + tag]:
            raise ValueError(
                f"tokenizers in {directory}: {tag} of data.mixture is no piece of the source's; "
                "use another folder, so that they are trained again"
            )


def _check(spec: config.Tokenizer, size: int, option: str) -> None:
    """Raises ValueError for what SentencePiece refuses with a line of its source code."""
    least = 4 + 256 if spec.byte_fallback else 5
    rest = "the 256 bytes of tokenizer.byte_fallback" if spec.byte_fallback else "text"
    # Of the other kinds SentencePiece says how many the text needs.
    if size < (least if spec.kind in ("char", "word") else 4):
        raise ValueError(
            f"{option} {size}: must be {least} or more, for the 4 special pieces and {rest}"
        )
    if size >= 2**31:
        raise ValueError(f"{option} {size}: must be less than {2**31}")
    if spec.coverage and not 0.98 <= spec.coverage <= 1:
        raise ValueError(
            f"tokenizer.coverage {spec.coverage}: must be from 0.98 to 1, or 0 to choose it by "
            "language"
        )


def _explain(error: str, language: str, size: int, sentences: int, option: str) -> str:
    """Rewrites an error message of SentencePiece in the terms of the config."""
    where = f"tokenizer for {language}: {sentences:,} sentences"
    if most := re.search(r"Vocabulary size too high.*<= (\d+)", error):
        return (
            f"{where} give at most {most[1]} pieces, but {size} were asked for; "
            f"lower {option}, or add text"
        )
    if least := re.search(r"smaller than required_chars\. \d+ vs (\d+)", error):
        return (
            f"{where} need at least {least[1]} pieces for their characters, but {size} were asked "
            f"for; raise {option}, or lower tokenizer.coverage"
        )
    if "sentences_.empty()" in error and sentences > 0:
        return (
            f"tokenizer for {language}: all {sentences:,} sentences are longer than the {_LONGEST} "
            "bytes that SentencePiece takes; split them"
        )
    if "(vocab_size) >= (0)" in error:  # nothing is left beside special pieces and bytes
        return (
            f"{where}, {size} pieces asked for, but bytes and special pieces alone take 260: raise "
            "tokenizer.source_size or target_size, or unset tokenizer.byte_fallback"
        )
    if "sentences_.empty()" in error or "all_chars_count" in error:
        return f"{where} with text in them: nothing to train on"
    return f"{where}, {size} pieces asked for: {error}"
