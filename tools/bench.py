"""tfm against its peers, in one run on one machine, as ratios.

    python tools/bench.py train     # nn.Transformer, eager and compiled; JoeyNMT if named
    python tools/bench.py decode    # Hugging Face Marian; CTranslate2 if installed
    python tools/bench.py data      # the packed stream against what a training step eats
    python tools/bench.py word2vec --text FILE ... --similarity FILE ...   # gensim
    python tools/bench.py align --source FILE ... --target FILE ...        # gensim and SciPy
    python tools/bench.py scaling   # tfm alone: 1, 2, 4, 8 devices along each axis of the mesh

Needs the extra "bench", but for the last. The sides run in turns, so that a slow spell of the
machine hits them all; compare only within one run. Compile time is apart. ``--json FILE`` keeps
everything. On Linux all sides have huge pages, as the ``tfm`` command has.
"""

import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

# The peers need their part of a GPU's memory. Read when JAX starts.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import numpy as np
import tyro
from peers import joeynmt as joey
from peers import loop, measure, ours, scaling, shapes
from peers.measure import Row, Side
from peers.shapes import Shape

from tfm import terminal
from tfm.data import corpus
from tfm.training.setup import open_data, resolve
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
    """Training updates: nn.Transformer on two synthetic shapes, or JoeyNMT on real text.

    Args:
        only: Measure only the shape of this width (256 or 512).
        rounds: Turns each side has.
        repeats: Updates in a turn.
        everywhere: Dropout also on attention weights and inside the feed-forward, on both sides,
            as nn.Transformer has it; by default where Vaswani 2017 has it, on both sides.
        compiled: Whether to run torch.compile too, which takes minutes to compile.
        joeynmt: Python of an environment with JoeyNMT 2.3; measures it instead, on --corpus.
        corpus: Source, target, dev source and dev target files, plain or .gz, for JoeyNMT.
        updates: Updates of a JoeyNMT turn.
        json: Where to keep the results.
    """
    if (joeynmt is None) != (corpus is None):
        raise ValueError("train: --joeynmt and --corpus go together")
    if joeynmt is not None:
        rows = _against_joeynmt(joeynmt, corpus, rounds, updates)
    else:
        rows = []
        for shape in _chosen(shapes.TRAIN, only):
            rows += _training(shape, rounds, repeats, 0.1 if everywhere else 0.0, compiled)
    measure.report(rows, json)


