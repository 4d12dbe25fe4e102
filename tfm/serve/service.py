"""The one function under all dialects: texts in, translations out, within a deadline."""

import asyncio
import contextlib
import functools
import itertools
import re
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from tfm.inspect.annotation import Annotation
from tfm.serve import detection
from tfm.serve.batches import Batches, Found
from tfm.serve.metrics import Metrics
from tfm.serve.models import Model, Models
from tfm.serve.queue import Backend, DeviceQueue, Piece
from tfm.serve.refusal import Refusal
from tfm.serve.settings import Limits
from tfm.translator import Translation

_LINES = re.compile(r"(\r\n|[\n\r])")
_SAMPLE = 200  # characters of a text by which models tell languages apart

AUTO = "auto"
"""In place of a source language: the one that the text is written in."""


class Result(NamedTuple):
    """A text's translation.

    Attributes:
      text: the best one; its line breaks are those of the source.
      log_prob, score: natural-log probability, and what search ranks by; sums over its lines.
      alternatives: further translations of a text of one line, best first.
      annotation: alignment and probabilities by piece; empty unless asked for.
    """

    text: str
    log_prob: float
    score: float
    alternatives: list[Translation]
    annotation: Annotation


@dataclass(frozen=True)
class Answer:
    """The translations of a request.

    Attributes:
      detected: the source language, if it was not given.
      confidence: of that, in [0, 1].
      model: which translated.
    """

    results: list[Result]
    model: Model
    detected: str | None = None
    confidence: float = 1.0


class Service:
    """Models behind a queue.

    Attributes:
      draining: whether it takes no more requests.
    """

    def __init__(self, models: Models, limits: Limits, metrics: Metrics, **queue: Any) -> None:
        """Starts nothing.

        Args:
          queue: further arguments of ``DeviceQueue``.
        """
        self.models, self.limits, self.metrics = models, limits, metrics
        self.draining = False
        self._lanes = self._backends()
        self.queue = DeviceQueue(self._lanes, limits.pieces, on_step=metrics.stepped, **queue)
        metrics.observe_queue(self.queue)
        # Splitting and tokenizing would hold up the event loop.
        self._splitter = ThreadPoolExecutor(1, "tfm splitting")

    def _backends(self) -> dict[str, Backend]:
        found: dict[str, Backend] = {}
        for model in self.models:
            compiled = self.metrics.compiled
            found[model.name] = Batches(model.translator, model.decode, on_compiled=compiled)
            if model.wide:
                name = f"{model.name}:wide"
                found[name] = Batches(model.translator, model.wide, False, compiled)
        return found

    def start(self) -> None:
        """Starts the thread of the device, which compiles before it serves."""
        self.queue.start()

    @property
    def ready(self) -> bool:
        """Whether a request would be taken now."""
        return self.queue.warm and self.queue.alive and not self.draining

    def check(self, texts: Sequence[str], alternatives: int = 0) -> None:
        """Raises Refusal for a request beyond the limits."""
        limits = self.limits
        if len(texts) > limits.texts:
            raise Refusal(
                413, f"texts: {len(texts):,} in one request; this server takes {limits.texts:,}"
            )
        characters = sum(map(len, texts))
        if characters > limits.characters:
            raise Refusal(
                413, f"characters: {characters:,}; this server takes {limits.characters:,}"
            )
        if not 0 <= alternatives <= limits.alternatives:
            raise Refusal(
                400, f"alternatives {alternatives}: must be from 0 to {limits.alternatives}"
            )
        for text in texts:
            try:
                text.encode()
            except UnicodeEncodeError:
                raise Refusal(400, "a text has half of a surrogate pair in it") from None

    async def translate(
        self,
        texts: Sequence[str],
        source: str,
        target: str,
        alternatives: int = 0,
        annotate: bool = False,
    ) -> Answer:
        """Translates texts; a blank one gives "".

        Args:
          source: a language, or ``AUTO``; then all texts are taken to be of one language.
          alternatives: further translations wanted of each text.

        Raises:
          Refusal: beyond a limit, no such pair, too busy, or not done within the deadline.
        """
        self.check(texts, alternatives)
        if self.draining:
            raise Refusal(503, "the server is shutting down", 5)
        confidence, detected = 1.0, None
        try:
            async with asyncio.timeout(self.limits.deadline):
                if source.lower() == AUTO:
                    found = await self._detect("\n".join(texts), self.models.sources(target))
                    if not found:
                        self.models.route(source, target)  # which says what is known
                    detected, confidence = found[0]
                model = self.models.route(detected or source, target)
                results = await self._translate(model, texts, alternatives, annotate)
        except TimeoutError:
            raise self._late() from None
        return Answer(results, model, detected, confidence)

    async def detect(self, text: str) -> list[tuple[str, float]]:
        """The models' languages with confidences in [0, 1], the likeliest first."""
        self.check([text])
        try:
            async with asyncio.timeout(self.limits.deadline):
                return await self._detect(text, self.models.sources())
        except TimeoutError:
            raise self._late() from None

    def _late(self) -> Refusal:
        return Refusal(
            503,
            f"not done within the deadline of {self.limits.deadline:g} seconds",
            self.queue.wait_seconds(),
        )

    async def _detect(self, text: str, languages: Sequence[str]) -> list[tuple[str, float]]:
        if not languages:
            return []
        tied, shares = detection.likeliest(text, languages)
        if len(tied) > 1 and any(character.isalpha() for character in text):
            tied = await self._by_likelihood(text.strip()[:_SAMPLE], tied)
        rest = sorted(set(languages) - set(tied), key=lambda name: -shares[name])
        confidences = [shares[name] / (1 + i) for i, name in enumerate(tied)]
        return [*zip(tied, confidences, strict=True), *((name, shares[name]) for name in rest)]

    async def _by_likelihood(self, text: str, languages: Sequence[str]) -> list[str]:
        """The languages in the order of how sure their models are of a translation, by piece."""

        async def likelihood(language: str) -> float:
            model = self.models.route(language, self.models.targets(language)[0])
            (result,) = await self._translate(model, [text], 0, False)
            return result.log_prob / (1 + len(model.translator.target.pieces(result.text)))

        found = await asyncio.gather(*map(likelihood, languages))
        return [
            language for _, language in sorted(zip(found, languages, strict=True), reverse=True)
        ]

    async def _translate(
        self, model: Model, texts: Sequence[str], alternatives: int, annotate: bool
    ) -> list[Result]:
        wide = model.wide is not None and alternatives + 1 > model.decode.hypotheses
        lane = f"{model.name}:wide" if wide else model.name
        split = functools.partial(_split, model, texts, self._lanes[lane].kind)
        loop = asyncio.get_running_loop()
        lines, kinds = await loop.run_in_executor(self._splitter, split)
        n = alternatives + 1
        waiting: list[asyncio.Future] = []
        pieces = []
        for part, kind in kinds:
            future = loop.create_future()
            done = functools.partial(_deliver, loop, future)
            pieces.append(Piece(part, lane, kind, done, n, annotate))
            waiting.append(future)
        start = time.monotonic()
        if (late := self.queue.wait_seconds(len(pieces)) - self.limits.deadline) > 0:
            raise Refusal(503, "the server is busy: it could not keep its deadline", late)
        self.queue.submit(pieces)
        try:
            found = [await future for future in waiting]
        finally:
            self.queue.cancel(pieces)
        self.metrics.translated(model.name, len(texts), len(pieces), time.monotonic() - start)
        numbered = iter(found)
        return [_join(model, text_lines, numbered) for text_lines in lines]

    def stop(self, seconds: float) -> bool:
        """Ends the device's thread after what is running; whether it ended in time."""
        self.draining = True
        self.queue.close()
        self._splitter.shutdown(wait=False, cancel_futures=True)
        return self.queue.join(seconds)


