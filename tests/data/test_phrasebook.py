"""The phrasebook: properties of its corpora, of the two languages, and of the numerals."""

import hashlib
import itertools
import re

import pytest

from tfm.data.phrasebook import grammar, lexicon, numerals


@pytest.fixture(scope="module")
def drawn():
    return {
        split: [grammar.draw(split, i) for i in range(grammar.size(split))]
        for split in grammar.SPLITS
    }


@pytest.fixture(scope="module")
def corpora(drawn):
    return {
        split: [frame.render(fillers) for frame, fillers in draws] for split, draws in drawn.items()
    }


@pytest.fixture(scope="module")
def everything(corpora):
    return set(itertools.chain.from_iterable(corpora.values()))


@pytest.fixture(scope="module")
def sample(corpora):
    """Every held-out pair and a tenth of train."""
    return corpora["dev"] + corpora["test"] + corpora["train"][::10]


# --- The corpora ----------------------------------------------------------------------------------


def test_sizes_and_counts(corpora):
    assert [len(corpora[split]) for split in grammar.SPLITS] == [200_000, 1_000, 2_000]
    assert grammar.count() > 1_000_000
    assert len(set(grammar.frames())) >= 60


def test_a_pair_depends_on_its_index_alone(corpora):
    assert grammar.pair("test", 1_234) == corpora["test"][1_234]
    assert grammar.pair("train", 0) == corpora["train"][0]


def test_the_corpora_stay_what_they_are(corpora):
    """The same on every machine and Python; only a change of the grammar changes this digest."""
    text = "\n".join(f"{zh}\t{en}" for zh, en in corpora["test"])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "573ffaadb676d14c"


@pytest.mark.parametrize("split", grammar.SPLITS)
def test_pairs_of_a_split_are_distinct(corpora, split):
    assert len(set(corpora[split])) == grammar.size(split)


def test_translation_is_a_function_both_ways(everything):
    assert len({zh for zh, _ in everything}) == len(everything)
    assert len({en for _, en in everything}) == len(everything)


@pytest.mark.parametrize("frame", grammar.compiled(), ids=lambda frame: frame.name)
def test_another_filler_gives_another_sentence_on_both_sides(frame):
    for slot, table in enumerate(frame.tables):
        fillers = [1] * len(frame.tables)
        seen = []
        for k in range(len(table)):
            fillers[slot] = k
            seen.append(frame.render(tuple(fillers)))
        assert len({zh for zh, _ in seen}) == len({en for _, en in seen}) == len(table)


def test_held_out_combinations_never_occur_in_train(drawn, corpora):
    keys = {
        split: {(frame.name, fillers[:2]) for frame, fillers in draws}
        for split, draws in drawn.items()
    }
    assert not keys["train"] & (keys["dev"] | keys["test"])
    assert not keys["dev"] & keys["test"]
    train_zh = {zh for zh, _ in corpora["train"]}
    assert not train_zh & {zh for split in ("dev", "test") for zh, _ in corpora[split]}


def test_every_split_holds_every_frame(drawn):
    for draws in drawn.values():
        assert {frame.name for frame, _ in draws} == set(grammar.frames())


def test_train_shows_every_word_the_others_use(drawn, corpora):
    """Each filler occurs in the same frame (unless it has one slot), and so each English word."""
    shown = {
        (frame.number, slot, filler)
        for frame, fillers in drawn["train"]
        for slot, filler in enumerate(fillers)
        if len(frame.tables[slot]) <= 100
    }
    english = {word for _, en in corpora["train"] for word in en.rstrip(".?").split()}
    for split in ("dev", "test"):
        for frame, fillers in drawn[split]:
            for slot, filler in enumerate(fillers):
                if len(frame.tables[slot]) <= 100 and len(fillers) > 1:
                    assert (frame.number, slot, filler) in shown, frame.name
        for _, en in corpora[split]:
            assert set(en.rstrip(".?").split()) <= english


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 65, 1000])
def test_permute_is_a_permutation(n):
    assert sorted(grammar._permute(i, n, 5) for i in range(n)) == list(range(n))


