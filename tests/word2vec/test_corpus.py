"""Streams of ids, the batches made from them, and Huffman codes."""

import heapq
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tfm.word2vec import corpus, huffman
from tfm.word2vec.model import Config, learning_rate

SENTENCES = [["a", "b", "a"], [], ["c", "a", "rare", "b", "c"], ["a"], ["b", "c", "a", "b"]] * 40
R = 2
C = Config(window=2, centres=4, tiles=3, samples=6, min_count=41, subsample=0, epochs=2, replicas=R)


@pytest.fixture
def stream(tmp_path):
    vocabulary = corpus.count(SENTENCES, C.min_count)
    return corpus.write(SENTENCES, vocabulary, tmp_path / "ids"), vocabulary


def test_words_are_sorted_by_count_and_rare_ones_left_out():
    vocabulary = corpus.count(SENTENCES, 41)
    assert vocabulary.words == ("a", "b", "c")
    assert vocabulary.counts_V.tolist() == [200, 160, 120]
    with pytest.raises(ValueError, match="4 different words 1 occur at least 200 times"):
        corpus.count(SENTENCES, 200)


def test_the_stream_is_a_file_of_ids_and_sentence_ends(stream):
    ids, _ = stream
    assert isinstance(ids, np.memmap)
    assert ids[:11].tolist() == [0, 1, 0, -1, -1, 2, 0, 1, 2, -1, 0]


def test_every_word_is_a_centre_once_an_epoch_in_order(stream):
    ids, vocabulary = stream
    W, found, shares = C.window, [], []
    for share, batch in corpus.batches(C, ids, vocabulary.counts_V, 2):
        assert batch.words_BS.shape == (R, 2, C.tiles, C.centres + 2 * W)
        centres = batch.words_BS[..., W:-W]
        found += centres[batch.sentences_BS[..., W:-W] > 0].tolist()
        shares.append(share)
    assert found == 2 * [i for i in ids if i >= 0]
    assert shares == sorted(shares) and shares[0] > 0 and shares[-1] == 1


def test_neighbours_in_a_tile_are_neighbours_in_the_text(stream):
    ids, vocabulary = stream
    W, seen = C.window, Counter()
    text, number = [], 1
    for i in ids:
        number += i < 0
        if i >= 0:
            text.append((int(i), number))
    for _, batch in corpus.batches(replace(C, epochs=1), ids, vocabulary.counts_V, 1):
        tiles = (np.concatenate(x[:, 0]) for x in (batch.words_BS, batch.sentences_BS))
        for words, sentences in zip(*tiles, strict=True):
            for at in range(W, W + C.centres):
                if sentences[at]:
                    seen[
                        words[at], words[at - 1] if sentences[at - 1] == sentences[at] else -1
                    ] += 1
    want = Counter(
        (word, text[i - 1][0] if i and text[i - 1][1] == number else -1)
        for i, (word, number) in enumerate(text)
    )
    rounds = -(-len(text) // (R * C.tiles * C.centres))  # a window ends where its round ends
    assert sum((want - seen).values()) <= rounds and seen.total() == want.total()


def test_windows_negatives_and_rates(stream):
    ids, vocabulary = stream
    batches = [
        b for _, b in corpus.batches(replace(C, epochs=40, replicas=1), ids, vocabulary.counts_V, 8)
    ]
    reach = np.concatenate([b.windows_BT.ravel() for b in batches])
    assert np.allclose(np.bincount(reach)[1:] / len(reach), 1 / C.window, atol=0.02)
    drawn = np.concatenate([b.negatives_BJ.ravel() for b in batches])
    want = vocabulary.counts_V**0.75 / (vocabulary.counts_V**0.75).sum()
    assert np.allclose(np.bincount(drawn) / len(drawn), want, atol=0.02)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("length", [8, 100, 10_000])
def test_the_learning_rate_falls_evenly_over_the_text_whatever_the_number_of_rounds(
    stream, length, count
):
    ids, vocabulary = stream
    c = replace(C, epochs=40, replicas=count)
    rates, words = [], []
    for _, b in corpus.batches(c, ids, vocabulary.counts_V, length):
        real_RM = (b.sentences_BS[..., c.window : -c.window] > 0).sum(axis=(2, 3))
        assert (b.learning_rate == b.learning_rate[0]).all() and np.ptp(real_RM.sum(axis=1)) <= 1
        rates += b.learning_rate[0][real_RM[0] > 0].tolist()
        words += real_RM.sum(axis=0)[real_RM[0] > 0].tolist()
    before = np.cumsum([0, *words[:-1]]) / sum(words)
    assert np.allclose(
        rates, learning_rate(c) * np.maximum(1e-3, 1 - before), atol=0.01 * learning_rate(c)
    )


def test_frequent_words_are_subsampled(stream):
    ids, vocabulary = stream
    c = replace(C, subsample=0.05, epochs=30)
    kept = Counter()
    for _, batch in corpus.batches(c, ids, vocabulary.counts_V, 2):
        W = c.window
        centres = batch.words_BS[..., W:-W][batch.sentences_BS[..., W:-W] > 0]
        kept.update(centres.tolist())
    f = vocabulary.counts_V / vocabulary.counts_V.sum()
    want = np.sqrt(0.05 / f) + 0.05 / f
    got = np.array([kept[i] for i in range(3)]) / (30 * vocabulary.counts_V)
    assert np.allclose(got, want, atol=0.03)


def test_the_rarest_word_can_be_a_negative_sample():
    table = corpus.negative_table(np.array([10**9, 10**6, 1]), 0.75)
    assert set(np.unique(table)) == {0, 1, 2}
    shares = np.bincount(table) / len(table)
    assert np.allclose(shares[1] / shares[0], 1e-3**0.75, rtol=0.01)


def test_huffman_codes_are_prefix_free_and_shortest(rng):
    counts = np.sort(rng.integers(1, 1000, 50))[::-1]
    paths = huffman.paths(counts)
    found = []
    for nodes, codes in zip(paths.nodes_VL, paths.codes_VL, strict=True):
        real = codes >= 0
        found.append(dict(zip(nodes[real].tolist(), codes[real].tolist(), strict=True)))
    root = set.intersection(*(set(path) for path in found))
    assert root == {len(counts) - 2}
    assert set().union(*found) == set(range(len(counts) - 1))
    for i, a in enumerate(found):  # the codes of any two words differ at a common node
        assert all(any(a[n] != b[n] for n in a.keys() & b.keys()) for b in found[:i])
    heap, cost = counts.tolist(), 0  # the cost of the best code is the sum of all merges
    heapq.heapify(heap)
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        cost += merged
        heapq.heappush(heap, merged)
    assert sum(n * len(path) for n, path in zip(counts, found, strict=True)) == cost


def test_huffman_needs_two_words():
    with pytest.raises(ValueError, match="at least two words, got 1"):
        huffman.paths([3])
