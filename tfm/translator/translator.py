"""The translator: a model with its tokenizers, and how one is opened."""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tfm import checkpoint, config, storage, transformer
from tfm.config import Decode
from tfm.data.tokenizer import Tokenizer, normalise
from tfm.data.tokenizer import load as load_tokenizer
from tfm.params import Tree
from tfm.translator import buckets, split
from tfm.translator.programs import most_tokens, score, search

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Translation:
    """One hypothesis: its text, natural-log probability, and length-normalised score."""

    text: str
    log_prob: float
    score: float


class Translator:
    """A model with its tokenizers.

    Attributes:
      config: of the run it comes from, for any device and length: a kernel that it names binds
        training alone.
      params: the weights, a nested dict.
      source, target: tokenizers.
      compile_seconds: spent on compilation so far.
    """

    def __init__(
        self, settings: config.Config, params: Tree, source: Tokenizer, target: Tokenizer
    ) -> None:
        model = transformer.on_any_device(settings.model)
        self.config = dataclasses.replace(settings, model=model)
        self.params, self.source, self.target = params, source, target
        self.compile_seconds = 0.0
        self._compiled: dict[tuple, Callable] = {}
        self._warned: set[str] = set()

    def translate(self, texts: Sequence[str], **decode: Any) -> list[str]:
        """The best translation of each text; an empty or blank text gives "".

        Args:
          texts: raw text, one sentence or line each. One too long for the model is translated in
            pieces, with a warning.
          decode: fields of ``config.Decode`` to override, such as ``beam_size``.
        """
        return [best[0].text for best in self.n_best(texts, 1, **decode)]

    def n_best(self, texts: Sequence[str], n: int, **decode: Any) -> list[list[Translation]]:
        """The ``n`` best translations of each text, best first; ``n`` is at most the beam size.

        Fewer than ``n`` come back where search finished fewer. A text translated in pieces has its
        k-th bests joined, their log-probabilities and scores added.
        """
        settings = dataclasses.replace(self.config.decode, **decode)
        if not 1 <= n <= settings.beam_size:
            raise ValueError(f"n-best {n}: must be from 1 to the beam size, {settings.beam_size}")
        parts = [self.parts(text) for text in texts]
        for text, whole in zip(texts, parts, strict=True):
            if len(whole) > 1:
                _log.warning(
                    "longer than the %d pieces the model takes, translated in %d parts: %s",
                    self.config.data.source_length,
                    len(whole),
                    normalise(text)[:30] + " ...",
                )
        found = iter(self._search([part for text in parts for part in text], n, settings))
        joiner = "" if self.config.data.target in ("zh", "ja") else " "
        return [_join([next(found) for _ in text], joiner) for text in parts]

    def score(self, sources: Sequence[str], targets: Sequence[str]) -> list[float]:
        """Natural-log probability of each target given its source, eos included.

        Raises:
          ValueError: the counts differ, or a text is longer than the model takes.
        """
        if len(sources) != len(targets):
            raise ValueError(f"score: {len(sources)} sources but {len(targets)} targets")
        data = self.config.data
        source_ids, target_ids = (
            self.source.encode_batch(sources),
            self.target.encode_batch(targets),
        )
        for i, (s, t) in enumerate(zip(source_ids, target_ids, strict=True), 1):
            if len(s) > data.source_length or len(t) > data.target_length:
                raise ValueError(
                    f"score: pair {i} has {len(s)} and {len(t)} pieces; the model takes "
                    f"{data.source_length} and {data.target_length}; load it with a longer "
                    "source_length or target_length"
                )
        sizes = [
            (buckets.length(len(s), data.source_length), buckets.length(len(t), data.target_length))
            for s, t in zip(source_ids, target_ids, strict=True)
        ]
        result = [0.0] * len(sources)
        for (S, T), batch in buckets.group(sizes, self.config.decode.batch_size):
            B = buckets.count(len(batch), self.config.decode.batch_size)
            arrays = (
                buckets.pad([source_ids[i] for i in batch], B, S),
                buckets.pad([target_ids[i] for i in batch], B, T),
            )
            run = self._compile("score", score, self.params, *arrays, c=self.config.model)
            for i, value in zip(batch, np.asarray(run(self.params, *arrays)), strict=False):
                result[i] = float(value)
        return result

    def with_params(self, params: Tree) -> "Translator":
        """The same model with other weights, sharing what is compiled."""
        other = Translator(self.config, params, self.source, self.target)
        other._compiled, other._warned = self._compiled, self._warned
        return other

    def parts(self, text: str) -> list[str]:
        """The text in pieces the model can take; [] for a blank one."""
        text, limit = normalise(text), self.config.data.source_length
        if not text:
            return []
        return split.cut(text, lambda part: len(self.source.encode(part)) <= limit)

    def _search(self, texts: Sequence[str], n: int, settings: Decode) -> list[list[Translation]]:
        ids = [
            buckets.crop(x, self.config.data.source_length) for x in self.source.encode_batch(texts)
        ]
        sizes = [buckets.length(len(x), self.config.data.source_length) for x in ids]
        self._warn_of_a_last_place(max(map(len, ids), default=0), settings)
        result: list[list[Translation]] = [[]] * len(texts)
        for S, batch in buckets.group(sizes, settings.batch_size):
            source_BS = buckets.pad(
                [ids[i] for i in batch], buckets.count(len(batch), settings.batch_size), S
            )
            run = self._compile(
                "search", search, self.params, source_BS, c=self.config.model, settings=settings
            )
            found = run(self.params, source_BS)
            for i, hypotheses in zip(
                batch, zip(*map(np.asarray, found), strict=True), strict=False
            ):
                result[i] = [
                    Translation(self.target.decode(tokens[:length]), float(log_prob), float(score))
                    for tokens, length, log_prob, score in zip(*hypotheses, strict=True)
                    if length
                ][:n]
        return result

    def _warn_of_a_last_place(self, pieces: int, settings: Decode) -> None:
        """Says once that learned positions end before the longest translation asked for."""
        c, asked = self.config.model, most_tokens(settings, pieces)
        if c.positions == "learned" and asked > c.max_length and "place" not in self._warned:
            self._warned.add("place")
            _log.warning(
                "translations end at %d pieces, the model's last learned position, where the "
                "settings of decode allow %d",
                c.max_length,
                asked,
            )

    def _compile(self, name: str, f: Callable, *arrays: Any, **static: Any) -> Callable:
        """``f`` compiled for these shapes, once; the time it takes is kept and logged."""
        shapes = [x.shape for x in arrays[1:]]
        key = (name, *shapes, *static.values())
        if key not in self._compiled:
            start = time.perf_counter()
            lowered = jax.jit(functools.partial(f, **static)).lower(*arrays)
            self._compiled[key] = lowered.compile()
            seconds = time.perf_counter() - start
            self.compile_seconds += seconds
            _log.info(
                "compiled %s for %s in %.1f s (shape %d)",
                name,
                " and ".join("x".join(map(str, shape)) for shape in shapes),
                seconds,
                len(self._compiled),
            )
        return self._compiled[key]


