"""``tfm embed``: word vectors learned from text, looked at, scored, and united by language."""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import tyro

from tfm import config, terminal
from tfm.data import text
from tfm.data import tokenizer as subwords
from tfm.data.tokenizer import Tokenizer
from tfm.word2vec import model, words

_log = logging.getLogger("tfm")

Files = Annotated[tuple[Path, ...], tyro.conf.Positional]


def train(
    files: Files,
    output: Path,
    tokenizer: Path | None = None,
    pieces: int | None = None,
    language: str = "en",
    settings: Annotated[model.Config, tyro.conf.arg(name="")] = model.Config(),  # noqa: B008
) -> int:
    """Learn vectors from text.

    Args:
        files: UTF-8 text, a sentence a line, plain or .gz; no pipes, it is read more than once.
        output: Where the vectors go: word2vec's binary format if it ends in .bin, else its text.
        tokenizer: SentencePiece model to cut the text with; words in lower case if not given. Text
            without spaces between words (Chinese, Japanese) needs it, or has to be segmented.
            For the tables of a translator: its own, RUN/tokenizers/source.model.
        pieces: Train that tokenizer on the text first, with this many pieces, if it is not there.
        language: Of the text, for a tokenizer that is trained.
        settings: How they are learned.
    """
    import numpy as np

    from tfm.word2vec import corpus, training, vectors

    if not files:
        raise ValueError("embed train: no text given")
    if pieces is not None and tokenizer is None:
        raise ValueError("embed train: --pieces needs --tokenizer, where the model is kept")
    words.check(files, by_words=tokenizer is None)
    vectors.check_output(output)
    training.use_cores(settings)
    cutter = _tokenizer(tokenizer, pieces, language, files)
    vocabulary = corpus.count(words.sentences(files, cutter), settings.min_count)
    _log.info(f"{vocabulary.counts_V.sum():,} words, {len(vocabulary.words):,} different ones")
    with tempfile.TemporaryDirectory() as folder, terminal.Bar("embed train") as bar:
        stream = corpus.write(words.sentences(files, cutter), vocabulary, Path(folder) / "ids")
        speed = Speed(vocabulary.counts_V.sum() * settings.epochs)

        def report(share: float, loss: float) -> None:
            bar.show(share, f"loss {loss:.3f}")
            speed.round(share)

        tables = training.train(settings, stream, vocabulary, report)
    vectors.write(vectors.Vectors(vocabulary.words, np.asarray(tables["input"])), output)
    _log.info(f"{output}: {speed}")
    return 0


def neighbours(
    vectors: Annotated[Path, tyro.conf.Positional],
    plus: Annotated[tuple[str, ...], tyro.conf.Positional],
    minus: tuple[str, ...] = (),
    count: int = 10,
) -> int:
    """Print the words nearest to a word, or to a sum of words, and their cosines.

    Args:
        vectors: A file of vectors.
        plus: Words added, as they are written or in lower case ...
        minus: ... and taken away: "king woman --minus man".
        count: How many to print.
    """
    from tfm.word2vec import analysis
    from tfm.word2vec import vectors as files

    space = files.read(vectors)
    query_D = analysis.combination(space, plus, minus)
    for word, cosine in analysis.neighbours(space, query_D, count, without=(*plus, *minus)):
        print(f"{word}\t{cosine:.4f}")
    return 0


