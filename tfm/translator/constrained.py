"""Searches texts that have constraints, and reports what their translations do not meet."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

from tfm.data.tokenizer import Tokenizer
from tfm.decoding import Decode
from tfm.translator import text_constraints
from tfm.translator.text_constraints import Encoded, ForText, TextConstraints

_log = logging.getLogger(__name__)

Search = Callable[[Sequence[str], Sequence[Encoded] | None], list[list[Any]]]
"""Translations of texts, best first; constraints of all texts have one shape."""


def of_parts(
    constraints: Sequence[TextConstraints | None] | ForText | None,
    texts: Sequence[str],
    parts: Sequence[Sequence[str]],
) -> list[TextConstraints]:
    """The constraints of every part of every text.

    Of constraints given text by text, the prefix is of the first part and forbidden phrases are of
    all.

    Raises:
      ValueError: another number of constraints than texts, or required phrases for a text in
        several parts, of which none is known to be the right one.
    """
    if constraints is None:
        return [TextConstraints() for own in parts for _ in own]
    if callable(constraints):
        return [constraints(part) for own in parts for part in own]
    if len(constraints) != len(texts):
        raise ValueError(f"{len(constraints)} constraints for {len(texts)} texts: give one each")
    found = []
    for number, (one, own) in enumerate(zip(constraints, parts, strict=True), 1):
        one = one or TextConstraints()
        if one.required and len(own) > 1:
            raise ValueError(
                f"constraints of text {number}: it is translated in {len(own)} parts; give "
                "constraints as a function of a part's text, or load the model with a longer "
                "source_length"
            )
        rest = dataclasses.replace(one, prefix="")
        found += [rest if i else one for i in range(len(own))]
    return found


def check(wishes: Sequence[TextConstraints], decode: Decode) -> None:
    """Raises ValueError if a strategy cannot meet the constraints."""
    if decode.search == "sample" and any(wish.required for wish in wishes):
        raise ValueError(
            "phrases that must appear, as of a glossary, need strategy beam or diverse, or mbr "
            f"with mbr_over beam; this is strategy {decode.strategy}"
        )


def search(
    run: Search, texts: Sequence[str], wishes: Sequence[TextConstraints], tokenizer: Tokenizer
) -> list[list[Any]]:
    """Translations of texts under constraints, those that meet more of them first.

    Texts are searched together with others of the same shape of constraints, so that a translation
    does not depend on its neighbours. Where phrases turn out to be impossible, within a length or
    with the other settings, search goes on to the limit in vain; such a text is searched again
    without them.
    """
    found = _by_shape(run, texts, [text_constraints.encode(w, tokenizer) for w in wishes])
    found = [_reported(best, wish) for best, wish in zip(found, wishes, strict=True)]
    again = [i for i, best in enumerate(found) if _lacks(best[0], wishes[i])]
    if again:
        possible = [_without(wishes[i], found[i][0].unmet) for i in again]
        encoded = [text_constraints.encode(wish, tokenizer) for wish in possible]
        for i, best in zip(again, _by_shape(run, [texts[i] for i in again], encoded), strict=True):
            found[i] = _reported(best, wishes[i])
        _log.warning(
            "%d of %d texts with constraints do not meet them all: %s",
            len(again),
            sum(wish != TextConstraints() for wish in wishes),
            " / ".join(f"{texts[i][:30]}: {', '.join(found[i][0].unmet)}" for i in again[:3])
            + (" / ..." if len(again) > 3 else ""),
        )
    return found


def _by_shape(run: Search, texts: Sequence[str], encoded: Sequence[Encoded]) -> list[list[Any]]:
    """Searches together what can share a compiled search."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for i, one in enumerate(encoded):
        shapes.setdefault(one.shape, []).append(i)
    found: list[list[Any]] = [[]] * len(texts)
    for shape, indices in sorted(shapes.items()):
        own = [encoded[i] for i in indices] if any(shape) else None
        for i, best in zip(indices, run([texts[i] for i in indices], own), strict=True):
            found[i] = best
    return found


def _reported(best: list[Any], wish: TextConstraints) -> list[Any]:
    """The translations with what they do not meet."""
    if wish == TextConstraints():
        return best
    told = [dataclasses.replace(t, unmet=wish.unmet(t.text)) for t in best]
    return sorted(told, key=lambda t: len(t.unmet))


def _lacks(translation: Any, wish: TextConstraints) -> bool:
    return any(variants[0] in translation.unmet for variants in wish.required)


def _without(wish: TextConstraints, unmet: tuple[str, ...]) -> TextConstraints:
    left = tuple(variants for variants in wish.required if variants[0] not in unmet)
    return dataclasses.replace(wish, required=left)
