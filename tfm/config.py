"""What an experiment is: frozen dataclasses, one for each part of a run.

An experiment is a Python file with a function ``get_config() -> Config``. Every field can be set on
the command line (``--train.stop 5000u``).
"""

import contextlib
import dataclasses
import json
import re
import runpy
import traceback
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tfm import config_format, hint, ranges, sharding, storage
from tfm.decoding import Decode
from tfm.positions import Scheme, schemes
from tfm.ranges import SEED, Length, Range
from tfm.transformer import Architecture, Execution

Name = Annotated[str, Length(1)]
Files = tuple[Name, ...]
# Four pieces are special: padding, unknown, beginning and end of sentence.
Pieces = Annotated[int, Range(least=5, most=10_000_000)]


@dataclass(frozen=True)
class Tokenizer:
    """A subword vocabulary (SentencePiece), trained on the training text at first use.

    Attributes:
      kind: unigram (Kudo 2018), bpe (Sennrich 2016), char or word.
      source_size, target_size: pieces in each language's vocabulary.
      joint: one vocabulary of ``source_size`` pieces for both languages.
      byte_fallback: encode characters without a piece as UTF-8 bytes, so that none is unknown.
      coverage: share of characters that get a piece, 0.98 or more; 0 picks it by language
        (0.9995 for Chinese, Japanese and Korean, 1.0 for others).
      sentences: how many of the training text to train on, drawn evenly; shared between the
        languages if joint.
      sample_nbest: subword regularisation (Kudo 2018): every epoch draws one of the best
        ``sample_nbest`` segmentations of a sentence; 1 is off. Unigram only.
      sample_alpha: its smoothing; 0 draws uniformly, large values take the best.
    """

    kind: Literal["unigram", "bpe", "char", "word"] = "unigram"
    source_size: Pieces = 8000
    target_size: Pieces = 8000
    joint: bool = False
    byte_fallback: bool = True
    coverage: Annotated[
        float, Range(least=0.98, most=1, special=0, note="0 picks it by language")
    ] = 0.0  # fmt: skip
    sentences: Annotated[int, Range(least=2)] = 1_000_000
    sample_nbest: Annotated[int, Range(least=1, most=512, note="1 is off")] = 1
    sample_alpha: Annotated[float, Range(least=0, most=1000)] = 0.2


SENTENCE_LENGTH = Range(least=2, most=65_535, note="the last token is the end of the sentence")
"""Tokens of the longest sentence; those of a corpus are counted in uint16."""

_ROW_LENGTH = Range(2, 65_535, special=0, note="0 chooses it from the other side's")


@dataclass(frozen=True)
class Cleaning:
    """Which pairs of a training corpus are left out; all is kept by default.

    Attributes:
      duplicates: leave out pairs that occur before, up to case and punctuation (exact), or that
        resemble one before on both sides together (near).
      similarity: of near duplicates: the share of common sequences of five characters from which
        on most pairs are found, by MinHash.
      held_out: leave out pairs of which a side is a sentence of the dev or test set, unless it is
        very short.
      copies: leave out pairs whose sides are the same text.
      ratio: leave out pairs whose lengths in characters differ by more than this times the usual
        ratio; 0 is off.
      script: leave out pairs with a side of which less than this share of the letters belongs to
        its language's script; 0 is off.
      noise: leave out pairs with more than this share of characters that are controls, pictures or
        misread letters; 0 is off.
    """

    duplicates: Literal["keep", "exact", "near"] = "keep"
    similarity: Annotated[float, Range(least=0.7, most=1)] = 0.9
    held_out: bool = False
    copies: bool = False
    ratio: Annotated[float, Range(least=1, special=0, note="0 is off")] = 0.0
    script: Annotated[float, Range(least=0, most=1, note="0 is off")] = 0.0
    noise: Annotated[float, Range(least=0, most=1, note="0 is off")] = 0.0


@dataclass(frozen=True)
class Corpus:
    """One of several training corpora.

    Attributes:
      files: its name, as in ``Data``.
      weight: how often its pairs are drawn, relative to other corpora; see ``Data.temperature``.
      tag: written before each source, as a piece of its own: ``<bt>`` for back-translations
        (Caswell 2019), ``<2zh>`` for translations into Chinese by a model of several languages
        (Johnson 2017). It never stands in a translation.
    """

    files: Annotated[Files, Length(1, 2)]
    weight: Annotated[float, Range(least=1e-6, most=1e6)] = 1.0
    tag: str = ""