def decode(
    only: int | None = None, rounds: int = 5, repeats: int = 2, json: Path | None = None
) -> None:
    """Beam search with 24 forced tokens, batch 64, against Marian and, if there, CTranslate2.

    Args:
        only: Measure only the model of this width (256 or 512).
        rounds: Turns each side has.
        repeats: Batches in a turn.
        json: Where to keep the results.
    """
    marian = _peer("marian")
    if not marian.has_ctranslate2():
        terminal.console().print("CTranslate2: not installed")
    rows = []
    for shape in _chosen(shapes.DECODE, only):
        rng = np.random.default_rng(0)
        source_BS = rng.integers(4, shape.vocab - 1, (shape.batch, shape.length), dtype=np.int32)
        sides = [
            partial(ours.decoding, shape, source_BS, BEAM),
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


def data(
    train: tuple[str, ...] = ("phrasebook:train",),
    pieces: int = 1000,
    sentences: int = 100_000,
    rows: int = 32,
    batches: int = 300,
    steps: int = 20,
    json: Path | None = None,
) -> None:
    """The packed stream's speed, density and memory, against what the small model's update eats.

    Args:
        train: Two files, one TSV file, tfds:NAME or phrasebook:SPLIT.
        pieces: Vocabulary of each language.
        sentences: Of each that the vocabularies are trained on.
        rows: Packed rows in a batch.
        batches: How many to read.
        steps: Updates to time.
        json: Where to keep the results.
    """
    c = loop.configuration(train, pieces, rows)
    c = replace(c, tokenizer=replace(c.tokenizer, sentences=sentences))
    with tempfile.TemporaryDirectory() as folder:
        opened = open_data(c, Path(folder))
    c = resolve(c, opened)
    streamed = loop.stream_speed(c, opened, batches)
    step, compile_seconds = loop.step_speed(c, opened, steps)
    work = f"{' '.join(train)}, {rows} rows of {c.data.source_length}/{c.data.target_length}"
    details = streamed._asdict()
    speeds = {"packed stream": [details.pop("target_tokens")], "update, d=256 3+3": [step]}
    stream_row, step_row = measure.from_speeds(work, speeds)
    step_row = replace(step_row, compile_seconds=compile_seconds)
    measure.report([replace(stream_row, details=details), step_row], json)


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
        text: Sentences, a line each, plain or .gz.
        similarity: Tables of two words and a score, such as SimLex-999 and WordSim-353.
        methods: Which of the two.
        seeds: A turn of both sides each; scores are means over them.
        epochs: Passes over the text.
        workers: Threads of gensim.
        json: Where to keep the results.
    """
    words = _peer("gensim_words")
    pairs = {path.name: analysis.read_pairs(words.lines(path)) for path in similarity}
    rows = []
    for method in methods:
        c = Config(method=method, epochs=epochs)
        rows += words.compare(c, text, seeds, pairs, workers)
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
    """Two languages' spaces united, against gensim's vectors and SciPy: precision, no speed.

    Args:
        source: Sentences, a line each, plain or .gz.
        target: Their translations, line by line.
        source_tokenizer: Cuts the source; words if not given.
        target_tokenizer: The same of the target.
        method: Of the word vectors, 100 wide.
        seeds: A turn of both sides each; scores are means over them.
        epochs: Passes over the text.
        workers: Threads of gensim.
        json: Where to keep the results.
    """
    languages = _peer("languages")
    texts = languages.read(source, source_tokenizer), languages.read(target, target_tokenizer)
    c = Config(method=method, epochs=epochs)
    measure.report(languages.compare(c, *texts, seeds, workers), json)


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

    On a CPU the devices are fake and share its cores: the ratio is what cutting an update into
    parts costs, not a speed-up. GPUs and TPUs are real.

    Args:
        axes: Which axes of the mesh, each alone.
        growths: strong: the same batch on all; weak: the same work for each.
        devices: How many, the first to compare the others with.
        shape: Sizes of the model and of one batch, or of one device's share of it.
        rounds: Turns each side has.
        repeats: Updates in a turn.
        json: Where to keep the results.
    """
    rows = []
    for growth in growths:
        for axis in axes:
            rows += scaling.measure(shape, axis, growth, devices, rounds, repeats)
    measure.report(rows, json)


def _training(
    shape: Shape, rounds: int, repeats: int, inner_dropout: float, compiled: bool
) -> list[Row]:
    """tfm and nn.Transformer on one shape."""
    torch_transformer = _peer("torch_transformer")
    batch = shapes.random_batch(shape)
    torch_side = partial(torch_transformer.training, shape, batch, inner_dropout)
    sides = [partial(ours.training, shape, batch, inner_dropout), partial(torch_side, False)]
    if compiled:
        sides.append(partial(torch_side, True))
    where = "everywhere" if inner_dropout else "on embeddings and sublayers"
    work = f"update, {shape}, dropout {where}"
    return measure.compare(work, [*sides, *_matrix_products()], rounds, repeats)


def _against_joeynmt(
    python: Path, files: tuple[str, str, str, str], rounds: int, updates: int
) -> list[Row]:
    """The training loops of both on the same text and vocabularies, in turns."""
    c = loop.configuration(files[:2], pieces=4000, rows=32)
    log_every = max(1, updates // 6)
    peer = f"JoeyNMT {joey.version(python)}"
    speeds: dict[str, list[float]] = {"tfm": [], peer: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        opened = open_data(c, folder)
        dev = joey.write_text(corpus.open_corpus(files[2:], c.data), folder, "dev")
        text = joey.write_text(opened.pairs, folder, "train")
        settings = joey.write_config(folder, text, dev, opened.tokenizers, updates, log_every)
        for _ in range(rounds):
            speeds["tfm"] += loop.loop_speeds(c, updates, log_every)
            speeds[peer] += joey.tokens_per_second(python, settings)
    return measure.from_speeds("whole training loop on real text, d=256 3+3 ff=1024 V=4000", speeds)


def _matrix_products() -> list[Callable[[], Side]]:
    """What each framework reaches when it does nothing but multiply matrices."""
    sizes = (2048, 1024, 1024) if jax.default_backend() == "cpu" else (4096, 4096, 4096)
    torch_transformer = _peer("torch_transformer")
    return [partial(side.matrix_product, *sizes) for side in (ours, torch_transformer)]


def _chosen(all_shapes: Sequence[Shape], width: int | None) -> list[Shape]:
    chosen = [shape for shape in all_shapes if width in (None, shape.width)]
    if not chosen:
        widths = " and ".join(str(shape.width) for shape in all_shapes)
        raise ValueError(f"--only {width}: there are {widths}")
    return chosen


def _peer(name: str) -> Any:
    """A module of ``peers`` that needs PyTorch or gensim, imported when it is wanted."""
    try:
        return importlib.import_module(f"peers.{name}")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install -e '.[bench]'"
        ) from error


def main() -> int:
    """Runs the subcommand that the command line names."""
    terminal.use_huge_pages()
    terminal.start_logging()
    commands: dict[str, Callable[..., None]] = {
        "train": train,
        "decode": decode,
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
