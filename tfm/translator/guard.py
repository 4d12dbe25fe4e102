"""Bad translations found by rules, and decoded again with stricter settings.

The rules look at one translation and its source alone. Beside each stands how often it is wrong:
its false alarms among the 30,687 human translations of a Chinese–English training set (Tatoeba,
4,000 pieces each), in both directions.
"""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

from tfm.data import languages
from tfm.data.tokenizer import Tokenizer
from tfm.decoding import Decode

Problem = Literal["empty", "looping", "too long", "in the wrong script"]

_LOOPS = 4  # times that a sequence stands in a row, more than in the source: 2 of 61,374
_LONGEST_UNIT = 16  # tokens of a sequence that loops
_NGRAM, _NGRAMS = 4, 4  # so many times the same so many tokens, more than in the source: 0
_RUNAWAY = 0.9  # of the longest length that the settings allow: 1 of 61,374
_WRONG_SCRIPT = 0.5  # of the letters that are not the source's own: 0 of 61,374
_LEFT_OVER = 8  # letters at least, and 3 of 4, where they are the source's own: 0 of 61,374
_NUMBER_OF_TRIES = 2


def problem(
    source: str,
    text: str,
    source_ids: Sequence[int],
    target_ids: Sequence[int],
    most_tokens: float,
    scripts: tuple[str, ...],
) -> Problem | None:
    """What is wrong with a translation; None if nothing is.

    Args:
      source_ids, target_ids: tokens, end of sentence excluded.
      most_tokens: how many tokens a translation of this source may have; inf is no limit.
      scripts: of the target language, as in ``languages.Language``; () if unknown.
    """
    if not text.strip():
        return "empty" if source.strip() else None
    own = max(repeats(source_ids), 1)
    if repeats(target_ids) >= own + _LOOPS - 1 or (
        _most_frequent(target_ids) >= max(_most_frequent(source_ids), 1) + _NGRAMS - 1
    ):
        return "looping"
    if len(target_ids) >= _RUNAWAY * most_tokens:
        return "too long"
    letters = [c for c in text if c.isalpha() and c not in source] if scripts else []
    wrong = sum(not languages.in_scripts(c, scripts) for c in letters)
    if letters and wrong > _WRONG_SCRIPT * len(letters):
        return "in the wrong script"
    return "in the wrong script" if scripts and _untranslated(source, text, scripts) else None


def _untranslated(source: str, text: str, scripts: tuple[str, ...]) -> bool:
    """Whether the letters of another script are left over from the source: most of the text."""
    letters = [c for c in text if c.isalpha()]
    foreign = [c for c in letters if not languages.in_scripts(c, scripts)]
    return len(foreign) >= _LEFT_OVER and len(foreign) > 0.75 * len(letters)