def evaluate(
    vectors: Annotated[Path, tyro.conf.Positional],
    similarity: tuple[Path, ...] = (),
    analogies: tuple[Path, ...] = (),
    most: int | None = None,
) -> int:
    """Print how well vectors know what people know, as JSON.

    Args:
        vectors: A file of vectors.
        similarity: Tables of two words and a score (SimLex-999, WordSim-353).
        analogies: Questions in sections (questions-words.txt, CA8). The words of both are looked
            up as they are written, then in lower case.
        most: Answer analogies with this many of the most frequent words only.
    """
    from tfm.word2vec import analysis
    from tfm.word2vec import vectors as files

    if not similarity and not analogies:
        raise ValueError("embed evaluate: give --similarity or --analogies")
    space = files.read(vectors)
    scores: dict[str, dict] = {}
    for path in similarity:
        pairs = _named(path, analysis.read_pairs)
        scores[path.name] = analysis.similarity(space, pairs)._asdict()
    for path in analogies:
        sections = analysis.analogies(space, _named(path, analysis.read_questions), most)
        right, known, asked = (sum(s[i] for s in sections) for i in (1, 2, 3))
        scores[path.name] = {
            "accuracy": right / known if known else None,
            "known": known,
            "asked": asked,
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
    held_out: float = 0.2,
    seed: int = 0,
    source_output: Path | None = None,
    target_output: Path | None = None,
) -> int:
    """Turn the source's space onto the target's, and print the precision of word translation.

    The dictionary to learn from is a file, or is found in aligned sentences by co-occurrence.

    Args:
        source: Vectors to turn.
        target: Vectors to turn them to.
        dictionary: A source word and a target word a line.
        source_text: Instead, sentences, a line each ...
        target_text: ... and their translations, line by line.
        source_tokenizer: What the source's vectors were cut with; words if not given.
        target_tokenizer: The same of the target's.
        held_out: Share of the dictionary's source words that is kept for measuring, below 1; with
            none there are no scores.
        seed: Of that choice.
        source_output: Where the source's turned vectors go.
        target_output: Where the target's normalised vectors go.
    """
    from tfm.word2vec import align as space
    from tfm.word2vec import vectors

    texts, tokenizers = (source_text, target_text), (source_tokenizer, target_tokenizer)
    if dictionary is None and not all(texts):
        raise ValueError("embed align: give --dictionary, or --source-text and --target-text")
    if dictionary is not None and any((*texts, *tokenizers)):
        raise ValueError(
            "embed align: --dictionary leaves nothing to find in texts: "
            "give it alone, or the texts and their tokenizers"
        )
    for side, tokenizer in zip(texts, tokenizers, strict=True):
        words.check(side, by_words=tokenizer is None)
    for path in filter(None, (source_output, target_output)):
        vectors.check_output(path)
    sides = vectors.read(source), vectors.read(target)
    if dictionary is not None:
        pairs = _named(dictionary, space.read_dictionary)
    else:
        pairs = space.cooccurring(*map(words.sentences, texts, map(_tokenizer, tokenizers)), *sides)
    known = space.known(pairs, *sides)
    if not known:
        raise ValueError(
            f"embed align: none of {len(pairs):,} pairs of words has vectors on both sides; "
            "are the words of the dictionary, or the texts' tokenizers, those of the vectors?"
        )
    learned, held = space.split(known, held_out, seed)
    turned = space.align(*sides, learned)[:2]
    scores: dict[str, float | None] = {"pairs": len(learned), "held_out": len(held)}
    for name, nearest in (("csls", 10), ("cosine", 0)):
        for count in (1, 5):
            score = space.precision(*turned, held, count, nearest) if held else None
            scores[f"{name}_precision_at_{count}"] = score
    print(json.dumps(scores, indent=2))
    for side, path in zip(turned, (source_output, target_output), strict=True):
        if path is not None:
            vectors.write(side, path)
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "train": train,
    "neighbours": neighbours,
    "evaluate": evaluate,
    "align": align,
}


class Speed:
    """Words/s, the first round of training told apart: it waits for the compiler."""

    def __init__(self, count: int) -> None:
        self._count, self._watch = count, terminal.Stopwatch()
        self._first: tuple[float, float] | None = None

    def round(self, share: float) -> None:
        """A round has ended; ``share`` of the ``count`` words is done."""
        self._first = self._first or (self._watch.seconds, share)

    def __str__(self) -> str:
        seconds = self._watch.seconds
        first, done = self._first
        if done == 1:  # there was one round only
            speed = f"{self._count / seconds:,.0f} words/s, compilation included"
        else:
            rest = (1 - done) * self._count / (seconds - first)
            start = terminal.duration(first)
            speed = f"the first {start} to compile and begin, then {rest:,.0f} words/s"
        return f"{terminal.duration(seconds)}, {speed}"


def _tokenizer(
    path: Path | None, pieces: int | None = None, language: str = "", files: Files = ()
) -> Tokenizer | None:
    """The tokenizer of a file, trained on ``files`` first if it is not there and may be."""
    if path is None:
        return None
    if pieces is not None and not path.exists():
        lines = (line for file in files for line in text.decode(text.lines(file), str(file)))
        return subwords.train(lines, config.Tokenizer(), language, pieces, path)
    return subwords.load(path)


def _named(path: Path, parse: Callable[[Iterator[str]], list | dict]) -> list | dict:
    """What ``parse`` makes of a file's lines; its errors name the file."""
    try:
        return parse(text.decode(text.lines(path), str(path)))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
