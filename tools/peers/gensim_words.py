"""Word vectors trained by gensim and by tfm on the same sentences with the same settings."""

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import gensim
import numpy as np

from peers.measure import Row, own_process
from tfm.data import text
from tfm.word2vec import analysis, corpus, training, words
from tfm.word2vec.model import Config
from tfm.word2vec.vectors import Vectors

_log = logging.getLogger("tfm")

Sentences = list[list[str]]
Side = Callable[[Config, Sentences], "Learned"]


class Learned(NamedTuple):
    """The result of a turn: words/s, words per core-second, and the vectors."""

    speed: float
    core_speed: float
    compile_seconds: float
    vectors: Vectors | None


class _Clock:
    """Wall seconds and core-seconds since its creation; the latter do not depend on other load."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def seconds(self) -> tuple[float, float]:
        wall, cores = self._start
        return time.perf_counter() - wall, time.process_time() - cores

    def learned(self, count: int, vectors: Vectors, compile_seconds: float = 0.0) -> Learned:
        """The result of training on ``count`` words since the clock's creation."""
        wall, cores = self.seconds()
        return Learned(count / wall, count / cores, compile_seconds, vectors)


def lines(path: Path) -> Iterator[str]:
    """A file's lines, plain or gzipped."""
    return text.decode(text.lines(path), str(path))


def read(paths: Iterable[Path]) -> Sentences:
    """The lower-case words of each line; lines without words are left out."""
    return list(filter(None, words.sentences(paths, tokenizer=None)))


def by_tfm(config: Config, sentences: Sentences) -> Learned:
    """Trains; the time runs from text to finished vectors, without counting the vocabulary.

    A run on a short text compiles everything first, and its time is reported apart.
    """
    training.use_cores(config)  # as ``tfm embed train`` does
    vocabulary = corpus.count(sentences, config.min_count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ids"
        clock = _Clock()
        training.train(config, corpus.write(sentences[:100], vocabulary, path), vocabulary)
        compile_seconds, _ = clock.seconds()
        clock = _Clock()
        stream = corpus.write(sentences, vocabulary, path)
        tables = training.train(config, stream, vocabulary)
        found = Vectors(vocabulary.words, np.asarray(tables["input"]))
        return clock.learned(config.epochs * sum(map(len, sentences)), found, compile_seconds)


def by_gensim(workers: int, config: Config, sentences: Sentences) -> Learned:
    """Trains; the time covers the same as in ``by_tfm``, for gensim looks words up in training."""
    model = gensim.models.Word2Vec(
        vector_size=config.width,
        window=config.window,
        min_count=config.min_count,
        sg=int(config.method == "skipgram"),
        cbow_mean=int(config.combine == "mean"),
        negative=config.negatives,
        ns_exponent=config.exponent,
        sample=config.subsample,
        seed=config.seed,
        workers=workers,
    )
    model.build_vocab(sentences)
    clock = _Clock()
    model.train(sentences, total_examples=len(sentences), epochs=config.epochs)
    found = Vectors(tuple(model.wv.index_to_key), model.wv.vectors)
    return clock.learned(config.epochs * sum(map(len, sentences)), found)


def _read_text(text: Sequence[Path]) -> None:
    """Reads the text in the process of a side, where ``_turn`` uses it."""
    global _sentences
    _sentences = read(text)


def _turn(side: Side, config: Config) -> Learned:
    return side(config, _sentences)


def _count_words() -> int:
    return sum(map(len, _sentences))


def compare(
    config: Config,
    text: Sequence[Path],
    seeds: Sequence[int],
    pairs: dict[str, list],
    workers: int,
) -> list[Row]:
    """Both sides in turns, one per seed: the median speed and the mean scores over the seeds.

    Each side has a process of its own, as in normal use.

    Args:
      pairs: name → a similarity table, as ``analysis.read_pairs`` returns it.
      workers: threads of gensim.
    """
    sides = {"tfm": by_tfm, f"gensim {gensim.__version__}": partial(by_gensim, workers)}
    turns: dict[str, list[Learned]] = {name: [] for name in sides}
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    with contextlib.ExitStack() as stack:
        processes = {name: stack.enter_context(own_process(_read_text, (text,))) for name in sides}
        counts = {
            name: process.submit(_count_words).result() for name, process in processes.items()
        }
        for seed in seeds:
            for name, side in sides.items():
                learned = processes[name].submit(_turn, side, replace(config, seed=seed)).result()
                scores[name].append(
                    {
                        table: analysis.similarity(learned.vectors, rows).spearman
                        for table, rows in pairs.items()
                    }
                )
                turns[name].append(learned._replace(vectors=None))
                _log.info(
                    f"{config.method}, seed {seed}, {name}: {turns[name][-1]}, {scores[name][-1]}"
                )
    work = (
        f"{config.method}, {config.width} wide, window {config.window}, {config.negatives} "
        f"negatives, {config.epochs} epochs, {counts['tfm']:,} words"
    )
    speeds = {name: median(turn.speed for turn in found) for name, found in turns.items()}
    return [
        Row(
            work,
            name,
            len(seeds),
            tokens_per_second=speeds[name],
            ratio=speeds["tfm"] / speeds[name],
            compile_seconds=median(turn.compile_seconds for turn in turns[name]),
            details={table: mean(s[table] for s in scores[name]) for table in pairs}
            | {"words per core-second": median(turn.core_speed for turn in turns[name])},
            unit="words/s",
        )
        for name in sides
    ]