def test_a_wrong_split_or_index_is_an_error():
    with pytest.raises(ValueError, match="no split 'valid'; its splits are train, dev, test"):
        grammar.pair("valid", 0)
    for index in (-1, 1_000):
        with pytest.raises(IndexError, match=f"dev: index {index} is not in 0..999"):
            grammar.pair("dev", index)


# --- The two languages ----------------------------------------------------------------------------


def test_lexicon_holds_at_least_300_content_words():
    tables = (
        *("goods", "snack", "drink", "dish", "carried", "job", "people", "estate", "top", "event"),
        *("change", "act", "trait", "feeling", "weather", "color", "taste", "cuisine", "language"),
        *("skill", "routine", "chore", "pastime", "deed", "building", "city", "land", "month"),
        *("transport", "carrier", "occasion", "kind", "banned", "making", "sky", "meal"),
    )
    words = {
        word.zh[form]
        for name in tables
        for word in lexicon.TABLES[name]
        for form in ("", "noun")
        if form in word.zh
    }
    assert len(words) >= 300


def test_sentences_are_well_formed(sample):
    for zh, en in sample:
        assert re.fullmatch(r"[一-鿿0-9T，]+[。？]", zh), zh
        assert re.fullmatch(r"[A-Z][A-Za-z0-9 ,.'-]*[.?]", en), en
        assert "  " not in en and " ." not in en and " ," not in en, en
        assert zh.endswith("？") == en.endswith("?"), (zh, en)


def test_articles(sample):
    for _, en in sample:
        assert not re.search(r"\b[Aa] [aeiou]", en), en
        assert not re.search(r"(?<!')\b[Aa]n [^aeiou]", en), en
    plurals = {w.en["plural"] for w in lexicon.GOODS + lexicon.ANIMALS} - {"fish", "sheep"}
    for _, en in sample:
        for after in re.findall(r"\ban? ([\w-]+)\b", en):
            assert after not in plurals, en


def test_numbers_agree_with_their_nouns(sample):
    """A singular follows *one*; a plural, in -s or irregular, follows *two* and more."""
    irregular = ("fish", "sheep", "people", "children", "mice", "geese")
    counted = (*lexicon.GOODS, *lexicon.CROWDS, *lexicon.ANIMALS, *lexicon.DISHES)
    singulars = {w.en[""] for w in counted} - set(irregular)
    for _, en in sample:
        for noun in re.findall(r"\b(?:two|three|four|five|six|seven|eight|nine|ten) (\w+)", en):
            assert noun not in singulars, en
        assert not re.search(r"(?<!-)\bone (years|hours|times)\b|\bten (year|hour|time)\b", en), en


def test_verbs_agree_with_their_subjects(sample):
    wrong = re.compile(
        r"^(I|We|They|You) (is|has|does|likes|wants|goes|lives|earns|plans)\b"
        r"|^(He|She|Xiao\w+|M[rs]+\. \w+|(My|His|Her) [a-z]+) "
        r"(am|are|have|do|like|want|go|live|earn|plan)\b"
    )
    for _, en in sample:
        assert not wrong.search(en), en


@pytest.mark.parametrize(
    ("verb", "forms"),
    [
        ("eat", "eat eats ate eating eaten"),
        ("study", "study studies studied studying studied"),
        ("play chess", "play chess|plays chess|played chess|playing chess|played chess"),
        ("wash", "wash washes washed washing washed"),
        ("chat", "chat chats chatted chatting chatted"),
        ("swim", "swim swims swam swimming swum"),
        ("take", "take takes took taking taken"),
        ("have", "have has had having had"),
        ("do", "do does did doing done"),
        ("fly", "fly flies flew flying flown"),
        ("see", "see sees saw seeing seen"),
        ("write", "write writes wrote writing written"),
        ("close", "close closes closed closing closed"),
    ],
)
def test_conjugate(verb, forms):
    expected = forms.split("|") if "|" in forms else forms.split()
    assert list(lexicon.conjugate(verb).values()) == expected


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("book", "books"),
        ("watch", "watches"),
        ("fox", "foxes"),
        ("dictionary", "dictionaries"),
        ("key", "keys"),
        ("knife", "knives"),
        ("mouse", "mice"),
        ("cup of tea", "cups of tea"),
        ("washing machine", "washing machines"),
    ],
)
def test_plural(one, many):
    assert lexicon.plural(one) == many


