"""The translator: a model with its tokenizers."""

import copy
import dataclasses
import functools
import logging
import math
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from tfm import config, decoding, memory, ranges, transformer
from tfm.data.languages import language
from tfm.data.tokenizer import EOS, Tokenizer, normalise
from tfm.decoding import Decode
from tfm.params import Tree
from tfm.sharding import NO_MESH, Layout
from tfm.transformer import Execution
from tfm.translator import (
    buckets,
    constrained,
    guard,
    programs,
    rescoring,
    search_memory,
    split,
    text_constraints,
)
from tfm.translator.compiled import CompiledPrograms
from tfm.translator.text_constraints import Encoded, ForText, TextConstraints
from tfm.translator.translation import Translation, join

_log = logging.getLogger(__name__)


class Translator:
    """A model with its tokenizers.

    Attributes:
      experiment: the config of the run it comes from.
      arch, execution: of the model. A kernel that the experiment names for training is not used
        here, so that any device and length will do.
      params: the weights as inference reads them; see ``transformer.inference_params``.
      source, target: tokenizers.
      programs: what is compiled for it.
    """

    def __init__(
        self,
        experiment: config.Config,
        params: Tree | None,
        source: Tokenizer,
        target: Tokenizer,
        layout: Layout = NO_MESH,
        replicate: bool = False,
    ) -> None:
        """Takes the weights as trained or for inference; None if ``with_params`` brings them.

        Args:
          layout: of training; the weights are sharded as it says, or stand on the host.
          replicate: gives every device of the mesh all weights, and its share of the sentences.
        """
        trained = experiment.execution
        self.experiment, self.arch = experiment, experiment.model
        self.execution = Execution(
            lookup=trained.lookup,
            dtype=trained.dtype,
            weights=trained.weights,
            unroll=trained.unroll,
        )
        self.programs = CompiledPrograms(self.arch, self.execution, layout, replicate)
        self.params = None if params is None else self.programs.prepare(params)
        self.source, self.target = source, target
        self._fitting: set[tuple[Decode, int, int]] = set()
        self._warned: set[str] = set()

    @property
    def layout(self) -> Layout:
        """The mesh that weights and sentences are sharded over, if any."""
        return self.programs.layout

    @property
    def compile_seconds(self) -> float:
        """Spent on compilation so far."""
        return self.programs.compile_seconds

    def translate(self, texts: Sequence[str], **decode: Any) -> list[str]:
        """The best translation of each text; an empty or blank text gives "".

        Args:
          texts: raw text, one sentence or line each. A text too long for the model is split and
            translated in parts, with a warning.
          decode: fields of ``config.Decode`` to override, such as ``beam_size``, and
            ``constraints``, as of ``n_best``.
        """
        return [best[0].text for best in self.n_best(texts, 1, **decode)]

    def n_best(
        self,
        texts: Sequence[str],
        n: int,
        constraints: Sequence[TextConstraints | None] | ForText | None = None,
        **decode: Any,
    ) -> list[list[Translation]]:
        """The ``n`` best translations of each text, best first; of samples, the first ``n``.

        Where search finished fewer, fewer are returned, and where it finished none, one empty
        translation of log-probability -inf, with a warning. Of a text translated in parts, the k-th
        best translations of its parts are joined, and their log-probabilities and scores added.

        Args:
          constraints: what translations must hold, must not hold and begin with: one for each text,
            or a function of a text, such as a ``Glossary``. ``Translation.unmet`` and a warning
            report what is not met.

        Raises:
          ValueError: a setting out of its range, ``n`` is more than the beam size or the number of
            samples, or constraints that the strategy cannot meet.
        """
        settings = self.decode_settings(**decode)
        if not 1 <= n <= settings.hypotheses:
            most = {"beam_size": "the beam size", "samples": "the number of samples"}[
                settings.width
            ]
            raise ValueError(f"n-best {n}: must be from 1 to {most}, {settings.hypotheses}")
        parts = [self.parts(text) for text in texts]
        for text, own in zip(texts, parts, strict=True):
            if len(own) > 1:
                _log.warning(
                    "longer than the %d tokens the model takes, translated in %d parts: %s",
                    self.experiment.data.source_length,
                    len(own),
                    _shortened(text),
                )
        flat = [part for own in parts for part in own]
        wishes = None if constraints is None else constrained.of_parts(constraints, texts, parts)
        if wishes is not None:
            constrained.check(wishes, settings)

        def search(chosen: Sequence[int], decode: Decode) -> list[list[Translation]]:
            some = [flat[i] for i in chosen]
            if wishes is None:
                return self._search(some, n, decode)
            return constrained.search(
                lambda texts, encoded: self._search(texts, n, decode, encoded),
                some,
                [wishes[i] for i in chosen],
                self.target,
            )

        found = search(range(len(flat)), settings)
        if settings.guard == "on":
            found = guard.mend(
                flat, found, settings, search, self.source, self.target, self.experiment.data.target
            )
        rest = iter(found)
        return [self.join([next(rest) for _ in own]) for own in parts]

    def join(self, parts: list[list[Translation]]) -> list[Translation]:
        """The n best translations of a text from those of its ``parts``; see ``n_best``."""
        return join(parts, language(self.experiment.data.target).joiner)

    def decode_settings(self, **changes: Any) -> Decode:
        """The run's settings of search with some fields replaced.

        Raises:
          ValueError: a field out of its range, or fields that do not go together.
        """
        settings = dataclasses.replace(self.experiment.decode, **changes)
        ranges.check(settings, "decode")
        decoding.check(settings, changes)
        return settings

    def check_memory(self, texts: Sequence[str], **decode: Any) -> None:
        """Raises ValueError if translating these texts needs more memory than is free."""
        settings = self.decode_settings(**decode)
        self._batches([part for text in texts for part in self.parts(text)], settings)

    def require_memory(self, decode: Decode, sentences: int, source_tokens: int) -> None:
        """Raises ValueError if a search over so many padded sentences does not fit into memory.

        Asked once for each shape: what ran once will run again.
        """
        if (decode, sentences, source_tokens) in self._fitting:
            return
        itemsize = transformer.compute_dtype(self.execution).itemsize
        available = memory.free(jax.local_devices()[0])
        own = -(-sentences // self.layout.axis_size("batch"))  # of each device
        search_memory.require(self.arch, decode, own, source_tokens, itemsize, available)
        self._fitting.add((decode, sentences, source_tokens))

    def score(self, sources: Sequence[str], targets: Sequence[str]) -> list[float]:
        """Natural-log probability of each target given its source, end of sentence included.

        Raises:
          ValueError: the counts differ, or a text is longer than the model takes.
        """
        source_ids, target_ids = self._pairs(sources, targets)
        return [float(sum(scores)) for scores in self._token_scores(source_ids, target_ids)]

    def token_scores(
        self, sources: Sequence[str], targets: Sequence[str]
    ) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
        """The pieces of each target, "</s>" the last, and the natural-log probability of each.

        They add up to ``score``, whose errors are raised.
        """
        source_ids, target_ids = self._pairs(sources, targets)
        scores = self._token_scores(source_ids, target_ids)
        return [
            (tuple(self.target.id_to_piece(ids)), own)
            for ids, own in zip(target_ids, scores, strict=True)
        ]

    def translation_scores(
        self, found: Sequence[Translation]
    ) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
        """Of each translation, its pieces with "</s>" after each part, and their log-probabilities.

        These are what the model gives the very tokens of the translation.
        """
        limit = self.experiment.data.source_length
        sources = [buckets.crop(self.source.encode(s), limit) for t in found for s, _ in t.parts]
        targets = [[*ids, EOS] for t in found for ids in t.tokens]
        scored = iter(zip(targets, self._token_scores(sources, targets), strict=True))
        result = []
        for translation in found:
            own = [next(scored) for _ in translation.tokens]
            pieces = [piece for ids, _ in own for piece in self.target.id_to_piece(ids)]
            result.append((tuple(pieces), tuple(x for _, scores in own for x in scores)))
        return result

    def pieces(self, translation: Translation) -> tuple[str, ...]:
        """The pieces of a translation, end of sentence excluded."""
        return tuple(self.target.id_to_piece(i for ids in translation.tokens for i in ids))

    def _pairs(
        self, sources: Sequence[str], targets: Sequence[str]
    ) -> tuple[list[list[int]], list[list[int]]]:
        """The ids of both sides; raises as ``score`` says."""
        if len(sources) != len(targets):
            raise ValueError(f"score: {len(sources)} sources but {len(targets)} targets")
        data = self.experiment.data
        source_ids = self.source.encode_batch(sources)
        target_ids = self.target.encode_batch(targets)
        for i, (s, t) in enumerate(zip(source_ids, target_ids, strict=True), 1):
            if len(s) > data.source_length or len(t) > data.target_length:
                raise ValueError(
                    f"score: pair {i} has {len(s)} and {len(t)} tokens; the model takes "
                    f"{data.source_length} and {data.target_length}; load it with a longer "
                    "source_length or target_length"
                )
        return source_ids, target_ids

    def _token_scores(
        self, source_ids: Sequence[list[int]], target_ids: Sequence[list[int]]
    ) -> list[tuple[float, ...]]:
        """Natural-log probability of each token of the targets."""
        data = self.experiment.data
        longest = max([data.target_length, *map(len, target_ids)])
        sizes = [
            (buckets.length(len(s), data.source_length), buckets.length(len(t), longest))
            for s, t in zip(source_ids, target_ids, strict=True)
        ]
        result: list[tuple[float, ...]] = [()] * len(sizes)
        batch_size = self.experiment.decode.batch_size
        average = self.experiment.decode.ensemble_average
        for (S, T), batch in buckets.group(sizes, batch_size):
            B = buckets.count(len(batch), batch_size)
            arrays = (
                buckets.pad([source_ids[i] for i in batch], B, S),
                buckets.pad([target_ids[i] for i in batch], B, T),
            )
            run = self.programs.compile(self.params, "score", programs.score, *arrays, kind=average)
            for i, scores_T in zip(batch, np.asarray(run(self.params, *arrays)), strict=False):
                result[i] = tuple(scores_T[: len(target_ids[i])].tolist())
        return result

    def with_params(self, params: Tree) -> "Translator":
        """The same model with other weights; what is compiled is shared."""
        other = copy.copy(self)
        other.params = self.programs.prepare(params)
        return other

    def parts(self, text: str) -> list[str]:
        """The text in parts that the model can take; [] for a blank one."""
        text, limit = normalise(text), self.experiment.data.source_length
        if not text:
            return []
        return split.split(text, lambda part: len(self.source.encode(part)) <= limit)

    def padded_tokens(self, part: str) -> int:
        """The number of tokens that one of a text's ``parts`` is padded to."""
        limit = self.experiment.data.source_length
        return buckets.length(min(limit, len(self.source.encode(part))), limit)

    def _search(
        self,
        texts: Sequence[str],
        n: int,
        decode: Decode,
        constraints: Sequence[Encoded] | None = None,
    ) -> list[list[Translation]]:
        """The ``n`` best translations of texts, whose constraints have one shape."""
        batches, ids = self._batches(texts, decode)
        language_code = self.experiment.data.target
        if constraints is not None:
            self._require_room(constraints, texts, ids, decode)
        self._warn_of_last_position(max(map(len, ids), default=0), decode)
        result: list[list[Translation]] = [[]] * len(texts)
        for slots, S, batch in batches:
            arrays = [buckets.pad([ids[i] for i in batch], len(batch), S)]
            if decode.search == "sample":
                # From its own tokens alone, so that a sentence's draws depend on no neighbour.
                arrays.append(np.array([zlib.crc32(row.tobytes()) for row in arrays[0]], np.uint32))
            stacked = None
            if constraints is not None:
                stacked = functools.partial(
                    self._stacked, [constraints[i] for i in batch], size=slots
                )
            found = self.programs.search(self.params, arrays, slots, decode, stacked)
            for i, hypotheses in found:
                best = self._translations(texts[batch[i]], zip(*hypotheses, strict=True))
                if decode.strategy == "mbr":
                    best = rescoring.minimum_bayes_risk(best, decode, language_code)
                result[batch[i]] = best[:n]
        lost = [t for t, best in zip(texts, result, strict=True) if best[0].log_prob == -math.inf]
        if lost:
            _log.warning(
                "no translation found for %d of %d texts, the model gives no token a probability; "
                "are its weights damaged or did its training diverge? Left empty: %s",
                len(lost),
                len(texts),
                " / ".join(map(_shortened, lost[:3])) + (" / ..." if len(lost) > 3 else ""),
            )
        return result

    def search_shapes(self, decode: Decode) -> list[tuple[int, int]]:
        """All (padded sentences, padded tokens) that a search may have, the smallest first."""
        size, shards = decode.batch_size, self.layout.axis_size("batch")
        sentences = {buckets.count(n, size, shards) for n in range(1, size + 1)}
        lengths = buckets.lengths(self.experiment.data.source_length)
        return [(B, S) for S in lengths for B in sorted(sentences)]

    def compile_search(self, decode: Decode, sentences: int, source_tokens: int) -> None:
        """Compiles the search of one of ``search_shapes``, so that no later call has to.

        Raises:
          ValueError: it does not fit into memory.
        """
        self.require_memory(decode, sentences, source_tokens)
        self.programs.compile_search(self.params, decode, sentences, source_tokens)

    def warm_up(self, **decode: Any) -> None:
        """Compiles what ``translate`` needs for texts of any length, many or few.

        With a persistent cache of JAX, a process that finds the programs there compiles nothing.

        Args:
          decode: fields of ``config.Decode`` to override.
        """
        settings = self.decode_settings(**decode)
        shapes = self.search_shapes(settings)
        for B, S in shapes:
            self.compile_search(settings, B, S)
        slots = max(B for B, _ in shapes)
        for S in buckets.lengths(self.experiment.data.source_length):
            self.programs.warm_up_engine(self.params, settings, slots, S)

    def _stacked(
        self, constraints: Sequence[Encoded], chosen: Sequence[int], size: int
    ) -> decoding.Constraints:
        """The constraints of the chosen sentences as arrays of ``size`` rows."""
        return text_constraints.stack([constraints[i] for i in chosen], size, self._borders)

    @functools.cached_property
    def _borders(self) -> tuple[np.ndarray, np.ndarray]:
        return text_constraints.word_borders(self.target)

    def _batches(
        self, texts: Sequence[str], decode: Decode
    ) -> tuple[list[tuple[int, int, list[int]]], list[list[int]]]:
        """What is searched together, as (slots, S, indices of texts), and the ids of all texts.

        Raises:
          ValueError: the largest of the batches does not fit into memory.
        """
        limit, batch_size = self.experiment.data.source_length, decode.batch_size
        ids = [buckets.crop(x, limit) for x in self.source.encode_batch(texts)]
        groups = buckets.group([buckets.length(len(x), limit) for x in ids], max(1, len(ids)))
        shards = self.layout.axis_size("batch")
        batches = [(buckets.count(len(batch), batch_size, shards), S, batch) for S, batch in groups]
        for B, S in {(B, S) for B, S, _ in batches}:
            self.require_memory(decode, B, S)
        return batches, ids

    def _require_room(
        self,
        constraints: Sequence[Encoded],
        texts: Sequence[str],
        ids: list[list[int]],
        decode: Decode,
    ) -> None:
        """Raises ValueError if a prefix leaves no token for the end of sentence."""
        for own, text, source in zip(constraints, texts, ids, strict=True):
            size, most = (own.prefix != 0).sum(), programs.most_tokens(decode, len(source))
            if size >= most:
                raise ValueError(
                    f"prefix of the translation of {_shortened(text)}: {size} tokens, where {most} "
                    "may be written, the end included: set a larger max_length_offset or max_length"
                )

    def _translations(self, source: str, hypotheses: Any) -> list[Translation]:
        """The hypotheses (tokens, length, log-probability, score) of one text, decoded."""
        found = []
        for tokens, length, log_prob, score in hypotheses:
            if length:
                ids = tuple(int(i) for i in tokens[:length] if i != EOS)
                text = self.target.decode(ids)
                pair = ((source, text),)
                found.append(Translation(text, float(log_prob), float(score), pair, (ids,)))
        if not found:
            found.append(Translation("", -math.inf, -math.inf, ((source, ""),), ((),)))
        return found

    def _warn_of_last_position(self, tokens: int, decode: Decode) -> None:
        """Warns once that positions end before the longest translation asked for."""
        longest, asked = programs.last_position(self.arch), programs.most_tokens(decode, tokens)
        if longest is not None and asked > longest and "position" not in self._warned:
            self._warned.add("position")
            _log.warning(
                "translations end at %d tokens, the model's last learned position, where the "
                "settings of decode allow %d",
                longest,
                asked,
            )


def _shortened(text: str) -> str:
    text = normalise(text)
    return text if len(text) <= 30 else text[:30] + " ..."
