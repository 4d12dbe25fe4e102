"""A corpus of any size that is not there: pair i is made from i, and so are its lengths."""

import dataclasses

import numpy as np

from tfm.data import scan, tokenizer

_MIX = np.array([2654435761, 2246822519], np.uint64)  # odd, one a side


def lengths(indices):
    """uint16 [len(indices), 2]: tokens of each side with EOS, 2 to 22."""
    mixed = (np.asarray(indices, np.uint64)[:, None] + 1) * _MIX
    return (2 + (mixed >> np.uint64(13)) % np.uint64(21)).astype(np.uint16)


@dataclasses.dataclass
class Pairs:
    """``count`` pairs; a text is its pair's number and its length. ``asked``: what was read."""

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
    """A tokenizer of such texts: every token but EOS is the pair's number, past the special ids."""

    digest = "numbers"

    def encode_batch(self, texts):
        split = [map(int, text.split()) for text in texts]
        return [[4 + number] * (length - 1) + [tokenizer.EOS] for number, length in split]


def numbers(batch, side="source"):
    """The pairs of a batch by number, row by row."""
    starts = (batch[f"{side}_segments"] > 0) & (batch[f"{side}_positions"] == 0)
    return (batch[side][starts] - 4).tolist()


def opened(count, data):
    """What ``stream.batches`` takes: (pairs, scan, tokenizers, data); nothing read yet."""
    pairs, tokenizers = Pairs(count), (Numbers(), Numbers())
    found = scan.scan(pairs, tokenizers, data)
    pairs.asked.clear()
    return pairs, found, tokenizers, data