def test_comparatives():
    forms = {w.zh[""]: (w.en["more"], w.en["most"]) for w in lexicon.TRAITS}
    assert forms["高"] == ("taller", "tallest")
    assert forms["瘦"] == ("thinner", "thinnest")
    assert forms["忙"] == ("busier", "busiest")
    assert forms["勇敢"] == ("braver", "bravest")
    assert forms["有名"] == ("more famous", "most famous")


@pytest.mark.parametrize(
    ("zh", "en"),
    [
        (r"了。$", r"\b(bought|sold|repaired)\b"),
        (r"去过.*。", r"\bhas been to\b"),
        (r"正在", r"\b(is|was|are) \w+ing\b"),
        (r"没", r"\bdid not\b"),
        (r"不会", r"\bcannot\b"),
        (r"吗？$", r"^(Does|Do|Is|Are|Did|Has|Have|Can|Will)\b"),
        (r"把.*了。", r"\bput\b"),
        (r"被.*了。", r"\bwas .* by\b"),
        (r"比.*得多", r"\bmuch .*than\b"),
        (r"没有.*那么", r"\bnot as .* as\b"),
        (r"越来越", r"\bgetting more and more\b"),
        (r"买的那", r"\bThe \w+ that .* bought\b"),
        (r"谁", r"^(Who|Whose)\b"),
        (r"什么？", r"^What\b"),
        (r"在哪里", r"^Where\b"),
        (r"什么时候", r"^When\b"),
        (r"为什么", r"^Why\b"),
        (r"怎么", r"^How\b"),
        (r"多少钱", r"^How much\b"),
        (r"几[个本条把]", r"^How many\b"),
        (r"几点", r"^What time\b"),
        (r"[一两三四五六][本条张双台辆只杯]", r"\b(an?|two|three|four|five|six)\b"),
        (r"[两三四五六][双副]", r" pairs of\b"),
        (r"[一二三四五六七八九]十.万", r"\bhundred .* thousand\b"),
        (r"百.*十万", r"\bpoint \w+ million\b"),
        (r"千.百万", r"\w+-\w+ million\b"),
        (r"亿.千万", r"\bhundred \w+ million\b"),
        (r"十.亿", r"\bpoint \w+ billion\b"),
        (r"^.*生日是.*月.*号", r"\bbirthday is [A-Z]\w+ \d+"),
        (r"\d{4}年.*出生", r"\bborn on \w+ \d+, \d{4}"),
        (r"今年.*岁", r"\byears old\b"),
        (r"块钱", r"\byuan\b"),
        (r"点半", r"\bhalf past\b"),
        (r"如果", r"^If\b"),
        (r"因为", r"^Because\b"),
        (r"虽然", r"^Although\b"),
        (r"一边.*一边", r"\bwhile \w+ing\b"),
    ],
)
def test_phenomenon_is_in_train_and_test(corpora, zh, en):
    for split, least in (("train", 10), ("test", 1)):
        found = sum(bool(re.search(zh, a) and re.search(en, b)) for a, b in corpora[split][:20_000])
        assert found >= least, (split, found)


def test_some_sentences():
    frames = {f.name: f for f in grammar.compiled()}

    def say(name, **fillers):
        frame = frames[name]
        found = []
        for slot, table in zip(frame.slots, frame.tables, strict=True):
            wanted = fillers[slot]
            noun, text = wanted if isinstance(wanted, tuple) else (None, wanted)
            found.append(
                next(
                    k
                    for k, w in enumerate(table)
                    if w.zh[""] == text and noun in (None, w.zh.get("noun"))
                )
            )
        return frame.render(tuple(found))

    assert say("did", who="我妈妈", recent="昨天", act=("书", "买"), few="三") == (
        "我妈妈昨天买了三本书。",
        "My mother bought three books yesterday.",
    )
    assert say("ba", who="他", change=("钥匙", "弄丢")) == (
        "他把那把钥匙弄丢了。",
        "He lost that key.",
    )
    assert say("bei", who="我", change=("杯子", "打碎")) == (
        "那个杯子被我打碎了。",
        "That cup was broken by me.",
    )
    assert say("habit", who="他们", scene="在家弹钢琴", habit="每天晚上") == (
        "他们每天晚上都在家弹钢琴。",
        "They play the piano at home every evening.",
    )
    assert say("nation_then", year="1990", nation="十二亿") == (
        "1990年，这个国家有十二亿人口。",
        "In 1990, this country had a population of one point two billion.",
    )


