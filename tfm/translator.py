"""A trained model at work: raw text in, translations or probabilities out."""

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tfm import buckets, config, embeddings, incremental, storage, transformer
from tfm.config import Decode
from tfm.data import pieces
from tfm.data.tokenizer import BOS, EOS, Tokenizer, normalise
from tfm.data.tokenizer import load as load_tokenizer
from tfm.decoding import beam
from tfm.decoding.common import Hypotheses, Step
from tfm.params import Tree
from tfm.training import checkpoint

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
      config: of the run it comes from.
      params: the weights, a nested dict.
      source, target: tokenizers.
      compile_seconds: spent on compilation so far.
    """

    def __init__(
        self, settings: config.Config, params: Tree, source: Tokenizer, target: Tokenizer
    ) -> None:
        self.config, self.params, self.source, self.target = settings, params, source, target
        self.compile_seconds = 0.0
        self._compiled: dict[tuple, Callable] = {}

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
                    f"{data.source_length} and {data.target_length}"
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
            run = self._compile("score", _score, self.params, *arrays, c=self.config.model)
            for i, value in zip(batch, np.asarray(run(self.params, *arrays)), strict=False):
                result[i] = float(value)
        return result

    def with_params(self, params: Tree) -> "Translator":
        """The same model with other weights, sharing what is compiled."""
        other = Translator(self.config, params, self.source, self.target)
        other._compiled = self._compiled
        return other

    def parts(self, text: str) -> list[str]:
        """The text in pieces the model can take; [] for a blank one."""
        text, limit = normalise(text), self.config.data.source_length
        if not text:
            return []
        return pieces.cut(text, lambda part: len(self.source.encode(part)) <= limit)

    def _search(self, texts: Sequence[str], n: int, settings: Decode) -> list[list[Translation]]:
        ids = [
            buckets.crop(x, self.config.data.source_length) for x in self.source.encode_batch(texts)
        ]
        sizes = [buckets.length(len(x), self.config.data.source_length) for x in ids]
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


def load(folder: str | PathLike) -> Translator:
    """Opens the folder of a run: the best weights so far, else those of the newest checkpoint.

    Raises:
      FileNotFoundError: no run there, or nothing saved yet.
    """
    folder = storage.path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"model {folder}: no config.json there; is it a folder of a run?")
    settings = config.read(folder / "config.json")
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


def most_tokens(settings: Decode, pieces: int) -> int:
    """How many tokens at most are written for a source of so many pieces."""
    return math.ceil(settings.max_length_factor * pieces + settings.max_length_offset)


def search(
    params: Tree,
    source_BS: jax.Array,
    c: transformer.Config,
    settings: Decode,
    watched: Callable[[Step, Any], tuple[Step, Any]] = lambda step, state: (step, state),
) -> Hypotheses:
    """Source ids [B,S], 0 at padding → hypotheses.

    Args:
      watched: puts something around the step ``(tokens, parents, state) → (logits, state)`` that
        search takes, and around the state it starts from.
    """
    S = source_BS.shape[1]
    max_length = most_tokens(settings, S)
    if c.positions == "learned":  # there is no vector for a place beyond
        max_length = min(max_length, c.max_length)
    lengths_B = (source_BS != 0).sum(axis=1)
    limits_B = settings.max_length_factor * lengths_B + settings.max_length_offset
    limits_B = jnp.where(lengths_B > 0, jnp.clip(limits_B, 1, max_length), 1).astype(jnp.int32)

    valid_BS = (source_BS != 0).astype(jnp.int32)
    places_BS = jnp.broadcast_to(jnp.arange(S), source_BS.shape)
    memory_BSD = transformer.encode(params, c, source_BS, valid_BS, places_BS)
    weights = incremental.for_decoding(params, c)
    cache = incremental.init_cache(
        weights, c, memory_BSD, valid_BS, hypotheses=settings.beam_size, max_length=max_length
    )
    step, state = watched(
        lambda tokens, parents, cache: incremental.decode_step(weights, c, cache, tokens, parents),
        cache,
    )
    return beam.search(
        step,
        state,
        limits_B,
        beam_size=settings.beam_size,
        max_length=max_length,
        bos=BOS,
        eos=EOS,
        length_norm=settings.length_norm,
        length_penalty=settings.length_penalty,
    )


def _score(
    params: Tree, source_BS: jax.Array, target_BT: jax.Array, c: transformer.Config
) -> jax.Array:
    """Log-probabilities [B] of the targets, ids ending with eos and padded with 0."""
    batch = {"source": source_BS, "target_input": target_BT}
    batch["target_input"] = jnp.pad(target_BT, ((0, 0), (1, 0)), constant_values=BOS)[:, :-1]
    for side, ids in (("source", source_BS), ("target", target_BT)):
        batch[f"{side}_segments"] = (ids != 0).astype(jnp.int32)
        batch[f"{side}_positions"] = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    hidden_BTD = transformer.forward(params, c, batch)
    table_VD = transformer.output_table(params, c)

    def sentence(row: tuple[jax.Array, jax.Array]) -> jax.Array:
        hidden_TD, target_T = row
        log_probs_TV = jax.nn.log_softmax(embeddings.logits(hidden_TD, table_VD))
        gained_T = jnp.take_along_axis(log_probs_TV, target_T[:, None], axis=1)[:, 0]
        return jnp.where(target_T != 0, gained_T, 0.0).sum()

    return jax.lax.map(sentence, (hidden_BTD, target_BT))  # one sentence's logits at a time


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
