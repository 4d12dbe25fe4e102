"""``tfm embed``: learn word vectors, show neighbours, evaluate them, align two languages."""

import json
import logging
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from tfm import config, terminal
from tfm.data import text, vocabulary
from tfm.data.tokenizer import Tokenizer, load
from tfm.ranges import SEED, Length, Range
from tfm.word2vec import model, words

_log = logging.getLogger("tfm")

Files = Annotated[tuple[Path, ...], tyro.conf.Positional]
Parsed = TypeVar("Parsed")


def train(
    files: Files,
    output: Path,
    tokenizer: Path | None = None,
    pieces: config.Pieces | None = None,
    language: Annotated[str, Length(1)] = "en",
    settings: Annotated[model.Config, tyro.conf.arg(name="")] = model.Config(),  # noqa: B008
) -> int:
    """Learn word vectors from text.

    Args:
        files: UTF-8 text, one sentence per line, plain or .gz. Pipes do not work, because the text
            is read more than once.
        output: File of the vectors: word2vec's binary format if it ends in .bin, else its text
            format.
        tokenizer: SentencePiece model that splits the text into pieces; without it, vectors are of
            words in lower case. Text without spaces between words (Chinese, Japanese) needs a
            tokenizer or has to be segmented. To initialise a translation model, use that model's
            tokenizer, RUN/tokenizers/source.model.
        pieces: If the tokenizer's file does not exist, train it on the text with this many pieces.
        language: Language code of the text, for a tokenizer that is trained.
        settings: How the vectors are learned.
    """
    import numpy as np

    from tfm.word2vec import corpus, training, vectors

    if not files:
        raise ValueError("embed train: no text given")
    if pieces is not None and tokenizer is None:
        raise ValueError("embed train: --pieces needs --tokenizer, the file of the model")
    words.check(files, by_words=tokenizer is None)
    vectors.check_output(output)
    training.use_cores(settings)
    splitter = _tokenizer(tokenizer, pieces, language, files)
    counted = corpus.count(words.sentences(files, splitter), settings.min_count)
    _log.info(f"{counted.counts_V.sum():,} words, {len(counted.words):,} different ones")
    with tempfile.TemporaryDirectory() as folder, terminal.Bar("embed train") as bar:
        stream = corpus.write(words.sentences(files, splitter), counted, Path(folder) / "ids")
        speed = Speed(counted.counts_V.sum() * settings.epochs)

        def report(done: float, loss: float) -> None:
            bar.show(done, f"loss {loss:.3f}")
            speed.round(done)

        tables = training.train(settings, stream, counted, report)
    vectors.write(vectors.Vectors(counted.words, np.asarray(tables["input"])), output)
    _log.info(f"{output}: {speed}")
    return 0


def neighbours(
    vectors: Annotated[Path, tyro.conf.Positional],
    plus: Annotated[tuple[str, ...], tyro.conf.Positional],
    minus: tuple[str, ...] = (),
    count: Annotated[int, Range(least=1)] = 10,
) -> int:
    """Print the words nearest to a word, or to a sum of words, with their cosines.

    Args:
        vectors: A file of vectors.
        plus: Words whose vectors are added, looked up as written, then in lower case.
        minus: Words whose vectors are subtracted: "king woman --minus man".
        count: Number of words to print.
    """
    from tfm.word2vec import analysis
    from tfm.word2vec.vectors import read

    space = read(vectors)
    query_D = analysis.combination(space, plus, minus)
    for word, cosine in analysis.neighbours(space, query_D, count, without=(*plus, *minus)):
        print(f"{word}\t{cosine:.4f}")
    return 0


def evaluate(
    vectors: Annotated[Path, tyro.conf.Positional],
    similarity: tuple[Path, ...] = (),
    analogies: tuple[Path, ...] = (),
    most: Annotated[int, Range(least=1)] | None = None,
) -> int:
    """Score vectors by human similarity judgements and by analogies; print JSON.

    Words are looked up as written, then in lower case.

    Args:
        vectors: A file of vectors.
        similarity: Tables of two words and a score (SimLex-999, WordSim-353).
        analogies: Files of questions in sections (questions-words.txt, CA8).
        most: Answer analogies with this many of the most frequent words only.
    """
    from tfm.word2vec import analysis
    from tfm.word2vec.vectors import read

    if not similarity and not analogies:
        raise ValueError("embed evaluate: give --similarity or --analogies")
    space = read(vectors)
    scores: dict[str, dict] = {}
    for path in similarity:
        pairs = _parse(path, analysis.read_pairs)
        scores[path.name] = analysis.similarity(space, pairs)._asdict()
    for path in analogies:
        sections = analysis.analogies(space, _parse(path, analysis.read_questions), most)
        right, known = sum(s.right for s in sections), sum(s.known for s in sections)
        scores[path.name] = {
            "accuracy": right / known if known else None,
            "known": known,
            "asked": sum(s.asked for s in sections),
            "sections": [s._asdict() for s in sections],
        }
    print(json.dumps(scores, indent=2, ensure_ascii=False))
    return 0


