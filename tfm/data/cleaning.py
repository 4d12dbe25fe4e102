"""Faults of sentence pairs: what makes a pair of a training corpus not worth learning from.

``faults`` finds them in one pass over a corpus, with 120 bytes of memory a pair while it runs.
``config.Cleaning`` says which of them leave a pair out; ``check-data`` reports all.
"""

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from tfm import config, storage
from tfm.data import corpus, languages
from tfm.data.characters import Texts, mix

FAULTS = (
    "exact duplicate", "near duplicate", "sentence of dev or test", "copied source",
    "length ratio", "wrong script", "noise",
)  # fmt: skip
"""In this order: a pair counts under the first that applies, and code i + 1 is FAULTS[i]."""

REPORTED = config.Cleaning(
    duplicates="near", held_out=True, copies=True, ratio=3.0, script=0.2, noise=0.3
)
"""What ``check-data`` looks for."""

_CHUNK = 8192  # Pairs looked at at a time.
_SHINGLE = 5  # Characters, of which MinHash compares sets (Broder 1997).
_BANDS, _ROWS = 12, 6  # At a similarity of 0.8, 97 % of pairs share a key; at 0.5, 17 %.
_SHORT = 4  # Letters up to which a copy may be a name or a number ...
_COMMON = 10  # ... and characters up to which a sentence of the test set may well occur elsewhere.


def faults(
    pairs: corpus.Pairs, data: config.Data, held_out: Iterable[corpus.Pairs] = ()
) -> np.ndarray:
    """The first fault of each pair: uint8 [pairs], 0 for none, else 1 + its index in ``FAULTS``.

    The result is cached on disk by corpora, languages and settings.

    Args:
      data: languages, and which faults to look for (``data.clean``).
      held_out: the dev and test sets.
    """
    held_out = list(held_out) if data.clean.held_out else []
    names = [pairs.fingerprint, data.source, data.target, *(p.fingerprint for p in held_out)]
    names.append(json.dumps(dataclasses.asdict(data.clean)))
    key = hashlib.sha256("\n".join(names).encode()).hexdigest()[:24]
    path = corpus.cache_dir(data) / "faults" / f"{key}.npy"
    if not path.exists():
        content = io.BytesIO()
        np.save(content, _faults(pairs, data, _hashes_of(held_out)))
        storage.write_atomically(path, content.getvalue())
    return np.load(path)


def _faults(pairs: corpus.Pairs, data: config.Data, known: np.ndarray) -> np.ndarray:
    clean, near = data.clean, data.clean.duplicates == "near"
    found = np.zeros(len(pairs), np.uint8)
    ratios = np.zeros(len(pairs), np.float32)
    hashes = np.zeros(len(pairs), np.uint64)
    bands = np.zeros((len(pairs) if near else 0, _BANDS), np.uint64)
    scripts = [languages.language(code).scripts for code in (data.source, data.target)]
    for start, chunk in _chunks(pairs):
        own = slice(start, start + len(chunk))
        sides = source, target = _sides(chunk)
        of_sides = np.stack([side.hashes() for side in sides])
        hashes[own] = mix(of_sides[0] ^ mix(of_sides[1]))
        ratios[own] = target.lengths / np.maximum(source.lengths, 1)
        codes = found[own]
        # From the last kind to the first: a pair is counted under the first one that applies.
        if clean.noise:
            _set(codes, "noise", np.maximum(source.noise(), target.noise()) > clean.noise)
        if clean.script:
            shares = [side.share(which) for side, which in zip(sides, scripts, strict=True)]
            _set(codes, "wrong script", np.minimum(*shares) < clean.script)
        if clean.copies:
            same = (of_sides[0] == of_sides[1]) & (source.letters() >= _SHORT)
            _set(codes, "copied source", same)
        if len(known):
            is_known = np.isin(of_sides, known)
            _set(codes, "sentence of dev or test", is_known[0] | is_known[1])
        if near:
            bands[own] = _band_keys(*_shingles(sides, of_sides))
    if clean.ratio:
        middle = float(np.median(ratios)) or 1.0
        odd = np.asarray((ratios > clean.ratio * middle) | (ratios * clean.ratio < middle))
        late = FAULTS.index("length ratio") + 1
        found[odd & ((found == 0) | (found > late))] = late
    if clean.duplicates != "keep":
        again = np.ones(len(pairs), bool)
        again[np.unique(hashes, return_index=True)[1]] = False
        if near:
            resemble = _near_duplicates(pairs, bands, clean.similarity, skip=again)
            found[resemble] = FAULTS.index("near duplicate") + 1
        found[again] = FAULTS.index("exact duplicate") + 1
    return found


