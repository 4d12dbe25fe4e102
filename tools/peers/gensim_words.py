"""Word vectors by gensim and by tfm, on the same sentences with the same settings."""

import contextlib
import logging
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import gensim
import numpy as np

from peers.measure import Row
from tfm.data import text
from tfm.word2vec import analysis, corpus, training, words
from tfm.word2vec.model import Config
from tfm.word2vec.vectors import Vectors

_log = logging.getLogger("tfm")

Sentences = list[list[str]]
Side = Callable[[Config, Sentences], "Learned"]


class Learned(NamedTuple):
    """What a turn gave: words/s, words per second of one core's time, and the vectors."""

    speed: float
    core_speed: float
    compile_seconds: float
    vectors: Vectors | None


class _Clock:
    """Seconds and core-seconds since it was made. Those of cores do not mind a busy machine."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def seconds(self) -> tuple[float, float]:
        wall, cores = self._start
        return time.perf_counter() - wall, time.process_time() - cores

    def learned(self, count: int, vectors: Vectors, compile_seconds: float = 0.0) -> Learned:
        """``count`` words took until now."""
        wall, cores = self.seconds()
        return Learned(count / wall, count / cores, compile_seconds, vectors)


def lines(path: Path) -> Iterator[str]:
    """A file's lines, plain or gzipped."""
    return text.decode(text.lines(path), str(path))


def read(paths: Iterable[Path]) -> Sentences:
    """Lower-case words of all lines; lines without any are left out."""
    return list(filter(None, words.sentences(paths, tokenizer=None)))


def by_tfm(c: Config, sentences: Sentences) -> Learned:
    """Trains; the time counts from words as text to finished vectors, without the vocabulary.

    What is compiled is compiled before, by a short text, and reported apart.
    """
    training.use_cores(c)  # as ``tfm embed train`` does
    vocabulary = corpus.count(sentences, c.min_count)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ids"
        clock = _Clock()
        training.train(c, corpus.write(sentences[:100], vocabulary, path), vocabulary)
        compile_seconds, _ = clock.seconds()
        clock = _Clock()
        stream = corpus.write(sentences, vocabulary, path)
        tables = training.train(c, stream, vocabulary)
        found = Vectors(vocabulary.words, np.asarray(tables["input"]))
        return clock.learned(c.epochs * sum(map(len, sentences)), found, compile_seconds)


def by_gensim(workers: int, c: Config, sentences: Sentences) -> Learned:
    """Trains; the time counts as in ``by_tfm``: gensim looks words up while it trains."""
    model = gensim.models.Word2Vec(
        vector_size=c.width,
        window=c.window,
        min_count=c.min_count,
        sg=int(c.method == "skipgram"),
        cbow_mean=int(c.combine == "mean"),
        negative=c.negatives,
        ns_exponent=c.exponent,
        sample=c.subsample,
        seed=c.seed,
        workers=workers,
    )
    model.build_vocab(sentences)
    clock = _Clock()
    model.train(sentences, total_examples=len(sentences), epochs=c.epochs)
    found = Vectors(tuple(model.wv.index_to_key), model.wv.vectors)
    return clock.learned(c.epochs * sum(map(len, sentences)), found)


def _move_in(text: Sequence[Path]) -> None:
    """Reads the text in the process of a side, where ``_turn`` finds it."""
    global _sentences
    _sentences = read(text)


def _turn(side: Side, c: Config) -> Learned:
    return side(c, _sentences)


def _count() -> int:
    return sum(map(len, _sentences))


def compare(
    c: Config, text: Sequence[Path], seeds: Sequence[int], pairs: dict[str, list], workers: int
) -> list[Row]:
    """Both in turns, a turn a seed: the median speed, and the mean score of every seed's vectors.

    Each side lives in a process of its own, as it would at work.

    Args:
      pairs: name → a similarity table, as ``analysis.read_pairs`` gives it.
    """
    tries = {"tfm": by_tfm, f"gensim {gensim.__version__}": partial(by_gensim, workers)}
    turns: dict[str, list[Learned]] = {name: [] for name in tries}
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in tries}
    with contextlib.ExitStack() as stack:
        spawn = multiprocessing.get_context("spawn")
        homes = {
            name: stack.enter_context(ProcessPoolExecutor(1, spawn, _move_in, (text,)))
            for name in tries
        }
        counts = {name: home.submit(_count).result() for name, home in homes.items()}
        for seed in seeds:
            for name, side in tries.items():
                found = homes[name].submit(_turn, side, replace(c, seed=seed)).result()
                scores[name].append(
                    {t: analysis.similarity(found.vectors, x).spearman for t, x in pairs.items()}
                )
                turns[name].append(found._replace(vectors=None))
                _log.info(f"{c.method}, seed {seed}, {name}: {turns[name][-1]}, {scores[name][-1]}")
    speeds = {name: median(turn.speed for turn in found) for name, found in turns.items()}
    work = f"{c.method}, {c.width} wide, window {c.window}, {c.negatives} negatives, "
    work += f"{c.epochs} epochs, {counts['tfm']:,} words"
    return [
        Row(
            work,
            name,
            len(seeds),
            tokens_per_second=speeds[name],
            ratio=speeds["tfm"] / speeds[name],
            compile_seconds=median(turn.compile_seconds for turn in turns[name]),
            details={test: mean(s[test] for s in scores[name]) for test in pairs}
            | {"words per core-second": median(turn.core_speed for turn in turns[name])},
            unit="words/s",
        )
        for name in tries
    ]