@dataclass(frozen=True)
class Data:
    """Parallel text, and the shape of the packed batches made from it.

    A corpus is named by one of: two files (source, target), one TSV file, ``tfds:NAME`` or
    ``tfds:NAME:SPLIT`` or ``phrasebook:SPLIT``. Files may be gzipped.

    Attributes:
      source, target: language codes ("zh", "en", ...).
      train, dev, test: corpora; test may be empty.
      mixture: several training corpora in place of ``train``, mixed into one stream.
      temperature: of a mixture: a corpus of n pairs is drawn in proportion to its weight times
        n^(1/temperature); 0 leaves its size out.
      clean: which pairs of the training corpora are left out.
      tsv_columns: columns of source and target in a TSV file, from 0.
      rows: packed rows in a global batch, all devices together.
      source_length, target_length: tokens a row, in pieces; a longer sentence is dropped and
        counted. One of them may be 0: it is chosen such that both sides are filled alike.
      seed: of the shuffle and of subword sampling.
      cache_dir: where corpora are kept as array_record; empty means ``~/.cache/tfm``.
    """

    source: Name = "zh"
    target: Name = "en"
    train: Annotated[Files, Length(1, 2)] = ("phrasebook:train",)
    dev: Annotated[Files, Length(0, 2)] = ("phrasebook:dev",)
    test: Annotated[Files, Length(0, 2)] = ("phrasebook:test",)
    mixture: tuple[Corpus, ...] = ()
    temperature: Annotated[float, Range(least=1, special=0, note="0 leaves sizes out")] = 1.0
    clean: Cleaning = Cleaning()
    tsv_columns: tuple[Annotated[int, Range(least=0)], Annotated[int, Range(least=0)]] = (0, 1)
    rows: Annotated[int, Range(least=1, most=2**16)] = 32
    source_length: Annotated[int, _ROW_LENGTH] = 64
    target_length: Annotated[int, _ROW_LENGTH] = 64
    seed: Annotated[int, SEED] = 0
    cache_dir: str = ""


_MEAN_DECAY = Range(least=0, most=0.999999)  # in float32 there is little room between it and 1


@dataclass(frozen=True)
class Optimizer:
    """Update rule and schedule; ``training/optimizer.py`` says what each name means.

    Attributes:
      name: adam (Vaswani 2017: no decay), adamw, adafactor or lion.
      learning_rate: the peak, reached after ``warmup`` updates.
      schedule: after the peak: rsqrt falls as 1/sqrt(update), cosine to ``final_fraction`` of
        the peak at ``decay_updates``, constant stays.
      weight_decay: for matrices; never for norms, biases and position tables.
      clip: largest global gradient norm; 0 is off.
    """

    name: Literal["adam", "adamw", "adafactor", "lion"] = "adam"
    learning_rate: Annotated[float, Range(above=0)] = 1e-3
    warmup: Annotated[int, Range(least=0)] = 1000
    schedule: Literal["rsqrt", "cosine", "constant"] = "rsqrt"
    decay_updates: Annotated[int, Range(least=0)] = 0
    final_fraction: Annotated[float, Range(least=0, most=1)] = 0.0
    b1: Annotated[float, _MEAN_DECAY] = 0.9
    b2: Annotated[float, _MEAN_DECAY] = 0.98
    eps: Annotated[float, Range(least=1e-30)] = 1e-9
    weight_decay: Annotated[float, Range(least=0, note="0 is off")] = 0.0
    clip: Annotated[float, Range(least=0, note="0 is off")] = 1.0


