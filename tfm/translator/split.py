"""Cuts text into sentences, and a text that is too long for the model into parts that fit.

The marks of sentences are those of Chinese, Japanese and Western text, mixed as they come. A cut
too few is a longer sentence; a cut too many tears one apart; so in doubt there is none.
"""

import re
from bisect import bisect_right
from collections.abc import Callable

from tfm.data.languages import HAN_AND_KANA

_CLOSERS = "\"'”’」』）)\\]】》〉»＂"
_END_TAGS = r"(?:</[A-Za-z][A-Za-z0-9]{0,20}>)*"
_MARKS = re.compile(rf"([。！？｡．!?.…‥]+)([{_CLOSERS}]*{_END_TAGS})(\s*)")
_FINAL = re.compile("[。！？｡]")  # ends a sentence without white space behind it

# Words with a full stop that no sentence ends at: before names, and before numbers only.
_BEFORE_NAMES = (
    " mr mrs ms mx dr prof st mt rev hon gen col lt sgt capt cmdr gov pres messrs mme mlle vs cf "
    "eg ie e.g i.e viz approx bzw z.b d.h u.a hr fr sr sra srta "
)
_BEFORE_NUMBERS = (
    " no nos nr vol fig figs eq sec ch pp p art bd ca jan feb mar apr jun jul aug sep sept oct nov "
    "dec "
)
_CJK = re.compile(f"[{HAN_AND_KANA}]")
_LONGEST_BRACKET = 200  # characters; a longer one is taken to be a mistake
_OPEN = dict(zip("(（[【", ")）]】", strict=True))
_WORD = re.compile(r"[^\s(（\[【\"'“‘「『]*\Z")

_BOUNDARIES = (
    r"(?<=[。！？!?；;…])|(?<=[.])(?=\s)",  # what may be sentences, and their halves
    r"(?<=[，、,:：])",  # clauses
    r"(?<=\s)",  # words
)


def sentences(text: str) -> list[str]:
    """Cuts a text after its sentences; joined, they are the text. Takes linear time.

    A sentence ends at 。！？ with the quotes, brackets and tags that close there; at . ! ? … where
    white space or a Chinese letter follows. It does not end inside brackets, within a number, after
    an initial (J. Smith), a number that begins a text (1. Of lists), or an abbreviation, nor where
    a lower-case letter or a comma goes on. White space belongs to the sentence that it precedes.
    """
    brackets = _brackets(text)
    cuts = [0]
    for match in _MARKS.finditer(text):
        cut = match.end(2)
        outside = cut < len(text) and not _inside(brackets, match.start())
        if outside and _ends(text, match, cuts[-1]):
            cuts.append(cut)
    return [text[a:b] for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True)]


def _ends(text: str, match: re.Match, start: int) -> bool:
    """Whether a sentence that began at ``start`` ends with these marks."""
    marks, _, space = match.groups()
    following = text[match.end() : match.end() + 1]
    if following and following in ",;:，；：、)）]】":
        return False
    if _FINAL.search(marks):
        return True
    if not following or following.islower():
        return False
    before = text[match.start() - 1 : match.start()]
    if not space and not (_is_cjk(following) and (_is_cjk(before) or marks[-1] in "!?")):
        return False
    if set(marks) <= {"…", "‥"} and not space:
        return False
    return marks != "." or not _abbreviated(text, start, match.start(), following)


def _abbreviated(text: str, start: int, end: int, following: str) -> bool:
    """Whether the word before a full stop at ``end`` is short for one, or numbers what follows."""
    word = _WORD.search(text, max(start, end - 30), end)[0]
    if word.isdigit() and not text[start : end - len(word)].strip():
        return len(word) <= 3
    if len(word) == 1 and word.isalpha() and not _is_cjk(word):
        return word != "I"
    if f" {word.lower()} " in _BEFORE_NUMBERS:
        return following.isdigit()
    letters = re.fullmatch(r"(?:[A-Za-z]\.)+[A-Za-z]", word)  # U.S.
    return letters is not None or f" {word.lower()} " in _BEFORE_NAMES


def _is_cjk(letter: str) -> bool:
    return _CJK.match(letter) is not None


def _brackets(text: str) -> list[tuple[int, int]]:
    """Where the outermost pairs of brackets open and close, those of a likely length."""
    found: list[tuple[int, int]] = []
    opened: list[int] = []
    for i in (match.start() for match in re.finditer(r"[(（\[【)）\]】]", text)):
        if text[i] in _OPEN:
            opened.append(i)
        elif opened and _OPEN[text[opened[-1]]] == text[i]:
            first = opened.pop()
            if i - first <= _LONGEST_BRACKET:
                while found and found[-1][0] > first:
                    found.pop()
                found.append((first, i))
    return found


def _inside(brackets: list[tuple[int, int]], position: int) -> bool:
    i = bisect_right(brackets, (position,)) - 1
    return i >= 0 and position < brackets[i][1]


def split(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Splits ``text`` into consecutive parts, each as long as fits; joined, they are the text.

    It splits after sentences where that is enough, else after clauses, else after words, else
    between characters.

    Args:
      fits: whether a part is short enough. A single character is taken to fit.
    """
    return [text] if fits(text) else _split(text, fits, ("", *_BOUNDARIES))


def _split(text: str, fits: Callable[[str], bool], boundaries: tuple[str, ...]) -> list[str]:
    if boundaries:
        pieces = re.split(boundaries[0], text) if boundaries[0] else sentences(text)
    else:
        pieces = list(text)
    parts, current = [], ""
    for piece in pieces:
        if fits(current + piece):
            current += piece
            continue
        if current:
            parts.append(current)
            current = ""
        if fits(piece) or len(piece) <= 1:
            current = piece
        else:
            *complete, current = _split(piece, fits, boundaries[1:])
            parts += complete
    return [*parts, current] if current else parts
