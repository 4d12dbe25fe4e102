"""Memory is at most 8 bytes a pair of the corpus, and does not grow while it is read."""

import concurrent.futures
import itertools
import multiprocessing
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import synthetic

from tfm import config
from tfm.data import scan, stream, tokenizer

MIB = 1 << 20


def settings(folder):
    return config.Data(rows=64, source_length=64, target_length=64, cache_dir=str(folder))


class Same:
    """A corpus of equal pairs, and its tokenizer; neither takes memory."""

    fingerprint = digest = "same"

    def __len__(self):
        return 1_000_000

    def __getitems__(self, indices):
        return [("a", "b")] * len(indices)

    def encode_batch(self, texts):
        return [[4, 5, tokenizer.EOS]] * len(texts)


def test_counting_tokens_takes_four_bytes_of_memory_a_pair(tmp_path):
    same = Same()
    tracemalloc.start()
    try:
        lengths = scan._lengths(same, (same, same), settings(tmp_path))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lengths.shape == (len(same), 2) and (lengths == 3).all()
    assert held < MIB, "the table is mapped from its file"
    assert peak < 4 * len(same) + 2 * MIB


def _resident(field="VmRSS"):
    """Resident memory of this process in bytes, mapped files included; VmHWM is its peak."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)[1]) << 10


def _read_through(folder, count):
    """Scans ``count`` pairs whose lengths are known, then reads 1,000 batches.

    Returns:
      Growth of the resident memory in bytes after the scan, after 100 and after 1,000 batches, and
      its peak; then the smallest and the largest pair number seen.
    """
    lengths = np.load(folder / "lengths.npy", mmap_mode="r")
    scan._lengths = lambda *_: lengths  # In this process only; tokenising would take hours.
    before = _resident()
    pairs, found, tokenizers, data = synthetic.opened(count, settings(folder))
    assert len(found.kept) == count
    held = [_resident()]
    batches = stream.batches(pairs, found, tokenizers, data)
    seen = set()
    for stretch in (100, 900):
        for batch in itertools.islice(batches, stretch):
            numbers = synthetic.numbers(batch)
            seen |= {min(numbers), max(numbers)}
            pairs.asked.clear()
        held.append(_resident())
    batches.close()
    held.append(_resident("VmHWM"))
    return [memory - before for memory in held], min(seen), max(seen)


@pytest.mark.slow
def test_memory_is_flat_over_100_million_pairs(tmp_path):
    """Covers scan, shuffle and stream; the table of lengths is computed without tokenising."""
    count = 100_000_000
    table = np.lib.format.open_memmap(tmp_path / "lengths.npy", "w+", np.uint16, (count, 2))
    for start in range(0, count, MIB):
        table[start : start + MIB] = synthetic.lengths(range(start, min(start + MIB, count)))
    del table
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
        held, first, last = pool.submit(_read_through, tmp_path, count).result()
    (tmp_path / "lengths.npy").unlink()
    scanned, early, late, most = held
    # 4 bytes a pair are the indices, 4 the mapped file, which the system may take back.
    assert most < 8 * count + 64 * MIB, held
    assert early - scanned < 32 * MIB, held  # Batches made ahead, and libraries on first use.
    assert late - early < 8 * MIB, held
    assert first < count / 1000 and last > count - count / 1000
