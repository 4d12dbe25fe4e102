import numpy as np
import pytest

from tfm.data.tokenizer import EOS
from tfm.translator import buckets


@pytest.mark.parametrize("limit", [5, 100, 512, 1000])
def test_a_sentence_fits_its_bucket_and_longer_ones_have_no_shorter_bucket(limit):
    pieces = range(1, limit + 1)
    lengths = [buckets.length(n, limit) for n in pieces]
    assert all(n <= length <= limit for n, length in zip(pieces, lengths, strict=True))
    assert lengths == sorted(lengths)


def test_the_lengths_are_few_and_padding_is_less_than_a_half():
    pieces = range(1, 4097)
    lengths = [buckets.length(n, 4096) for n in pieces]
    assert sorted(set(lengths))[:8] == [8, 16, 24, 32, 48, 64, 96, 128]
    assert len(set(lengths)) <= 2 * np.log2(4096)
    assert all(length < 2 * n for n, length in zip(pieces, lengths, strict=True) if n > 8)


@pytest.mark.parametrize("limit", [5, 9, 100])
def test_all_lengths_up_to_the_limit(limit):
    assert buckets.lengths(limit) == sorted({buckets.length(n, limit) for n in range(1, limit + 1)})
    assert buckets.lengths(limit)[-1] == limit


@pytest.mark.parametrize("shards", [2, 3, 8])
def test_a_batch_is_a_multiple_of_the_devices_that_share_it(shards):
    for n in range(1, 51):
        plain, shared = buckets.count(n, 50), buckets.count(n, 50, shards)
        assert shared % shards == 0 and plain <= shared < plain + shards


@pytest.mark.parametrize("batch_size", [1, 3, 16, 50, 64])
def test_a_batch_holds_its_sentences_in_one_of_few_sizes(batch_size):
    sentences = range(1, batch_size + 1)
    counts = [buckets.count(n, batch_size) for n in sentences]
    assert all(n <= count <= batch_size for n, count in zip(sentences, counts, strict=True))
    assert counts == sorted(counts) and counts[0] == 1
    assert set(counts) <= {1, 4, 16, 64, batch_size}


def test_counts_of_powers_of_four_are_their_own():
    assert [buckets.count(n, 5000) for n in (1, 4, 16, 64, 256, 1024, 4096)] == [
        *(1, 4, 16, 64, 256, 1024, 4096)
    ]


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_groups_hold_sentences_of_one_size(rng, batch_size):
    sizes = [(int(s), int(t)) for s, t in rng.integers(1, 4, (60, 2))]
    groups = buckets.group(sizes, batch_size)
    assert sorted(i for _, indices in groups for i in indices) == list(range(60))
    for size, indices in groups:
        assert {sizes[i] for i in indices} == {size}
        assert 1 <= len(indices) <= batch_size
    full = sum(len(indices) == batch_size for _, indices in groups)
    assert len(groups) - full <= len(set(sizes))  # at most one a size is not full
    assert buckets.group([], batch_size) == []


def test_rows_are_padded_behind_and_below():
    padded = buckets.pad([[5, 6, 7], [], [9]], count=4, length=3)
    assert padded.dtype == np.int32
    np.testing.assert_array_equal(padded, [[5, 6, 7], [0, 0, 0], [9, 0, 0], [0, 0, 0]])


def test_ids_that_do_not_fit_are_cropped_and_still_end_with_eos():
    ids = [*range(10, 20), EOS]
    for limit in range(1, len(ids)):
        cropped = buckets.crop(ids, limit)
        assert cropped == [*ids[: limit - 1], EOS] and len(cropped) == limit
    assert buckets.crop(ids, len(ids)) == buckets.crop(ids, 99) == ids