@dataclass(frozen=True)
class Train:
    """The training loop.

    Attributes:
      seed: of the parameters and of dropout.
      init_embeddings: files of word vectors (``tfm embed``) that a fresh run's embedding tables
        start from, piece by piece: one file for both languages, or one for each; empty draws them
        at random.
      stop: ``5000u`` updates, ``3e`` epochs or ``20m`` minutes, counted over all resumes; of
        several, such as ``5000u,20m``, whichever comes first.
      log_every, validate_every, checkpoint_every: in updates.
      accumulate: micro-batches an update; ``data.rows`` counts them together.
      label_smoothing: mass spread over the vocabulary (Szegedy 2016).
      loss_chunk: target tokens whose logits exist at one time on each device. Every chunk reads and
        writes a gradient of the whole output table, so use thousands on a TPU or GPU.
      ema: decay of the exponential moving average of the weights; 0 is off. When on, the
        average is what is validated, saved as best, and translated with.
      metric: what "best" means, on the dev set.
      patience: validations without improvement before stopping early; 0 is off.
      dev_limit: dev sentences translated at a validation; 0 is all.
      dev_beam: beam size of validations; small, because they take time from training.
      bad_steps: updates in a row with a non-finite loss before giving up.
      save_tries: attempts to save a checkpoint, if storage fails temporarily, before giving up.
      save_pause: seconds before the second attempt, doubled before each further one.
      on_full_disk: ``stop``, or ``go_on`` with a warning and the older checkpoints; several
        processes stop in any case if a save cannot even start.
    """

    seed: Annotated[int, SEED] = 0
    init_embeddings: Annotated[Files, Length(0, 2)] = ()
    stop: str = "20m"
    log_every: Annotated[int, Range(least=1)] = 50
    validate_every: Annotated[int, Range(least=1)] = 1000
    checkpoint_every: Annotated[int, Range(least=1)] = 1000
    accumulate: Annotated[int, Range(least=1)] = 1
    label_smoothing: Annotated[float, Range(least=0, below=1, note="0 is off")] = 0.1
    loss_chunk: Annotated[int, Range(least=1)] = 256
    ema: Annotated[float, Range(least=0, below=1, note="0 is off")] = 0.0
    metric: Literal["bleu", "chrf", "loss"] = "bleu"
    patience: Annotated[int, Range(least=0, note="0 is off")] = 0
    dev_limit: Annotated[int, Range(least=0, note="0 is all")] = 500
    dev_beam: Annotated[int, Range(least=1)] = 1
    bad_steps: Annotated[int, Range(least=1)] = 5
    save_tries: Annotated[int, Range(least=1)] = 5
    save_pause: Annotated[float, Range(least=0, most=86_400)] = 1.0
    on_full_disk: Literal["stop", "go_on"] = "stop"


@dataclass(frozen=True)
class Config:
    """One experiment."""

    model: Architecture = field(default_factory=Architecture)
    execution: Execution = field(default_factory=Execution)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    data: Data = field(default_factory=Data)
    optimizer: Optimizer = field(default_factory=Optimizer)
    train: Train = field(default_factory=Train)
    decode: Decode = field(default_factory=Decode)
    mesh: sharding.Mesh = field(default_factory=sharding.Mesh)


def to_json(config: Config) -> str:
    """The config as indented JSON; ``from_json`` is its inverse."""
    data = {"format": config_format.FORMAT} | dataclasses.asdict(config)
    data["model"]["positions"] = schemes.to_dict(config.model.positions)
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def from_json(text: str) -> Config:
    """Reads what ``to_json`` wrote, in this or an older version.

    Raises:
      ValueError: a newer format, an unknown key (the message names the nearest known one), or a
        section that is not an object.
    """
    return _build(Config, config_format.upgrade(json.loads(text)), where="config")


def read(path: str | Path) -> Config:
    """Reads a ``config.json`` and checks the ranges of all fields; errors name the file."""
    try:
        experiment = from_json(storage.path(path).read_text(encoding="utf-8"))
        check(experiment)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return experiment


def check(experiment: Config) -> None:
    """Raises ValueError, with the field's path, for a value that is out of its range."""
    ranges.check(experiment)
    parse_stop(experiment.train.stop)
    for i, corpus in enumerate(experiment.data.mixture):
        if corpus.tag and not re.fullmatch(r"<[^\s<>\u2581]+>", corpus.tag):
            raise ValueError(
                f"data.mixture[{i}].tag {corpus.tag!r}: must be a name in angle brackets, as <bt>"
            )


def _build(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"{where}: must be a JSON object, not {type(values).__name__}")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    kwargs = {}
    for key, value in values.items():
        if key not in fields:
            raise ValueError(f"{where} has no key {key!r}{hint.nearest(key, fields)}")
        kind = fields[key].type
        if kind is Scheme and isinstance(value, str):
            value = schemes.parse(value)
        elif kind is Scheme:
            value = schemes.from_dict(value)
        elif dataclasses.is_dataclass(kind):
            value = _build(kind, value, f"{where}.{key}")
        elif isinstance(value, list):
            item = typing.get_args(kind)[:1]
            of_sections = bool(item) and dataclasses.is_dataclass(item[0])
            value = tuple(
                _build(item[0], x, f"{where}.{key}[{i}]") if of_sections else x
                for i, x in enumerate(value)
            )
        kwargs[key] = value
    try:
        return cls(**kwargs)
    except TypeError as error:  # a field without a default is missing
        raise ValueError(f"{where}: {error}") from error


