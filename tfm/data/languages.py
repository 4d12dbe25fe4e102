"""Facts about written languages, and the only place where language codes are interpreted.

Codes are compared after normalisation: "zh", "zh-Hans", "zh_CN", "cmn" and "zho_Hans" all name
Chinese. An unknown code names a language with spaces and ASCII punctuation.
"""

import re
from dataclasses import dataclass

# Han and Kana letters, the inside of a regular expression's brackets: their scripts write no
# spaces between words.
HAN_AND_KANA = "々-〇ぁ-ヿㇰ-ㇿ㐀-䶿一-鿿\uf900-\ufaffｦ-ﾟ\U00020000-\U0003ffff"

# Mandarin, Cantonese, Wu, Gan and classical Chinese. Other Sinitic languages (Hakka, Min) are often
# written in Latin letters.
_CHINESE = ("zh", "yue", "wuu", "gan", "lzh")

# Letters of the scripts by which languages can be told apart: the inside of brackets, too.
_SCRIPTS = {
    "A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ": "en de fr es it pt nl sv da no nb nn fi is pl cs sk sl hr hu ro et lv lt "
    "tr az id ms vi sw eu ca gl cy ga sq af tl mt",
    "Ѐ-ԯ": "ru uk bg be mk kk ky mn tg",
    "Ͱ-Ͽἀ-῿": "el",
    "\u0590-\u05ff": "he yi",
    "\u0600-\u06ff\u0750-\u077f": "ar fa ur ps ug",
    "\u0900-\u097f": "hi mr ne sa",
    "\u0e00-\u0e7f": "th",
    "가-힣ᄀ-ᇿㄱ-ㆎ": "ko",
}
_SCRIPT_OF = {code: script for script, codes in _SCRIPTS.items() for code in codes.split()}

# Three-letter codes of ISO 639-2 and 639-3 that stand for the two-letter ones.
_TWO_LETTERS = {"zho": "zh", "chi": "zh", "cmn": "zh", "jpn": "ja", "kor": "ko", "eng": "en"}


@dataclass(frozen=True)
class Language:
    """How a language is written.

    Attributes:
      code: the normalised code, as ``base`` returns it.
      spaces: whether spaces separate words and sentences.
      full_width: whether punctuation marks are full-width ("，。！？").
      coverage: share of the characters of a text that get a piece of their own, for SentencePiece;
        below 1 where there are thousands of characters, so that the rarest are spelt in bytes.
      script: letters of its script, the inside of a regular expression's brackets; "" if unknown.
      bleu_tokenizer: the name of sacreBLEU's tokenizer. Japanese and Korean are scored by
        character, because sacreBLEU's tokenizers for them need a dictionary.
    """

    code: str
    spaces: bool = True
    full_width: bool = False
    coverage: float = 1.0
    script: str = ""
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
    if name in (*_CHINESE, "ja"):
        tokenizer = "char" if name == "ja" else "zh"
        return Language(name, False, True, 0.9995, HAN_AND_KANA, bleu_tokenizer=tokenizer)
    if name == "ko":
        return Language(name, coverage=0.9995, script=_SCRIPT_OF[name], bleu_tokenizer="char")
    return Language(name, script=_SCRIPT_OF.get(name, ""))


def coverage(codes: str) -> float:
    """Character coverage of a vocabulary for one language, or several joined by "+" ("zh+en")."""
    return min(language(code).coverage for code in codes.split("+"))