def load(
    folder: str | PathLike,
    source_length: int | None = None,
    target_length: int | None = None,
    rotary_scaling: float | None = None,
) -> Translator:
    """Opens the folder of a run: the best weights so far, else those of the newest checkpoint.

    Args:
      source_length, target_length: the most pieces it takes of a source to translate, and of a
        target to score or inspect, in place of the run's own.
      rotary_scaling: of rotary positions, in place of the run's own.

    Raises:
      FileNotFoundError: no run there, or nothing saved yet.
      ValueError: lengths that learned positions do not reach, or a scaling of positions that are
        not rotary.
    """
    folder = storage.path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"model {folder}: no config.json there; is it a folder of a run?")
    settings = config.read(folder / "config.json")
    try:
        settings = stretched(settings, source_length, target_length, rotary_scaling)
    except ValueError as error:
        raise ValueError(f"model {folder}: {error}") from error
    names = ("joint", "joint") if settings.tokenizer.joint else ("source", "target")
    source, target = (load_tokenizer(folder / "tokenizers" / f"{n}.model") for n in names)
    sizes = settings.model.source_vocab, settings.model.target_vocab
    if (source.size, target.size) != sizes:
        raise ValueError(
            f"model {folder}: its tokenizers have {source.size} and {target.size} pieces, but its "
            f"weights are for {sizes[0]} and {sizes[1]}: put back the tokenizers of the run"
        )
    try:
        _, params, info = checkpoint.load(folder / "best")
        step = info["update"]
    except FileNotFoundError:  # not validated yet, or there is no dev set
        step, state, _ = checkpoint.load(folder / "checkpoints", only=("average", "params"))
        params = state.get("average") or state["params"]
    _log.info("model %s: weights of update %d", folder, step)
    return Translator(settings, jax.tree.map(jnp.asarray, params), source, target)


def stretched(
    settings: config.Config,
    source_length: int | None = None,
    target_length: int | None = None,
    rotary_scaling: float | None = None,
) -> config.Config:
    """The config of a trained model for other lengths than it was trained on; see ``load``."""
    model, data = settings.model, settings.data
    for name, length in (("source_length", source_length), ("target_length", target_length)):
        if length is None:
            continue
        if length < 2:
            raise ValueError(f"{name} {length}: a sentence takes 2 or more, a piece and eos")
        if model.positions == "learned" and length > model.max_length:
            raise ValueError(
                f"{name} {length}: positions='learned' has no vector beyond place "
                f"{model.max_length - 1}; {model.max_length} is the most"
            )
        data = dataclasses.replace(data, **{name: length})
    if rotary_scaling is not None:
        if model.positions not in transformer.ROTARY:
            raise ValueError(
                f"rotary_scaling {rotary_scaling}: positions={model.positions!r} are not rotary; "
                "leave it out"
            )
        model = dataclasses.replace(model, rotary_scaling=rotary_scaling)
        transformer.check(model, vocabularies=False)
    return dataclasses.replace(settings, model=model, data=data)


def _join(parts: list[list[Translation]], joiner: str) -> list[Translation]:
    """The k-th best of a text from the k-th bests of its parts."""
    if not parts:
        return [Translation("", 0.0, 0.0)]
    if len(parts) == 1:
        return parts[0]
    return [
        Translation(
            joiner.join(part.text for part in parts_k),
            sum(part.log_prob for part in parts_k),
            sum(part.score for part in parts_k),
        )
        for parts_k in zip(*parts, strict=False)
    ]
