"""Synthetic text: random sentences, and a corpus of any size that is computed, not stored."""

import dataclasses

import numpy as np

from tfm.data import scan, tokenizer

WORDS = "the cat sat on a mat while seven small dogs ran under old green trees near her house"
CHARACTERS = "我你他们在家看书喝茶去学校明天下雨了不想吃饭这是什么朋友"

_MIX = np.array([2654435761, 2246822519], np.uint64)  # Odd multipliers, one for each side.


def english(count, seed=0):
    """``count`` random sentences of 3 to 8 words."""
    rng = np.random.default_rng(seed)
    words = WORDS.split()
    return [" ".join(rng.choice(words, rng.integers(3, 9))) + "." for _ in range(count)]


def chinese(count, seed=0):
    """``count`` random sentences of 3 to 8 characters."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(CHARACTERS), rng.integers(3, 9))) + "。" for _ in range(count)]


def lengths(indices):
    """uint16 [len(indices), 2]: tokens of each side with EOS, 2 to 22."""
    mixed = (np.asarray(indices, np.uint64)[:, None] + 1) * _MIX
    return (2 + (mixed >> np.uint64(13)) % np.uint64(21)).astype(np.uint16)


@dataclasses.dataclass
class Pairs:
    """``count`` pairs; each text is its pair's index and its length. ``asked`` lists the reads."""

    count: int
    asked: list[int] = dataclasses.field(default_factory=list)
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    first_dropped: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def fingerprint(self):
        return f"synthetic {self.count}"

    def __len__(self):
        return self.count

    def __getitems__(self, indices):
        self.asked += indices
        sizes = lengths(indices).tolist()
        return [(f"{i} {s}", f"{i} {t}") for i, (s, t) in zip(indices, sizes, strict=True)]


class Numbers:
    """A tokenizer of such texts: each token before EOS is the pair's index + 4."""

    digest = "numbers"

    def encode_batch(self, texts):
        split = [map(int, text.split()) for text in texts]
        return [[4 + number] * (length - 1) + [tokenizer.EOS] for number, length in split]


def numbers(batch):
    """Indices of the pairs in a batch, row by row."""
    starts = (batch.source_segments > 0) & (batch.source_positions == 0)
    return (batch.source[starts] - 4).tolist()


def opened(count, data):
    """Arguments of ``stream.batches``: (pairs, scan, tokenizers, data), with ``asked`` empty."""
    pairs, tokenizers = Pairs(count), (Numbers(), Numbers())
    found = scan.scan(pairs, tokenizers, data)
    pairs.asked.clear()
    return pairs, found, tokenizers, data


class Listed:
    """A corpus in memory."""

    first_dropped = {"empty": 7}  # noqa: RUF012
    dropped = {"empty": 2}  # noqa: RUF012

    def __init__(self, texts, fingerprint="listed"):
        self.texts, self.fingerprint = texts, fingerprint

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, index):
        return self.texts[index]

    def __getitems__(self, indices):
        return [self.texts[i] for i in indices]
