"""Measures tfm against its peers, in one run on one machine, as ratios.

    python tools/bench.py train     # nn.Transformer, eager and compiled; or JoeyNMT
    python tools/bench.py decode    # Hugging Face Marian, and CTranslate2 if installed
    python tools/bench.py decode-trained --model RUN --source FILE --reference FILE   # real text
    python tools/bench.py data      # the packed data stream against the update that consumes it
    python tools/bench.py word2vec --text FILE ... --similarity FILE ...   # gensim
    python tools/bench.py align --source FILE ... --target FILE ...        # gensim and SciPy
    python tools/bench.py scaling   # tfm alone: 1, 2, 4, 8 devices along each axis of the mesh

All but data and scaling need the extra "bench". The sides run in turns, so that a slow phase of the
machine affects them all; compare only numbers of one run. Compile time is reported apart. ``--json
FILE`` writes all results. On Linux all sides use huge pages, as the ``tfm`` command does.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

# JAX reads this when it starts: it must leave GPU memory to the peers.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import numpy as np
import tyro
from peers import joeynmt as joey
from peers import loop, measure, ours, scaling, shapes
from peers.measure import Maker, Row
from peers.shapes import Shape

from tfm import terminal
from tfm.data import text as files
from tfm.transformer.config import Weights
from tfm.word2vec import analysis
from tfm.word2vec.model import Config

BEAM = 4


def train(
    only: int | None = None,
    rounds: int = 5,
    repeats: int = 3,
    everywhere: bool = False,
    compiled: bool = True,
    joeynmt: Path | None = None,
    corpus: tuple[str, str, str, str] | None = None,
    updates: int = 60,
    json: Path | None = None,
) -> None:
    """Training updates, against nn.Transformer on two synthetic shapes or JoeyNMT on real text.

    Args:
        only: Measure only the shape of this width (256 or 512).
        rounds: Turns of each side.
        repeats: Updates per turn.
        everywhere: On both sides, apply dropout to attention weights and inside the feed-forward
            too, as nn.Transformer does by default; otherwise only where Vaswani 2017 does.
        compiled: Measure torch.compile too, which takes minutes to compile.
        joeynmt: Python interpreter with JoeyNMT 2.3, to measure it on --corpus instead.
        corpus: Source, target, dev source and dev target files, plain or .gz, for JoeyNMT.
        updates: Updates per turn with JoeyNMT.
        json: File to write the results to.
    """
    if (joeynmt is None) != (corpus is None):
        raise ValueError("train: --joeynmt and --corpus go together")
    if joeynmt is not None and corpus is not None:
        rows = joey.compare(joeynmt, corpus, rounds, updates)
    else:
        rows = []
        for shape in _chosen(shapes.TRAIN, only):
            rows += _training(shape, rounds, repeats, 0.1 if everywhere else 0.0, compiled)
    measure.report(rows, json)


def decode(
    only: int | None = None, rounds: int = 5, repeats: int = 2, json: Path | None = None
) -> None:
    """Beam search of exactly 24 tokens, batch 64, against Marian and, if installed, CTranslate2.

    Args:
        only: Measure only the model of this width (256 or 512).
        rounds: Turns of each side.
        repeats: Batches per turn.
        json: File to write the results to.
    """
    marian = _peer("marian")
    if not marian.has_ctranslate2():
        terminal.console().print("CTranslate2: not installed")
    rows = []
    for shape in _chosen(shapes.DECODE, only):
        rng = np.random.default_rng(0)
        source_BS = rng.integers(4, shape.vocab - 1, (shape.batch, shape.length), dtype=np.int32)
        sides = [
            *(partial(ours.decoding, shape, source_BS, BEAM, kind) for kind in get_args(Weights)),
            partial(marian.decoding, shape, source_BS, BEAM),
        ]
        if marian.has_ctranslate2():
            sides += [
                partial(marian.ctranslate2_decoding, shape, source_BS, BEAM, compute)
                for compute in ("float32", "int8")
            ]
        work = f"beam {BEAM}, {shape}"
        rows += measure.compare(work, [*sides, *_matrix_products()], rounds, repeats)
    measure.report(rows, json)


def decode_trained(
    model: Path,
    source: Path,
    reference: Path,
    ctranslate2: Path | None = None,
    hugging_face: Path | None = None,
    weights: tuple[Weights, ...] = get_args(Weights),
    beams: tuple[int, ...] = (BEAM, 1),
    alone: int = 50,
    rounds: int = 3,
    json: Path | None = None,
) -> None:
    """A trained model on a test set as it comes, and on single sentences: speed and BLEU.

    Args:
        model: Folder of the run.
        source: UTF-8 text, a sentence a line, plain or .gz.
        reference: Human translations, line by line.
        ctranslate2: The same model converted for CTranslate2: float32 and int8 are measured.
        hugging_face: The same model with its tokenizer in the format of Hugging Face.
        weights: Kinds of weights to measure tfm with.
        beams: Beam sizes; 1 is greedy search.
        alone: How many sentences are translated one after the other; 0 leaves that out.
        rounds: Turns of each side.
        json: File to write the results to.
    """
    trained = _peer("trained")
    sentences, references = list(files.read(source)), list(files.read(reference))
    rows = []
    for beam in beams:
        makers = [partial(trained.tfm, model, kind) for kind in weights]
        if ctranslate2 is not None:
            kinds = ("float32", "int8")
            makers += [partial(trained.ctranslate2, model, ctranslate2, kind) for kind in kinds]
        if hugging_face is not None:
            makers.append(partial(trained.hugging_face, model, hugging_face))
        for count, single in ((len(sentences), False), (alone, True)):
            if not count:
                continue
            work = trained.Work(beam, sentences[:count], references[:count], single)
            name = f"beam {beam}, {count} sentences" + (", one after the other" if single else "")
            sides = [partial(maker, work) for maker in makers]
            rows += measure.compare(name, sides, rounds, 1, unit="sentences/s")
    measure.report(rows, json)


def data(
    train: tuple[str, ...] = ("phrasebook:train",),
    pieces: int = 1000,
    sentences: int = 100_000,
    rows: int = 32,
    batches: int = 300,
    steps: int = 20,
    json: Path | None = None,
) -> None:
    """The packed stream's speed, density and memory, against the small model's update.

    Args:
        train: Two files, one TSV file, tfds:NAME or phrasebook:SPLIT.
        pieces: Vocabulary size of each language.
        sentences: Sentences that each vocabulary is trained on.
        rows: Packed rows in a batch.
        batches: How many batches to read.
        steps: Updates to time.
        json: File to write the results to.
    """
    experiment = loop.configuration(train, pieces, rows)
    tokenizer = replace(experiment.tokenizer, sentences=sentences)
    experiment = replace(experiment, tokenizer=tokenizer)
    measure.report(loop.compare_stream(experiment, batches, steps), json)


def word2vec(
    text: tuple[Path, ...],
    similarity: tuple[Path, ...] = (),
    methods: tuple[Literal["cbow", "skipgram"], ...] = ("cbow", "skipgram"),
    seeds: tuple[int, ...] = (1, 2, 3),
    epochs: int = 5,
    workers: int = 2,
    json: Path | None = None,
) -> None:
    """Word vectors, 100 wide, window 5, 5 negatives, against gensim: speed and Spearman.

    Args:
        text: Text with one sentence per line, plain or .gz.
        similarity: Tables of two words and a score, such as SimLex-999 and WordSim-353.
        methods: Training methods.
        seeds: Each is one turn of both sides; scores are means over them.
        epochs: Passes over the text.
        workers: Threads of gensim.
        json: File to write the results to.
    """
    words = _peer("gensim_words")
    pairs = {path.name: analysis.read_pairs(words.lines(path)) for path in similarity}
    rows = []
    for method in methods:
        config = Config(method=method, epochs=epochs)
        rows += words.compare(config, text, seeds, pairs, workers)
    measure.report(rows, json)


def align(
    source: tuple[Path, ...],
    target: tuple[Path, ...],
    source_tokenizer: Path | None = None,
    target_tokenizer: Path | None = None,
    method: Literal["cbow", "skipgram"] = "skipgram",
    seeds: tuple[int, ...] = (1, 2, 3),
    epochs: int = 5,
    workers: int = 2,
    json: Path | None = None,
) -> None:
    """Word vectors of two languages, aligned, against gensim's vectors and SciPy: precision only.

    Args:
        source: Text with one sentence per line, plain or .gz.
        target: Its translation, line by line.
        source_tokenizer: Tokenizer of the source; by default words.
        target_tokenizer: The same for the target.
        method: Training method of the word vectors, 100 wide.
        seeds: Each is one turn of both sides; scores are means over them.
        epochs: Passes over the text.
        workers: Threads of gensim.
        json: File to write the results to.
    """
    languages = _peer("languages")
    texts = languages.read(source, source_tokenizer), languages.read(target, target_tokenizer)
    config = Config(method=method, epochs=epochs)
    measure.report(languages.compare(config, *texts, seeds, workers), json)


def scale(
    axes: tuple[scaling.Axis, ...] = ("data", "fsdp", "tensor", "sequence"),
    growths: tuple[scaling.Growth, ...] = ("strong", "weak"),
    devices: tuple[int, ...] = (1, 2, 4, 8),
    shape: Shape = shapes.SCALING,
    rounds: int = 3,
    repeats: int = 2,
    json: Path | None = None,
) -> None:
    """The update on more and more devices: a table for every axis of the mesh.

    A CPU is split into fake devices that share its cores: the ratio shows the cost of sharding, not
    a speed-up.

    Args:
        axes: Axes of the mesh, each measured alone.
        growths: strong: the same batch on all meshes; weak: the same work on each device.
        devices: Numbers of devices; the others are compared with the first.
        shape: Sizes of the model and of the batch, of one device's share of it if weak.
        rounds: Turns of each side.
        repeats: Updates per turn.
        json: File to write the results to.
    """
    rows = []
    for growth in growths:
        for axis in axes:
            rows += scaling.measure(shape, axis, growth, devices, rounds, repeats)
    measure.report(rows, json)


def _training(
    shape: Shape, rounds: int, repeats: int, inner_dropout: float, compiled: bool
) -> list[Row]:
    """The updates of tfm and of nn.Transformer on one shape."""
    torch_transformer = _peer("torch_transformer")
    batch = shapes.random_batch(shape)
    torch_side = partial(torch_transformer.training, shape, batch, inner_dropout)
    sides = [partial(ours.training, shape, batch, inner_dropout), partial(torch_side, False)]
    if compiled:
        sides.append(partial(torch_side, True))
    where = "everywhere" if inner_dropout else "on embeddings and sublayers"
    work = f"update, {shape}, dropout {where}"
    return measure.compare(work, [*sides, *_matrix_products()], rounds, repeats)


def _matrix_products() -> list[Maker]:
    """Sides that only multiply matrices, for the rate that each framework can reach."""
    sizes = (2048, 1024, 1024) if jax.default_backend() == "cpu" else (4096, 4096, 4096)
    torch_transformer = _peer("torch_transformer")
    return [partial(side.matrix_product, *sizes) for side in (ours, torch_transformer)]


def _chosen(all_shapes: Sequence[Shape], width: int | None) -> list[Shape]:
    chosen = [shape for shape in all_shapes if width in (None, shape.width)]
    if not chosen:
        widths = " and ".join(str(shape.width) for shape in all_shapes)
        raise ValueError(f"--only {width}: the shapes have the widths {widths}")
    return chosen


def _peer(name: str) -> Any:
    """A module of ``peers`` that needs PyTorch or gensim, imported only when it is used."""
    try:
        return importlib.import_module(f"peers.{name}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install -e '.[bench]'"
        ) from error


def main() -> int:
    """Runs the subcommand given on the command line."""
    terminal.use_huge_pages()
    terminal.start_logging()
    commands: dict[str, Callable[..., None]] = {
        "train": train,
        "decode": decode,
        "decode-trained": decode_trained,
        "data": data,
        "word2vec": word2vec,
        "align": align,
        "scaling": scale,
    }
    try:
        tyro.extras.subcommand_cli_from_dict(commands, description=__doc__)
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        terminal.console().print(f"bench: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