def _fields(cls: type) -> list[str]:
    """Names of the fields of ``cls`` and of its sections."""
    names = []
    for f in dataclasses.fields(cls):
        names += [f.name, *(_fields(f.type) if dataclasses.is_dataclass(f.type) else [])]
    return names


def from_file(path: str | Path) -> Config:
    """Runs an experiment file and returns its ``get_config()``; checks the ranges of all fields.

    Raises:
      FileNotFoundError: no such file.
      ValueError: the file has no ``get_config``, it does not return a ``Config``, a field of that
        is out of its range, or something in the file fails; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"experiment {path}: no such file")
    with _errors_named(path):
        module = runpy.run_path(str(path))
    if "get_config" not in module:
        raise ValueError(f"experiment {path}: defines no get_config()")
    with _errors_named(path, module["get_config"]):
        config = module["get_config"]()
    if not isinstance(config, Config):
        raise ValueError(f"experiment {path}: get_config() returned {type(config).__name__}")
    try:
        check(config)
    except ValueError as error:
        raise ValueError(f"experiment {path}: {error}") from error
    return config


@contextlib.contextmanager
def _errors_named(path: Path, function: Any = None) -> Iterator[None]:
    """Turns an error of the code of an experiment file into one line with the line's number.

    Args:
      function: of the file, whose first line is named if none of its lines has run.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        line = getattr(getattr(function, "__code__", None), "co_firstlineno", None)
        for frame in traceback.extract_tb(error.__traceback__):
            line = frame.lineno if frame.filename == str(path) else line
        text = " ".join(str(error).split())
        if isinstance(error, SyntaxError) and error.filename == str(path):
            line, text = error.lineno, error.msg
        elif type(error) not in (ValueError, TypeError):  # whose messages speak for themselves
            text = f"{type(error).__name__}: {text}" if text else type(error).__name__
        if wrong := re.search(r"unexpected keyword argument '(\w+)'$", text):
            text += hint.nearest(wrong[1], _fields(Config))
        where = f" line {line}" if line else ""
        raise ValueError(f"experiment {path}{where}: {text}") from error


def parse_stop(stop: str) -> dict[Literal["u", "e", "m"], float]:
    """``"5000u,20m"`` → {"u": 5000.0, "m": 20.0}: updates; ``e`` epochs; ``m`` minutes."""
    amounts: dict[Any, float] = {}
    for part in stop.split(","):
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)([uem])", part.strip()):
            amounts[match[2]] = float(match[1])
    if len(amounts) < len(stop.split(",")) or min(amounts.values()) <= 0:
        raise ValueError(
            f"train.stop {stop!r}: say 5000u (updates), 3e (epochs), 20m (minutes), or several "
            "with commas"
        )
    return amounts


def differences(a: Any, b: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """Fields that differ, as ("model.d_model", value in ``a``, value in ``b``)."""
    found = []
    for f in dataclasses.fields(a):
        x, y, name = getattr(a, f.name), getattr(b, f.name), where + f.name
        if dataclasses.is_dataclass(x) and type(x) is type(y):
            found += differences(x, y, name + ".")
        elif x != y:
            found.append((name, x, y))
    return found


def reverse(config: Config) -> Config:
    """The same experiment with source and target swapped: languages, files, columns, lengths.

    A corpus with a single name (``tfds:``, ``phrasebook:``) is swapped by the languages alone.
    """
    d = config.data
    data = dataclasses.replace(
        d,
        source=d.target,
        target=d.source,
        train=d.train[::-1],
        dev=d.dev[::-1],
        test=d.test[::-1],
        mixture=tuple(dataclasses.replace(c, files=c.files[::-1]) for c in d.mixture),
        tsv_columns=d.tsv_columns[::-1],
        source_length=d.target_length,
        target_length=d.source_length,
    )
    t = config.tokenizer
    sizes = (t.source_size, t.source_size) if t.joint else (t.target_size, t.source_size)
    tokenizer = dataclasses.replace(t, source_size=sizes[0], target_size=sizes[1])
    train = dataclasses.replace(config.train, init_embeddings=config.train.init_embeddings[::-1])
    return dataclasses.replace(config, data=data, tokenizer=tokenizer, train=train)