# --- Numerals -------------------------------------------------------------------------------------


def read_zh(text):
    """The value of a Chinese numeral, by an algorithm independent of the one under test."""
    units = {"十": 10, "百": 100, "千": 1_000}
    total = section = digit = 0
    for c in text.replace("两", "二"):
        if c in "零一二三四五六七八九":
            digit = "零一二三四五六七八九".index(c)
        elif c in units:
            section, digit = section + (digit or 1) * units[c], 0
        elif c == "万":
            total, section, digit = total + (section + digit) * 10**4, 0, 0
        else:
            total, section, digit = (total + section + digit) * 10**8, 0, 0
    return total + section + digit


def read_en(text):
    """The value of English number words."""
    small = (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen"
    )
    tens = "twenty thirty forty fifty sixty seventy eighty ninety"
    value = {w: n for n, w in enumerate(small.split())}
    value |= {w: 10 * n for n, w in enumerate(tens.split(), start=2)}
    total = part = tenths = 0
    words = iter(text.replace("-", " ").split())
    for word in words:
        if word == "point":
            tenths = value[next(words)]
        elif word == "hundred":
            part *= 100
        elif word in ("thousand", "million", "billion"):
            unit = {"thousand": 10**3, "million": 10**6, "billion": 10**9}[word]
            total, part, tenths = total + part * unit + tenths * unit // 10, 0, 0
        else:
            part += value[word]
    return total + part


NUMBERS = [
    *range(1_200),
    *(7**k + k for k in range(14)),
    *(m * 10**k for m in (1, 2, 10, 12, 35, 205) for k in range(9)),
]


def test_numerals_read_back():
    for n in NUMBERS:
        assert read_zh(numerals.zh_number(n)) == n, numerals.zh_number(n)
        assert read_en(numerals.en_number(n)) == n, numerals.en_number(n)


@pytest.mark.parametrize(
    ("n", "zh", "en"),
    [
        (0, "零", "zero"),
        (12, "十二", "twelve"),
        (20, "二十", "twenty"),
        (105, "一百零五", "one hundred five"),
        (112, "一百一十二", "one hundred twelve"),
        (2_020, "两千零二十", "two thousand twenty"),
        (10_500, "一万零五百", "ten thousand five hundred"),
        (22_000, "两万两千", "twenty-two thousand"),
        (350_000, "三十五万", "three hundred fifty thousand"),
        (1_200_000, "一百二十万", "one point two million"),
        (35_000_000, "三千五百万", "thirty-five million"),
        (120_000_000, "一亿两千万", "one hundred twenty million"),
        (1_400_000_000, "十四亿", "one point four billion"),
    ],
)
def test_numerals(n, zh, en):
    assert (numerals.zh_number(n), numerals.en_number(n)) == (zh, en)


@pytest.mark.parametrize(
    ("n", "en"),
    [
        *((1, "first"), (2, "second"), (3, "third"), (4, "fourth"), (5, "fifth"), (8, "eighth")),
        *((9, "ninth"), (12, "twelfth"), (20, "twentieth"), (21, "twenty-first")),
    ],
)
def test_ordinals(n, en):
    assert numerals.en_ordinal(n) == en


@pytest.mark.parametrize("n", [-1, 10**12])
def test_a_number_out_of_range_is_an_error(n):
    for spell in (numerals.zh_number, numerals.en_number):
        with pytest.raises(ValueError, match=f"number {n}"):
            spell(n)
    with pytest.raises(ValueError, match="ordinal 0: must be 1 to 99"):
        numerals.en_ordinal(0)