_Line = str | int  # a line break or a blank line as it is, or the number of a line's parts


def _split(
    model: Model, texts: Sequence[str], kind: Callable[[str], Hashable]
) -> tuple[list[list[_Line]], list[tuple[str, Hashable]]]:
    """Texts as their lines, and all parts of these with their kinds."""
    parts, all_lines = [], []
    for text in texts:
        lines: list[_Line] = []
        for i, line in enumerate(_LINES.split(text)):
            own = [] if i % 2 else model.translator.parts(line)
            parts += own
            lines.append(len(own) or (line if i % 2 else ""))
        all_lines.append(lines)
    return all_lines, [(part, kind(part)) for part in parts]


def _join(model: Model, lines: list[_Line], found: Any) -> Result:
    """A text from its lines, and these from their parts."""
    text, log_prob, score, annotation, alternatives = "", 0.0, 0.0, Annotation(), []
    for line in lines:
        if isinstance(line, str):
            text += line
            continue
        parts: list[Found] = list(itertools.islice(found, line))
        best, *others = model.translator.join([part.translations for part in parts])
        text, log_prob, score = text + best.text, log_prob + best.log_prob, score + best.score
        alternatives = others
        for part in parts:
            annotation += part.annotation or Annotation()
    single = sum(isinstance(line, int) for line in lines) == 1 and len(lines) == 1
    return Result(text, log_prob, score, alternatives if single else [], annotation)


def _deliver(loop: asyncio.AbstractEventLoop, future: asyncio.Future, found: Any) -> None:
    """Hands a result from the device's thread to the event loop."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(_settle, future, found)


def _settle(future: asyncio.Future, found: Any) -> None:
    if future.done():
        return
    if isinstance(found, BaseException):
        future.set_exception(found)
    else:
        future.set_result(found)
