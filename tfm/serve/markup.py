"""HTML whose text is translated and whose tags stay.

Text between two tags is one text. What stands in ``script``, ``style``, ``code``, ``pre`` and in
elements with ``translate="no"`` stays as it is; so do comments, and white space around texts.
"""

import html
import re
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser

_RAW = {"script", "style", "code", "pre", "kbd", "samp", "var", "textarea"}
_VOID = {
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track",
    "wbr",
}  # fmt: skip
_MOST_WORK = 2_000_000
_SPACE = re.compile(r"(\s*)(.*?)(\s*)", re.DOTALL)


@dataclass
class Fragment:
    """HTML in parts, of which every second one, from the second on, is a text to translate."""

    parts: list[str]

    @property
    def texts(self) -> list[str]:
        """The texts, without entities."""
        return [html.unescape(part) for part in self.parts[1::2]]

    def fill(self, translations: list[str]) -> str:
        """The HTML with translations in place of its texts."""
        filled = list(self.parts)
        filled[1::2] = [html.escape(text, quote=False) for text in translations]
        return "".join(filled)


def take_apart(text: str) -> Fragment:
    """The texts of a piece of HTML and what stands between them.

    Raises:
      ValueError: so many tags without an end that Python's parser would take too long.
    """
    if _work(text) > _MOST_WORK:
        raise ValueError("html: too many tags without an end")
    parser = _Parser(text)
    parser.feed(text)
    parser.close()
    return Fragment(parser.finish())


def _work(text: str) -> int:
    """About how many characters Python's parser reads: from each "<" to the next ">"."""
    work, end = 0, len(text)
    for match in reversed(list(re.finditer("[<>]", text))):
        if match[0] == ">":
            end = match.start()
        else:
            work += end - match.start()
    return work


class _Parser(HTMLParser):
    """Collects the HTML itself, by the parser's positions; nothing is written anew."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self._text = text
        self._lines = [0]
        for match in re.finditer("\n", text):
            self._lines.append(match.end())
        self._parts = [""]
        self._start: int | None = None  # of the text that is being read
        self._written = 0  # up to where the HTML is in the parts
        self._open: list[tuple[str, bool]] = []  # tags, and whether each is not translated
        self._names: Counter[str] = Counter()  # of these
        self._kept = 0  # how many of these are not translated

    def finish(self) -> list[str]:
        self._end_text(len(self._text))
        self._parts[-1] += self._text[self._written :]
        return self._parts

    @property
    def _at(self) -> int:
        line, column = self.getpos()
        return self._lines[line - 1] + column

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._end_text(self._at)
        if tag not in _VOID:
            given = dict(attrs)
            kept = tag in _RAW or given.get("translate") == "no"
            kept |= "notranslate" in (given.get("class") or "").split()
            self._open.append((tag, kept))
            self._names[tag] += 1
            self._kept += kept

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._end_text(self._at)

    def handle_endtag(self, tag: str) -> None:
        self._end_text(self._at)
        while self._names[tag]:  # what stands open inside ends with it
            name, kept = self._open.pop()
            self._names[name] -= 1
            self._kept -= kept
            if name == tag:
                break

    def handle_comment(self, data: str) -> None:
        self._end_text(self._at)

    def handle_decl(self, decl: str) -> None:
        self._end_text(self._at)

    def handle_pi(self, data: str) -> None:
        self._end_text(self._at)

    def unknown_decl(self, data: str) -> None:
        self._end_text(self._at)

    def handle_data(self, data: str) -> None:
        self._begin_text()

    def handle_entityref(self, name: str) -> None:
        self._begin_text()

    def handle_charref(self, name: str) -> None:
        self._begin_text()

    def _begin_text(self) -> None:
        if self._start is None and not self._kept:
            self._start = self._at

    def _end_text(self, end: int) -> None:
        """Splits off the text that ends here, without the white space around it."""
        if self._start is None:
            return
        match = _SPACE.fullmatch(self._text[self._start : end])
        assert match is not None
        before, inside, _ = match.groups()
        if inside:
            start = self._start + len(before)
            self._parts[-1] += self._text[self._written : start]
            self._parts += [inside, ""]
            self._written = start + len(inside)
        self._start = None
