"""``tfm score`` and ``tfm evaluate``: given pairs of texts, and a test set."""

import dataclasses
import itertools
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from tfm.cli.options import UNCHANGED, Decoding, Model, PairModel, given
from tfm.data import languages, text
from tfm.translator import formats

if TYPE_CHECKING:
    from tfm.translator import Translator

_SCORED_TOGETHER = 1024  # pairs


def score(
    model: PairModel, source: Path, target: Path, words: bool = False, summary: bool = False
) -> int:
    """Print the natural-log probability of each target line given its source line.

    Args:
        model: The model.
        source: UTF-8 text, a sentence a line, plain or .gz.
        target: Its translation, line by line.
        words: Follow each by a tab, the words of the target, a tab, and the log-probability of each
            word, the sum of its tokens'; the last word, </s>, is the end of the sentence.
        summary: Print one line instead: pairs, tokens, log-probability, and the perplexity of a
            token.
    """
    _check_parallel(source, target)
    translator, total, tokens, count = model.load(), 0.0, 0, 0
    spaces = languages.language(translator.experiment.data.target).spaces
    pairs = zip(text.read(source), text.read(target), strict=True)
    while chunk := list(itertools.islice(pairs, _SCORED_TOGETHER)):
        found = translator.token_scores(*zip(*chunk, strict=True))
        for pieces, scores in found:
            total, tokens, count = total + sum(scores), tokens + len(scores), count + 1
            if summary:
                continue
            columns = [f"{sum(scores):.6f}"]
            if words:
                named = formats.words(pieces, scores, spaces)
                columns.append(" ".join(word for word, _ in named))
                columns.append(" ".join(f"{value:.6f}" for _, value in named))
            print("\t".join(columns))
    if summary:
        perplexity = math.exp(min(-total / tokens, 700)) if tokens else math.nan
        print(
            f"pairs {count}, tokens {tokens}, log-probability {total:.4f}, "
            f"perplexity {perplexity:.4f}"
        )
    return 0


def evaluate(
    model: Model,
    source: Path,
    reference: Path,
    alignment: Path | None = None,
    alignment_by: str = "",
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
    decode: Decoding = UNCHANGED,
) -> int:
    """Translate a test set; print BLEU and chrF with their signatures, and the speed.

    With --alignment, align the references in place of that and print the alignment error rate.

    Args:
        model: The model.
        source: UTF-8 text, a sentence a line, plain or .gz.
        reference: Human translations, line by line.
        alignment: Known alignments, a line a pair, in the Pharaoh format: 0-0 is a sure link
            (source-target, counted from 0), 0p0 a possible one. They count words: a Han or Kana
            letter, a run of other letters and digits, or a single mark.
        alignment_by: How to align: LAYER[.HEAD][+shift][:REST]. If not given, all are tried, for a
            choice on dev data; the help of translate says more.
        as_json: Print one JSON object instead of lines.
        decode: How to decode; what is not given is the run's own.
    """
    from tfm import evaluation

    sources, references = parallel(source, reference)
    translator = model.load()
    if alignment is not None:
        gold = _gold(alignment, len(sources))
        return _print_alignments(translator, sources, references, gold, alignment_by)
    start = time.perf_counter()
    hypotheses = translator.translate(sources, **given(decode))
    seconds = time.perf_counter() - start - translator.compile_seconds
    scores = [
        evaluation.bleu(hypotheses, references, translator.experiment.data.target),
        evaluation.chrf(hypotheses, references),
        evaluation.exact_match(hypotheses, references),
    ]
    speed = {
        "sentences": len(sources),
        "seconds": round(seconds, 3),
        "sentences_per_second": round(len(sources) / seconds, 3),
        "compile_seconds": round(translator.compile_seconds, 3),
    }
    settings = dataclasses.asdict(translator.experiment.decode) | given(decode)
    lengths = given(model)
    settings |= {name: lengths[name] for name in lengths if name != "model"}
    if as_json:
        found = {s.name: {"value": s.value, "signature": s.signature} for s in scores}
        print(json.dumps({"scores": found, "decode": settings} | speed, indent=2))
        return 0
    print("\n".join(map(str, scores)))
    print("decode " + ", ".join(f"{name} {value}" for name, value in settings.items()))
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in speed.items()))
    return 0


def _gold(path: Path, count: int) -> list[tuple[Any, Any]]:
    """Sure and possible links of each line."""
    from tfm import evaluation

    found = []
    for number, line in enumerate(text.read(path), 1):
        try:
            found.append(evaluation.read_links(line))
        except ValueError as error:
            raise ValueError(f"{path} line {number}: {error}") from error
    if len(found) != count:
        raise ValueError(f"{path} has {len(found):,} lines for {count:,} pairs")
    return found


def _print_alignments(
    translator: "Translator", sources: list[str], references: list[str], gold: list, by: str
) -> int:
    """The alignment error rate of one method, or of all, the best first."""
    from tfm import evaluation
    from tfm.inspect import alignment

    arch = translator.arch
    methods = [alignment.method(by, arch)] if by else alignment.methods(arch)
    texts = [[pair] for pair in zip(sources, references, strict=True)]
    tokenizers = translator.source, translator.target
    rates = []
    for method, aligned in zip(
        methods, alignment.align_by(translator, texts, methods), strict=True
    ):
        found = [
            alignment.word_links(a, s, t, tokenizers)
            for a, s, t in zip(aligned, sources, references, strict=True)
        ]
        rates.append((evaluation.alignment_error_rate(found, *zip(*gold, strict=True)), method))
    for rate, method in sorted(rates, key=lambda pair: pair[0].value):
        print(f"{rate}, --alignment-by {method}")
    return 0


def parallel(source: Path, target: Path) -> tuple[list[str], list[str]]:
    """Both files' lines, as many in one as in the other."""
    _check_parallel(source, target)
    return list(text.read(source)), list(text.read(target))


def _check_parallel(source: Path, target: Path) -> None:
    """Raises ValueError if the files differ in length, or are not UTF-8."""
    counts = [sum(1 for _ in text.read(path)) for path in (source, target)]
    if counts[0] != counts[1]:
        raise ValueError(
            f"{source} has {counts[0]:,} lines but {target} has {counts[1]:,}: "
            "line N of one must belong to line N of the other"
        )