def repeats(ids: Sequence[int]) -> int:
    """How often at most a sequence of tokens stands in a row; one of four or more counts once more.

    1 where nothing is repeated, 0 for no tokens.
    """
    most = min(len(ids), 1)
    for unit in range(1, min(_LONGEST_UNIT, len(ids) // 2) + 1):
        run = 0
        for i in range(unit, len(ids)):
            run = run + 1 if ids[i] == ids[i - unit] else 0
            if run >= unit:
                most = max(most, run // unit + 1 + (unit >= 4))
    return most


def _most_frequent(ids: Sequence[int]) -> int:
    grams = Counter(tuple(ids[i : i + _NGRAM]) for i in range(len(ids) - _NGRAM + 1))
    return max(grams.values(), default=0)


def stricter(
    decode: Decode, problem: Problem, number: int, n: int, wrong: tuple[int, ...]
) -> Decode:
    """The settings for a translation that has a problem, at the first try or the second.

    Nothing is drawn at random, short sequences are not repeated, and the translation is shorter.

    Args:
      n: translations asked for. wrong: tokens of other scripts than the target's.
    """
    limits = {
        "max_length_factor": decode.max_length_factor * 0.75,
        "max_length_offset": decode.max_length_offset // 2,
    }
    most = math.ceil(limits["max_length_factor"] + limits["max_length_offset"])
    return dataclasses.replace(
        decode,
        strategy="beam",
        beam_size=max(decode.beam_size, n, 4),
        no_repeat_ngram=4 - number,
        repetition_penalty=1.0 if number == 1 else 1.5,
        min_length=max(decode.min_length, min(number + 1, most)) if problem == "empty" else 0,
        max_length=0,
        suppress=(*decode.suppress, *wrong)
        if problem == "in the wrong script"
        else decode.suppress,
        **limits,
    )


def mend(
    sources: Sequence[str],
    found: list[list[Any]],
    decode: Decode,
    search: Callable[[Sequence[int], Decode], list[list[Any]]],
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    target: str,
) -> list[list[Any]]:
    """Decodes again what has a problem; the result says so in the field ``guard``.

    After two tries an empty translation becomes a copy of the source, so that no text is lost, and
    of others the last try stays that is shortest. The rules apply to the best of each text.

    Args:
      sources: texts that fit the model. found: the best ``Translation`` of each.
      search: ``search(indices, decode)`` gives as many for each of these texts.
      target: code of the target language.
    """
    scripts = languages.language(target).scripts
    ids = [x[:-1] for x in source_tokenizer.encode_batch(sources)]

    def check(i: int, best: Any) -> Problem | None:
        tokens = best.tokens[0] if best.tokens else ()
        return problem(sources[i], best.text, ids[i], tokens, _most(decode, len(ids[i])), scripts)

    problems = {i: check(i, own[0]) for i, own in enumerate(found)}
    first = open_ = {
        i: p
        for i, p in problems.items()
        if p is not None and (p == "empty" or found[i][0].log_prob > -math.inf)
    }
    if not first:
        return found
    result = list(found)
    wrong = _wrong_tokens(target_tokenizer, scripts)
    for number in range(1, _NUMBER_OF_TRIES + 1):
        groups: dict[Decode, list[int]] = {}
        for i, what in open_.items():
            settings = stricter(decode, what, number, len(found[i]), wrong)
            groups.setdefault(settings, []).append(i)
        for settings, members in groups.items():
            again = search(members, settings)
            for i, own in zip(members, again, strict=True):
                if own[0].log_prob > -math.inf:
                    result[i] = [_told(t, f"{first[i]}: decoded again") for t in own]
        open_ = {i: p for i in open_ if (p := check(i, result[i][0])) is not None}
    for i, what in open_.items():
        if what == "empty":
            best = result[i][0]
            copied = dataclasses.replace(
                best,
                text=sources[i],
                log_prob=-math.inf,
                score=-math.inf,
                parts=((sources[i], sources[i]),),
                tokens=(tuple(target_tokenizer.encode(sources[i])[:-1]),),
            )
            result[i] = [_told(copied, f"{first[i]}: copied")]
        else:
            result[i] = [_told(t, f"{first[i]}: still {what}") for t in result[i]]
    return result


def _told(translation: Any, what: str) -> Any:
    return dataclasses.replace(translation, guard=what)


def _most(decode: Decode, source_tokens: int) -> float:
    """The longest translation; a limit below the length of the source is meant to crop."""
    if decode.max_length_factor < 1:
        return math.inf
    most = decode.max_length_factor * (source_tokens + 1) + decode.max_length_offset
    return math.inf if 0 < decode.max_length <= most else most


@functools.lru_cache(maxsize=8)
def _wrong_tokens(tokenizer: Tokenizer, scripts: tuple[str, ...]) -> tuple[int, ...]:
    """Tokens with letters of other scripts, and bytes that could spell some."""

    def is_wrong(piece: str) -> bool:
        if len(piece) == 6 and piece.startswith("<0x"):
            return int(piece[3:5], 16) >= 0x80
        return any(c.isalpha() and not languages.in_scripts(c, scripts) for c in piece)

    if not scripts:
        return ()
    return tuple(i for i, piece in enumerate(tokenizer.vocabulary) if i > 3 and is_wrong(piece))