def _sides(chunk: Sequence[tuple[str, str]]) -> tuple[Texts, Texts]:
    sources, targets = zip(*chunk, strict=True)
    return Texts(sources), Texts(targets)


def _set(codes: np.ndarray, fault: str, where: np.ndarray) -> None:
    codes[where] = FAULTS.index(fault) + 1


def _hashes_of(corpora: Iterable[corpus.Pairs]) -> np.ndarray:
    """Hashes of all sentences of corpora, of both sides, but of very short ones."""
    found = [np.zeros(0, np.uint64)]
    for pairs in corpora:
        for _, chunk in _chunks(pairs):
            found += [side.hashes()[side.lengths >= _COMMON] for side in _sides(chunk)]
    return np.unique(np.concatenate(found))


def _shingles(sides: tuple[Texts, Texts], of_sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shingles of both sides of each pair, one pair after another, and where each begins.

    A side that is too short for one has its own hash, so that there is something to compare.
    """
    hashes, owners = [], []
    for salt, side, whole in zip((1, 2), sides, of_sides, strict=True):
        found, pair = side.shingles(_SHINGLE)
        short = np.flatnonzero(np.bincount(pair, minlength=len(whole)) == 0)
        hashes.append(mix(np.concatenate([found, whole[short]]) + np.uint64(salt)))
        owners += [pair, short]
    joined = np.concatenate(owners)
    order = np.argsort(joined, kind="stable")
    counts = np.bincount(joined, minlength=of_sides.shape[1])
    return np.concatenate(hashes)[order], np.concatenate([[0], np.cumsum(counts)])


def _band_keys(hashes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Keys [pairs,bands] by MinHash: similar pairs share one or more of them."""
    import rensa

    rows = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, offsets.astype(np.uint64), _BANDS * _ROWS, 1
    ).to_rows()
    digests = np.array(rows, np.uint64).reshape(-1, _BANDS, _ROWS)
    keys = np.zeros(digests.shape[:2], np.uint64)
    for r in range(_ROWS):
        keys = mix(keys ^ digests[:, :, r])
    return keys


def _near_duplicates(
    pairs: corpus.Pairs, keys: np.ndarray, similarity: float, skip: np.ndarray
) -> np.ndarray:
    """Indices of pairs that resemble the first one with the same key, by their shingles."""
    firsts = np.empty_like(keys, np.int64)
    for band in range(_BANDS):
        _, first, inverse = np.unique(keys[:, band], return_index=True, return_inverse=True)
        firsts[:, band] = first[inverse]
    later = np.flatnonzero((firsts < np.arange(len(keys))[:, None]).any(axis=1) & ~skip)
    found = []
    for start in range(0, len(later), _CHUNK):
        part = later[start : start + _CHUNK]
        both = np.union1d(part, firsts[part])
        sides = _sides(pairs.__getitems__(both.tolist()))
        hashes, offsets = _shingles(sides, np.stack([side.hashes() for side in sides]))
        sets = {i: set(hashes[a:b].tolist()) for i, a, b in zip(
            both.tolist(), offsets, offsets[1:], strict=False)}  # fmt: skip
        for i in part.tolist():
            candidates = {j for j in firsts[i].tolist() if j < i}
            if any(_jaccard(sets[i], sets[j]) >= similarity for j in candidates):
                found.append(i)
    return np.array(found, np.int64)


def _jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b)


def _chunks(pairs: corpus.Pairs) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    for start in range(0, len(pairs), _CHUNK):
        yield start, pairs.__getitems__(range(start, min(start + _CHUNK, len(pairs))))
