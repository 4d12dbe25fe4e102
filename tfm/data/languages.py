"""Facts about written languages, and the only place where language codes are interpreted.

Codes are compared after normalisation: "zh", "zh-Hans", "zh_CN", "cmn" and "zho_Hans" all name
Chinese. An unknown code names a language with spaces and ASCII punctuation.
"""

import re
import unicodedata
from dataclasses import dataclass

# Han and Kana letters, the inside of a regular expression's brackets: their scripts write no
# spaces between words.
HAN_AND_KANA = "々-〇ぁ-ヿㇰ-ㇿ㐀-䶿一-鿿\uf900-\ufaffｦ-ﾟ\U00020000-\U0003ffff"

_WORD = re.compile(rf"[{HAN_AND_KANA}]|(?:(?![{HAN_AND_KANA}])\w)+(?:['’-]\w+)*|[^\w\s]")

# Mandarin, Cantonese, Wu, Gan and classical Chinese. Other Sinitic languages (Hakka, Min) are often
# written in Latin letters.
_CHINESE = ("zh", "yue", "wuu", "gan", "lzh")

# Three-letter codes of ISO 639-2 and 639-3 that stand for the two-letter ones.
_TWO_LETTERS = {"zho": "zh", "chi": "zh", "cmn": "zh", "jpn": "ja", "kor": "ko", "eng": "en"}


# The words that the Unicode names of a script's letters begin with.
_SCRIPTS = {
    "Han": ("CJK",),
    "Kana": ("HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA"),
    "Hangul": ("HANGUL",),
    "Latin": ("LATIN", "FULLWIDTH LATIN", "MODIFIER LETTER"),
    "Cyrillic": ("CYRILLIC",),
    "Greek": ("GREEK",),
    "Arabic": ("ARABIC",),
    "Hebrew": ("HEBREW",),
    "Devanagari": ("DEVANAGARI",),
    "Thai": ("THAI",),
    "Bengali": ("BENGALI",),
    "Tamil": ("TAMIL",),
    "Georgian": ("GEORGIAN",),
    "Armenian": ("ARMENIAN",),
    "Khmer": ("KHMER",),
    "Lao": ("LAO",),
    "Myanmar": ("MYANMAR",),
    "Tibetan": ("TIBETAN",),
    "Ethiopic": ("ETHIOPIC",),
}
_SCRIPTS_OF = {
    script: codes.split()
    for script, codes in {
        "Latin": "en de fr es it pt nl sv da no nb fi pl cs sk hu ro hr sr sl lt lv et tr vi id ms "
        "ca",
        "Cyrillic": "ru uk bg be mk sr kk ky mn tg",
        "Greek": "el",
        "Arabic": "ar fa ur ps ug",
        "Hebrew": "he yi",
        "Devanagari": "hi mr ne sa",
        "Thai": "th",
        "Bengali": "bn as",
        "Tamil": "ta",
        "Georgian": "ka",
        "Armenian": "hy",
        "Khmer": "km",
        "Lao": "lo",
        "Myanmar": "my",
        "Tibetan": "bo",
        "Ethiopic": "am ti",
    }.items()
}

_NAMES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech",
    "da": "Danish", "de": "German", "el": "Greek", "en": "English", "eo": "Esperanto",
    "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian",
    "lzh": "Classical Chinese", "nb": "Norwegian", "nl": "Dutch", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian",
    "ru": "Russian", "sk": "Slovak", "sl": "Slovenian", "sv": "Swedish", "th": "Thai",
    "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "yue": "Cantonese",
    "zh": "Chinese",
}  # fmt: skip


@dataclass(frozen=True)
class Language:
    """How a language is written.

    Attributes:
      code: the normalised code, as ``base`` returns it.
      spaces: whether spaces separate words and sentences.
      full_width: whether punctuation marks are full-width ("，。！？").
      scripts: those that its letters are of, see ``in_scripts``; () if unknown.
      coverage: share of the characters of a text that get a piece of their own, for SentencePiece;
        below 1 where there are thousands of characters, so that the rarest are spelt in bytes.
      bleu_tokenizer: the name of sacreBLEU's tokenizer. Japanese and Korean are scored by
        character, because sacreBLEU's tokenizers for them need a dictionary.
    """

    code: str
    spaces: bool = True
    full_width: bool = False
    scripts: tuple[str, ...] = ()
    coverage: float = 1.0
    bleu_tokenizer: str = "13a"

    @property
    def joiner(self) -> str:
        """What goes between two sentences of one text: a space or nothing."""
        return " " if self.spaces else ""


def base(code: str) -> str:
    """Normalises a language code: lower case, without script, region and encoding.

    Of Chinese codes with an extended language, such as "zh-yue", the latter is returned.
    """
    first, *rest = (_TWO_LETTERS.get(part, part) for part in re.split("[-_.]", code.lower()))
    return rest[0] if first == "zh" and rest and rest[0] in _CHINESE else first


def language(code: str) -> Language:
    """Looks up the facts about a language by any spelling of its code."""
    name = base(code)
    if name in _CHINESE:
        return Language(name, False, True, ("Han",), coverage=0.9995, bleu_tokenizer="zh")
    if name == "ja":
        both = ("Han", "Kana")
        return Language(name, False, True, both, coverage=0.9995, bleu_tokenizer="char")
    if name == "ko":
        return Language(name, scripts=("Hangul",), coverage=0.9995, bleu_tokenizer="char")
    scripts = tuple(script for script, codes in _SCRIPTS_OF.items() if name in codes)
    return Language(name, scripts=scripts)


def english_name(code: str) -> str:
    """The English name of a language, or its code if it is not listed here."""
    return _NAMES.get(base(code), code)


def in_scripts(letter: str, scripts: tuple[str, ...]) -> bool:
    """Whether a letter is of one of these scripts."""
    name = unicodedata.name(letter, "")
    return any(name.startswith(begin) for script in scripts for begin in _SCRIPTS[script])


def words(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end, for word alignments.

    A word is a Han or Kana letter, a run of other letters and digits with apostrophes and hyphens
    inside, or a single mark.
    """
    return [match.span() for match in _WORD.finditer(text)]


def coverage(codes: str) -> float:
    """Character coverage of a vocabulary for one language, or several joined by "+" ("zh+en")."""
    return min(language(code).coverage for code in codes.split("+"))
