"""Documents: text whose lines, white space and markup stand between the sentences translated.

A document is a list of segments: sentences, and what is kept as it is. Every character of the text
is in one of them. Kept are line breaks, indents and columns (tabs, runs of spaces), the marks that
begin lines of Markdown, tags and comments of HTML except those within a sentence, and whatever has
no letter or digit.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tfm.data.languages import Language, language
from tfm.translator.split import sentences
from tfm.translator.translation import Translation, join

if TYPE_CHECKING:
    from tfm.translator.translator import Translator

_BLOCK = (
    "address|article|aside|blockquote|body|br|caption|dd|div|dl|dt|figcaption|figure|footer|form|"
    "h[1-6]|head|header|hr|html|li|link|main|meta|nav|ol|option|p|pre|script|section|style|table|"
    "tbody|td|tfoot|th|thead|title|tr|ul"
)
_TAG = r"</?[a-zA-Z][^<>]{0,500}>"
_LINE_MARKS = r"[^\S\n]*(?:(?:[#>*+•-]+|\d{1,3}[.)])[^\S\n]+)+"
_SPACES = r"\s*(?:[^\S \u00a0]|\s\s)\s*"  # white space that is more than one space
_KEPT = re.compile(
    rf"\A{_LINE_MARKS}|{_SPACES}|<!--[^\n]*?-->|(?i:</?(?:{_BLOCK})(?:\s[^<>]{{0,500}})?/?>)"
)
_LETTER = re.compile(r"[^\W_]")


class Segment(NamedTuple):
    """A piece of a document.

    Attributes:
      text: its characters.
      translated: whether it is a sentence; else it is kept as it is.
    """

    text: str
    translated: bool


def segments(text: str) -> list[Segment]:
    """The segments of a text, in order; joined, they are the text."""
    found: list[Segment] = []
    for segment in _segments(text):
        if not segment.text:
            continue
        if found and not segment.translated and not found[-1].translated:
            found[-1] = Segment(found[-1].text + segment.text, False)
        else:
            found.append(segment)
    return found


def _segments(text: str) -> Iterator[Segment]:
    for line in text.splitlines(keepends=True):
        end = 0
        for match in _KEPT.finditer(line):
            yield from _sentences(line[end : match.start()])
            yield Segment(match[0], False)
            end = match.end()
        yield from _sentences(line[end:])


def _sentences(text: str) -> Iterator[Segment]:
    """The sentences of a text without line breaks, without white space and tags around them."""
    for sentence in sentences(text):
        before, inner, after = _edges(sentence)
        yield Segment(before, False)
        yield Segment(inner, _LETTER.search(inner) is not None)
        yield Segment(after, False)


def _edges(sentence: str) -> tuple[str, str, str]:
    """What stands before the text of a sentence, the text, and what stands behind it."""
    start = re.match(rf"(?:\s|{_TAG})*", sentence).end()
    marks = list(re.finditer(rf"\s+|{_TAG}", sentence[start:]))
    end = len(sentence)
    for mark in reversed(marks):
        if start + mark.end() != end:
            break
        end = start + mark.start()
    return sentence[:start], sentence[start:end], sentence[end:]


def assemble(
    parts: Sequence[Segment], translations: Sequence[str], source: Language, target: Language
) -> str:
    """The document with its sentences translated.

    Between two sentences of a line, the joiner of the source language becomes that of the target
    language: English sentences have a space between them and Chinese ones nothing. All other white
    space stays.

    Args:
      parts: of ``segments``.
      translations: of the sentences among them, in order.
    """
    found, result = iter(translations), []
    for i, segment in enumerate(parts):
        if segment.translated:
            if i and parts[i - 1].translated and not source.joiner:
                result.append(target.joiner)
            result.append(next(found))
            continue
        between = 0 < i < len(parts) - 1 and parts[i - 1].translated and parts[i + 1].translated
        joins = between and segment.text == source.joiner
        result.append(target.joiner if joins else segment.text)
    return "".join(result)


def n_best(
    translator: "Translator", texts: Sequence[str], n: int, search: Any = None, **decode: Any
) -> list[list[Translation]]:
    """Documents → the ``n`` best translations of each, as of ``Translator.n_best``.

    The k-th best translations of the sentences make the k-th best of the document.

    Args:
      search: translates the sentences, as ``Translator.n_best``, which it is by default.
    """
    data = translator.experiment.data
    source, target = language(data.source), language(data.target)
    documents = [segments(text) for text in texts]
    flat = [part.text for document in documents for part in document if part.translated]
    found = iter((search or translator.n_best)(flat, n, **decode))
    result = []
    for document in documents:
        own = [next(found) for part in document if part.translated]
        bests = []
        for k, joined in enumerate(join(own, "")):
            text = assemble(document, [best[k].text for best in own], source, target)
            bests.append(dataclasses.replace(joined, text=text))
        result.append(bests)
    return result


def translate(translator: "Translator", texts: Sequence[str], **decode: Any) -> list[str]:
    """The best translation of each document, with its lines, white space and markup kept."""
    return [best[0].text for best in n_best(translator, texts, 1, **decode)]
