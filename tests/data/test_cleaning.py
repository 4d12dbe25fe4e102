"""Faults of pairs: planted ones are found where they are, and nowhere else."""

import dataclasses
import random

import numpy as np
import pytest
from synthetic import Listed

from tfm import config
from tfm.data import cleaning, scan
from tfm.data.characters import Texts
from tfm.data.cleaning import FAULTS, REPORTED

RNG = random.Random(1)
HAN = "天地人你我他的是不了在有个上大来和国中以要就出会可也对生能而子那得于着下自之年过发"
WORDS = ["water", "system", "open", "green", "letter", "across", "window", "because", "seven"]


def sentence():
    """A pair that has no fault."""
    count = RNG.randint(8, 20)
    han = "".join(RNG.choices(HAN, k=count))
    english = " ".join(f"{w}{RNG.randint(0, 999)}" for w in RNG.choices(WORDS, k=count // 3 + 1))
    return f"{han}。", f"{english.capitalize()}."


def planted():
    """Good pairs with 30 faults of each kind at known places, the dev set, and what is where."""
    equal = [sentence() for _ in range(150)]
    similar = [tuple("".join(x) for x in zip(*[sentence() for _ in range(6)], strict=True))
               for _ in range(150)]  # fmt: skip
    pairs = [*equal, *similar, *(sentence() for _ in range(1200))]
    dev = [sentence() for _ in range(50)]

    def near():
        source, target = RNG.choice(similar)
        return f"{source[:3]}一{source[3:]}", target

    def loud():
        source, target = RNG.choice(equal)
        return source.replace("。", "！"), target.upper()

    makers = [
        loud,
        near,
        lambda: (RNG.choice(dev)[0], sentence()[1]),
        lambda: (sentence()[1],) * 2,
        lambda: (sentence()[0], "Yes now."),
        lambda: (sentence()[0], sentence()[0] * 3),
        lambda: (sentence()[0], "☎☂☀♞" * 5 + " open system window"),
    ]
    truth = np.zeros(len(pairs), np.uint8)
    places = iter(RNG.sample(range(300, len(pairs)), 30 * len(makers)))
    for code, make in enumerate(makers, 1):
        for place in (next(places) for _ in range(30)):
            pairs[place], truth[place] = make(), code
    return Listed(pairs, "planted"), Listed(dev, "dev"), truth


@pytest.fixture
def data(tmp_path):
    return config.Data(source="zh", target="en", clean=REPORTED, cache_dir=str(tmp_path))


def test_planted_faults_are_found_and_hardly_anything_else(data):
    pairs, dev, truth = planted()
    found = cleaning.faults(pairs, data, [dev])
    for code, fault in enumerate(FAULTS, 1):
        true = truth == code
        recall = (found[true] == code).mean()
        precision = (truth[found == code] == code).mean()
        assert recall >= 0.9 and precision >= 0.9, (fault, recall, precision)
    assert np.array_equal(cleaning.faults(pairs, data, [dev]), found)  # from the cache


def test_the_first_of_equal_pairs_is_kept(data):
    pairs = [
        ("你好，世界。", "Hello, world!"),
        ("再见了朋友", "Good-bye my friend"),
        ("你好 世界", "HELLO world"),
    ]
    found = cleaning.faults(Listed(pairs, "three"), data)
    assert found.tolist() == [0, 0, 1]


def test_nothing_is_looked_for_unless_asked(data):
    off = dataclasses.replace(data, clean=config.Cleaning())
    assert not cleaning.faults(planted()[0], off, []).any()


@pytest.mark.parametrize("similarity", [0.8, 0.95])
def test_near_duplicates_are_those_of_brute_force(data, similarity):
    base = [sentence() for _ in range(150)]
    pairs = list(base)
    for i in range(150):
        source, target = base[i]
        at = RNG.randrange(len(source) - 3)
        pairs.append(
            (source[:at] + RNG.choice(HAN) + source[at + i % 2 :], target + " x" * (i % 3))
        )
    clean = config.Cleaning(duplicates="near", similarity=similarity)
    corpus = Listed(pairs, f"near {similarity}")
    found = cleaning.faults(corpus, dataclasses.replace(data, clean=clean)) != 0

    def shingles(text):
        text = "".join(ch for ch in text.casefold() if ch.isalnum())
        return {text[k : k + 5] for k in range(len(text) - 4)}

    sets = [{(0, x) for x in shingles(s)} | {(1, x) for x in shingles(t)} for s, t in pairs]
    best = [max((len(a & b) / len(a | b) for b in sets[:i]), default=0) for i, a in enumerate(sets)]
    surely = [hit for hit, b in zip(found, best, strict=True) if b >= similarity]
    assert len(surely) > 5 and np.mean(surely) > 0.9
    # Compared with the first that has the same key, not with all before it: never too many.
    assert all(b >= similarity - 0.02 for hit, b in zip(found, best, strict=True) if hit)


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [("Hello, World", "hello world", True), ("ＡＢＣ１２", "abc12", True), ("", "…", True),
     ("ab", "ba", False), ("aab", "ab", False), ("12", "21", False), ("你好", "好你", False)],
)  # fmt: skip
def test_hashes_ignore_case_width_and_punctuation_alone(a, b, equal):
    x, y = Texts([a, b, "other"]).hashes()[:2]
    assert (x == y) == equal


def test_counts_of_characters():
    texts = Texts(["", "API 参考", "cafÃ© â€™", "ok\x07", "12", "Привет"])
    assert texts.letters().tolist() == [0, 5, 5, 2, 0, 6]
    np.testing.assert_allclose(texts.share(("Latin",)), [1, 0.6, 1, 1, 1, 0])
    assert texts.share(()).tolist() == [1] * 6
    np.testing.assert_allclose(texts.noise(), [0, 0, 5 / 9, 1 / 3, 0, 0])


def test_a_scan_drops_what_has_a_fault(data, letters):
    pairs = Listed([("ab cd", "ab"), ("ab", "cd"), ("fed", "fed")], "scanned")
    faults = np.array([0, 3, 0], np.uint8)
    found = scan.scan(pairs, (letters, letters), data, faults)
    assert found.kept.tolist() == [0, 2] and found.dropped["cleaned"] == 1
    assert "1 cleaned" in found.report()