def align(
    source: Annotated[Path, tyro.conf.Positional],
    target: Annotated[Path, tyro.conf.Positional],
    dictionary: Path | None = None,
    source_text: tuple[Path, ...] = (),
    target_text: tuple[Path, ...] = (),
    source_tokenizer: Path | None = None,
    target_tokenizer: Path | None = None,
    held_out: Annotated[float, Range(least=0, below=1)] = 0.2,
    seed: Annotated[int, SEED] = 0,
    source_output: Path | None = None,
    target_output: Path | None = None,
) -> int:
    """Rotate the source's vectors onto the target's; print the precision of word translation.

    The rotation is learned from a dictionary: a file, or word pairs that occur together in parallel
    sentences.

    Args:
        source: Vectors to rotate.
        target: Vectors to rotate them onto.
        dictionary: File with a source word and a target word per line.
        source_text: Instead of a dictionary, parallel text: sentences, one per line.
        target_text: Their translations, line by line.
        source_tokenizer: Tokenizer of the source's vectors; words if not given.
        target_tokenizer: Tokenizer of the target's vectors; words if not given.
        held_out: Share of the dictionary's source words to hold out for evaluation, below 1; with 0
            there are no scores.
        seed: Random seed of the choice of these words.
        source_output: File for the source's rotated vectors.
        target_output: File for the target's normalised vectors.
    """
    from tfm.word2vec import align as alignment
    from tfm.word2vec import vectors

    texts, tokenizers = (source_text, target_text), (source_tokenizer, target_tokenizer)
    _check_dictionary_options(dictionary, texts, tokenizers)
    for path in filter(None, (source_output, target_output)):
        vectors.check_output(path)
    sides = vectors.read(source), vectors.read(target)
    if dictionary is not None:
        pairs = _parse(dictionary, alignment.read_dictionary)
    else:
        sentences = map(words.sentences, texts, map(_tokenizer, tokenizers))
        pairs = alignment.cooccurring(*sentences, *sides)
    known = alignment.known(pairs, *sides)
    if not known:
        raise ValueError(
            f"embed align: none of {len(pairs):,} pairs of words has vectors on both sides; check "
            "that the dictionary, or the tokenizers of the texts, have the words of the vectors"
        )
    learned, held = alignment.split(known, held_out, seed)
    aligned = alignment.align(*sides, learned)[:2]
    scores: dict[str, float | None] = {"pairs": len(learned), "held_out": len(held)}
    for name, nearest in (("csls", 10), ("cosine", 0)):
        for count in (1, 5):
            score = alignment.precision(*aligned, held, count, nearest) if held else None
            scores[f"{name}_precision_at_{count}"] = score
    print(json.dumps(scores, indent=2))
    for side, output in zip(aligned, (source_output, target_output), strict=True):
        if output is not None:
            vectors.write(side, output)
    return 0


def _check_dictionary_options(
    dictionary: Path | None,
    texts: tuple[tuple[Path, ...], tuple[Path, ...]],
    tokenizers: tuple[Path | None, Path | None],
) -> None:
    """Raises ValueError unless either a dictionary or readable parallel text is given."""
    if dictionary is None and not all(texts):
        raise ValueError("embed align: give --dictionary, or --source-text and --target-text")
    if dictionary is not None and any((*texts, *tokenizers)):
        raise ValueError(
            "embed align: --dictionary excludes parallel text (--source-text, --target-text, "
            "--source-tokenizer, --target-tokenizer): give one or the other"
        )
    for files, tokenizer in zip(texts, tokenizers, strict=True):
        words.check(files, by_words=tokenizer is None)


COMMANDS: dict[str, Callable[..., int]] = {
    "train": train,
    "neighbours": neighbours,
    "evaluate": evaluate,
    "align": align,
}


class Speed:
    """Words/s; the first round of training, which includes compilation, is reported apart."""

    def __init__(self, count: int) -> None:
        self._count, self._watch = count, terminal.Stopwatch()
        self._first = (0.0, 0.0)  # Seconds and fraction done after the first round.

    def round(self, done: float) -> None:
        """Records the end of a round, after which the fraction ``done`` of the words is done."""
        if self._first == (0.0, 0.0):
            self._first = (self._watch.seconds, done)

    def __str__(self) -> str:
        seconds = self._watch.seconds
        first, done = self._first
        if done == 1:  # There was a single round.
            speed = f"{self._count / seconds:,.0f} words/s, compilation included"
        else:
            rest = (1 - done) * self._count / (seconds - first)
            start = terminal.duration(first)
            speed = f"the first {start} to compile and start, then {rest:,.0f} words/s"
        return f"{terminal.duration(seconds)}, {speed}"


def _tokenizer(
    path: Path | None, pieces: int | None = None, language: str = "", files: Files = ()
) -> Tokenizer | None:
    """Loads a tokenizer; trains it on ``files`` if it does not exist and ``pieces`` is given."""
    if path is None:
        return None
    if pieces is not None and not path.exists():
        lines = (line for file in files for line in text.read(file))
        return vocabulary.train(lines, config.Tokenizer(), language, pieces, path, "--pieces")
    return load(path)


def _parse(path: Path, parse: Callable[[Iterable[str]], Parsed]) -> Parsed:
    """Parses the lines of a file; adds the file's name to error messages."""
    lines = list(text.read(path))  # Its own errors name the file.
    try:
        return parse(lines)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
