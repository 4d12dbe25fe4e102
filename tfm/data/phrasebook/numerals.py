"""Numbers in Chinese and in English words.

Chinese groups digits by ten thousand (万 10^4, 亿 10^8), English by a thousand (thousand, million,
billion): 三十五万 is *three hundred fifty thousand*. A translation model has to learn to regroup
the digits, which is why the phrasebook has many numbers.
"""

LIMIT = 10**12  # Numbers must be below this one.

_DIGITS = "零一二三四五六七八九"
_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
_TENS = ("", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def zh_number(n: int) -> str:
    """Returns the Chinese numeral of 0 <= n < 10^12: 105 → 一百零五, 120_000_000 → 一亿两千万.

    Two is written 两 before 百, 千, 万 and 亿, and 二 elsewhere.

    Raises:
      ValueError: n is out of range.
    """
    _check(n)
    if n < 10_000:
        return _zh_below_wan(n)
    unit, name = (10**8, "亿") if n >= 10**8 else (10**4, "万")
    high, low = divmod(n, unit)
    text = ("两" if high == 2 else zh_number(high)) + name
    if low == 0:
        return text
    gap = "零" if low < unit // 10 else ""
    tail = zh_number(low)
    return text + gap + ("一" + tail if tail.startswith("十") else tail)


def _zh_below_wan(n: int) -> str:
    if n < 10:
        return _DIGITS[n]
    if n < 20:
        return "十" + (_DIGITS[n - 10] if n > 10 else "")
    text, gap = "", False
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, n = divmod(n, unit)
        if digit == 0:
            gap = bool(text)
            continue
        if gap:
            text, gap = text + "零", False
        text += ("两" if digit == 2 and unit >= 100 else _DIGITS[digit]) + name
    return text


def en_number(n: int) -> str:
    """Returns the English words for 0 <= n < 10^12: 350_000 → three hundred fifty thousand.

    Millions and billions with one decimal are shortened: 3_500_000 → three point five million.
    American usage: no *and*.

    Raises:
      ValueError: n is out of range.
    """
    _check(n)
    for unit, name in ((10**9, "billion"), (10**6, "million")):
        if n >= unit:
            whole, rest = divmod(n, unit)
            if rest and rest % (unit // 10) == 0:
                return f"{en_number(whole)} point {_SMALL[rest * 10 // unit]} {name}"
            return f"{en_number(whole)} {name}" + (f" {en_number(rest)}" if rest else "")
    if n < 20:
        return _SMALL[n]
    if n < 100:
        return _TENS[n // 10] + (f"-{_SMALL[n % 10]}" if n % 10 else "")
    unit, name = (1000, "thousand") if n >= 1000 else (100, "hundred")
    high, low = divmod(n, unit)
    return f"{en_number(high)} {name}" + (f" {en_number(low)}" if low else "")


def en_ordinal(n: int) -> str:
    """Returns the English ordinal of 0 < n < 100: 3 → third, 21 → twenty-first.

    Raises:
      ValueError: n is out of range.
    """
    if not 0 < n < 100:
        raise ValueError(f"ordinal {n}: must be 1 to 99")
    head, hyphen, last = en_number(n).rpartition("-")
    if last.endswith("y"):
        return last[:-1] + "ieth"
    return head + hyphen + _ORDINALS.get(last, last + "th")


def _check(n: int) -> None:
    if not 0 <= n < LIMIT:
        raise ValueError(f"number {n}: must be at least 0 and below {LIMIT:,}")
