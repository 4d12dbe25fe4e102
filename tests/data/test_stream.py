"""The data stream: complete epochs, exact resumption, dense rows, any number of hosts."""

import copy
import dataclasses
import itertools
import json
from collections import Counter

import numpy as np
import pytest
from synthetic import Listed

from tfm import config
from tfm.data import mixture, packing, scan, stream, tokenizer, vocabulary
from tfm.data.mixture import Order
from tfm.transformer import Batch

DATA = config.Data(rows=16, source_length=48, target_length=48, seed=3)
WORDS = "the cat sat on a mat while seven small dogs ran under old green trees"
PAIRS = 150  # A batch of 16 rows holds some 90 of them, so epochs are short.


def make_texts(count, seed=0):
    """Pair i starts with its number; lengths differ by pair and side, as in real text."""
    rng = np.random.default_rng(seed)
    words = WORDS.split()
    sides = []
    for ratio in (0.8, 1.0):
        sizes = np.clip(rng.lognormal(1.2, 0.6, count) * ratio, 1, 12).astype(int)
        sides.append([f"{i} {' '.join(rng.choice(words, n))}" for i, n in enumerate(sizes)])
    return list(zip(*sides, strict=True))


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "joint.model"
    settings = config.Tokenizer(source_size=330)
    texts = [side for pair in make_texts(2000) for side in pair]
    model = vocabulary.train(texts, settings, "en", 330, path)
    return model, model


@pytest.fixture
def opened(tokenizers, tmp_path):
    """``opened(count, **data)``: (pairs, scan, tokenizers, data), ready for ``stream.batches``."""

    def open_(count=PAIRS, **changes):
        data = dataclasses.replace(DATA, cache_dir=str(tmp_path), **changes)
        pairs = Listed(make_texts(count), f"listed {count}")
        return pairs, scan.scan(pairs, tokenizers, data), tokenizers, data

    return open_


def segments(batch, side="source"):
    """Yields every sentence of a batch as ids, row by row."""
    for ids, numbers in zip(getattr(batch, side), getattr(batch, f"{side}_segments"), strict=True):
        for number in range(1, numbers.max() + 1):
            yield ids[numbers == number].tolist()


def seen(batches, model, side="source"):
    """The numbers with which the texts start."""
    return [int(model.decode(ids).split()[0]) for batch in batches for ids in segments(batch, side)]


def equal(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def joined(parts):
    """The rows of several batches as one batch."""
    return Batch(*map(np.concatenate, zip(*parts, strict=True)))


def take(iterator, count):
    return list(itertools.islice(iterator, count))


# --- the batches themselves ---------------------------------------------------------------------


def test_layout_of_batches(opened):
    pairs, found, tokenizers, data = opened()
    batch = next(stream.batches(pairs, found, tokenizers, data))
    shapes = {name: (array.shape, array.dtype) for name, array in batch._asdict().items()}
    assert shapes == dict.fromkeys(shapes, ((16, 48), np.dtype(np.int32)))
    assert len(shapes) == 7
    both = zip(segments(batch), segments(batch, "target"), strict=True)
    inputs = [
        row[numbers == n].tolist()
        for row, numbers in zip(batch.target_input, batch.target_segments, strict=True)
        for n in range(1, numbers.max() + 1)
    ]
    for (source, target), target_input in zip(both, inputs, strict=True):
        text = pairs[int(tokenizers[0].decode(source).split()[0])]
        assert (source, target) == (tokenizers[0].encode(text[0]), tokenizers[1].encode(text[1]))
        assert target_input == [tokenizer.BOS, *target[:-1]]
    for side in ("source", "target"):
        ids, numbers, positions = (
            getattr(batch, f"{side}{part}") for part in ("", "_segments", "_positions")
        )
        assert ((numbers == 0) == (ids == tokenizer.PAD)).all()
        for row, row_positions in zip(numbers, positions, strict=True):
            used = row[row > 0]
            assert (row[: len(used)] == used).all() and (np.diff(used) >= 0).all()
            expected = [np.arange((row == n).sum()) for n in range(1, row.max() + 1)]
            assert row_positions.tolist() == [*np.concatenate(expected), *[0] * (row == 0).sum()]
    assert (batch.target_input[batch.target_segments == 0] == tokenizer.PAD).all()


def test_choose_finds_the_fullest_row():
    """Compared with trying every subset."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        limit = rng.integers(5, 30, 2)
        sizes = np.minimum(rng.integers(1, 12, (rng.integers(1, 9), 2)), limit)
        subsets = [
            [0, *rest]
            for k in range(len(sizes))
            for rest in itertools.combinations(range(1, len(sizes)), k)
        ]
        best = max(sizes[s].sum() for s in subsets if (sizes[s].sum(0) <= limit).all())
        chosen = packing.choose([tuple(map(int, size)) for size in sizes], *map(int, limit))
        assert chosen == sorted(set(chosen)) and chosen[0] == 0
        assert (sizes[chosen].sum(0) <= limit).all()
        assert sizes[chosen].sum() == best


def test_choose_fills_long_rows_and_takes_the_oldest():
    rng = np.random.default_rng(0)
    sizes = [tuple(map(int, size)) for size in rng.integers(2, 40, (60, 2))]
    chosen = packing.choose(sizes, 600, 600)
    assert chosen[:20] == [*range(20)]
    fill = np.array(sizes)[chosen].sum(0)
    assert (fill <= 600).all() and fill.max() == 600
    assert packing.choose([(40, 40), (7, 7)], 40, 40) == [0]


@pytest.mark.parametrize("limits", [(48, 48), (0, 48), (48, 0), (0, 256)])
def test_density(opened, limits):
    pairs, found, tokenizers, data = opened(2000, source_length=limits[0], target_length=limits[1])
    batches = take(stream.batches(pairs, found, tokenizers, data), 12)
    source, target = (
        np.mean([(getattr(batch, f"{side}_segments") > 0).mean() for batch in batches])
        for side in ("source", "target")
    )
    assert max(source, target) >= 0.99
    if 0 in limits:  # The other length is chosen so that both sides fill up.
        cells = found.source_length, found.target_length
        assert np.average([source, target], weights=cells) >= 0.95
        assert all(length % 8 == 0 for length in cells)


# --- every pair, every epoch --------------------------------------------------------------------


def test_every_pair_once_an_epoch(opened):
    pairs, found, tokenizers, data = opened()
    iterator = stream.batches(pairs, found, tokenizers, data)
    counts = Counter(seen(take(iterator, 40), tokenizers[0]))
    state = iterator.get_state()
    waiting = [e for _, pool in state["lanes"].values() for e in pool]
    # Each lane has read its elements without gap: read = returned + waiting.
    read = sorted(
        int(lane) + 16 * k for lane, (count, _) in state["lanes"].items() for k in range(count)
    )
    order = Order([PAIRS], [1.0], data.seed)
    expected = Counter(order.locate(e)[1] for e in read)
    expected.subtract(order.locate(e)[1] for e in waiting)
    assert counts == +expected
    assert sum(counts.values()) > 15 * PAIRS


@pytest.mark.parametrize("table", [1 << 16, 0])
def test_each_epoch_is_a_new_permutation(monkeypatch, table):
    monkeypatch.setattr(mixture, "_MAX_TABLE", table)
    order = Order([101], [1.0], 5)
    epochs = [[order.locate(e * 101 + i) for i in range(101)] for e in range(4)]
    for number, epoch in enumerate(epochs):
        assert {entry[0] for entry in epoch} == {number}
        assert sorted(entry[1] for entry in epoch) == [*range(101)]
    orders = [tuple(entry[1] for entry in epoch) for epoch in epochs]
    assert len(set(orders)) == 4 and tuple(range(101)) not in orders
    # Another seed is another sequence, not the same one an epoch later.
    assert tuple(Order([101], [1.0], 6).locate(i)[1] for i in range(101)) not in orders
    assert Order([1], [1.0], 0).locate(2) == (2, 0)


def test_no_pair_waits_for_long(opened):
    """The oldest pair is always packed next, so all waiting pairs are recent."""
    pairs, found, tokenizers, data = opened()
    iterator = stream.batches(pairs, found, tokenizers, data)
    for _ in range(20):
        next(iterator)
        for lane, (count, pool) in iterator.get_state()["lanes"].items():
            ages = [count - (element - int(lane)) // 16 for element in pool]
            assert max(ages, default=0) < 300


def test_same_seed_same_stream_other_seed_another(opened):
    first = take(stream.batches(*opened()), 5)
    assert all(map(equal, first, take(stream.batches(*opened(), prefetch=0), 5)))
    assert not equal(first[0], next(stream.batches(*opened(seed=4))))


def test_eval_has_each_pair_once_roughly_in_order(opened):
    pairs, found, tokenizers, data = opened()
    batches = list(stream.eval_batches(pairs, found, tokenizers, data))
    order = seen(batches, tokenizers[0])
    assert sorted(order) == [*range(PAIRS)] == sorted(seen(batches, tokenizers[1], "target"))
    assert np.abs(np.array(order) - np.arange(PAIRS)).max() < 60
    assert {batch.source.shape for batch in batches} == {(16, 48)}
    assert (batches[-1].source[-1] == 0).all()
    halves = [
        list(stream.eval_batches(pairs, found, tokenizers, data, host=h, hosts=2)) for h in (0, 1)
    ]
    for whole, *parts in zip(batches, *halves, strict=True):
        assert equal(whole, joined(parts))


# --- hosts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("hosts", "rows"), [(1, 16), (2, 16), (4, 16), (8, 16), (4, 128)])
def test_hosts_together_make_the_same_batches(opened, hosts, rows):
    arguments = opened(rows=rows)
    whole = take(stream.batches(*arguments), 6)
    shares = [take(stream.batches(*arguments, host=h, hosts=hosts), 6) for h in range(hosts)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert {part.source.shape[0] for part in parts} == {rows // hosts}
        assert equal(batch, joined(parts))


def test_a_host_reads_only_its_lanes(opened, monkeypatch):
    pairs, found, tokenizers, data = opened(2000)
    asked, read = [], Listed.__getitems__
    monkeypatch.setattr(Listed, "__getitems__", lambda self, i: asked.extend(i) or read(self, i))
    next(stream.batches(pairs, found, tokenizers, data, host=3, hosts=4, prefetch=0))
    order = Order([2000], [1.0], data.seed)
    own = {order.locate(e)[1] for e in range(2000) if e % 16 >= 12}
    assert asked and set(asked) <= own


@pytest.mark.parametrize(("rows", "hosts"), [(16, 3), (20, 8), (31, 2), (256, 128)])
def test_rows_that_cannot_be_divided_among_hosts_are_an_error(opened, rows, hosts):
    with pytest.raises(ValueError, match=f"data.rows {rows}: {hosts} hosts cannot share them"):
        stream.batches(*opened(rows=rows), hosts=hosts)


def test_the_number_of_hosts_may_change_in_mid_run(opened):
    arguments = opened()
    whole = stream.batches(*arguments)
    take(whole, 4)
    four = [stream.batches(*arguments, host=h, hosts=4) for h in range(4)]
    for part in four:
        take(part, 4)
    state = stream.merge([part.get_state() for part in four])
    assert state == whole.get_state()
    two = [stream.batches(*arguments, host=h, hosts=2) for h in range(2)]
    for part in two:
        part.set_state(state)
    batch, *parts = next(whole), *map(next, two)
    assert equal(batch, joined(parts))
    next(four[0])
    with pytest.raises(ValueError, match="not of one stream at one batch"):
        stream.merge([part.get_state() for part in four])


# --- position -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", [0, 1, 5])
@pytest.mark.parametrize("nbest", [1, 6])
def test_resume_is_exact(opened, prefetch, nbest):
    settings = {"nbest": nbest, "alpha": 0.2}
    arguments = opened(rows=8)
    expected = take(stream.batches(*arguments, **settings, prefetch=0), 14)
    iterator = stream.batches(*arguments, **settings, prefetch=prefetch)
    states = [iterator.get_state()]
    for _ in range(10):
        next(iterator)
        states.append(json.loads(json.dumps(iterator.get_state())))
    for at in np.random.default_rng(prefetch).permutation(11)[:4]:
        fresh = stream.batches(*arguments, **settings, prefetch=prefetch)
        take(fresh, int(at) % 3)  # Going back and forth in a used iterator must work, too.
        fresh.set_state(copy.deepcopy(states[at]))
        assert fresh.get_state() == states[at]
        assert all(map(equal, expected[at : at + 4], take(fresh, 4)))
    iterator.close()


def test_state_is_small(opened):
    iterator = stream.batches(*opened(2000, rows=256))
    take(iterator, 3)
    assert len(json.dumps(iterator.get_state())) < 20_000


@pytest.mark.parametrize(
    "change", [{"seed": 9}, {"rows": 32}, {"target_length": 56}, {"count": PAIRS + 1}]
)
def test_a_state_of_another_stream_is_refused(opened, change):
    state = stream.batches(*opened()).get_state()
    with pytest.raises(ValueError, match="it belongs to another corpus, tokenizer or data config"):
        stream.batches(*opened(**change)).set_state(state)


def test_a_state_of_other_lanes_is_refused(opened):
    state = stream.batches(*opened(), host=1, hosts=2).get_state()
    with pytest.raises(ValueError, match="it has no lane 0; merge the positions of all hosts"):
        stream.batches(*opened(), host=0, hosts=2).set_state(state)


# --- subword sampling ---------------------------------------------------------------------------


def test_sampling_is_fresh_each_epoch_and_keeps_the_text(opened):
    pairs, found, tokenizers, data = opened(100)
    batches = take(stream.batches(pairs, found, tokenizers, data, nbest=8, alpha=0.1), 10)
    drawn = {}
    for batch in batches:
        for source, target in zip(segments(batch), segments(batch, "target"), strict=True):
            texts = tuple(tokenizers[0].decode(side) for side in (source, target))
            number = int(texts[0].split()[0])
            assert texts == pairs[number]
            drawn.setdefault(number, []).append(tuple(source))
    assert len(drawn) == 100
    several = [len(set(draws)) > 1 for draws in drawn.values() if len(draws) >= 4]
    assert len(several) > 80 and np.mean(several) > 0.9
    again = take(stream.batches(*opened(100), nbest=8, alpha=0.1, prefetch=0), 5)
    assert all(map(equal, batches, again))


def test_a_sample_that_does_not_fit_is_replaced_by_the_best_segmentation(opened, tokenizers):
    longest = max(len(tokenizers[0].encode(side)) for pair in make_texts(PAIRS) for side in pair)

    def drawn(length):
        pairs, found, _, data = opened(source_length=length, target_length=length)
        order = Order([len(found.kept)], [1.0], data.seed)
        reader = stream._Reader(
            pairs, found, tokenizers, order, data.clean, data.seed, nbest=32, alpha=0.0
        )
        return [side for waiting in reader.read(range(3 * PAIRS)) for side in waiting.ids]

    replaced = 0
    for roomy, tight in zip(drawn(longest + 30), drawn(longest), strict=True):
        if len(roomy) <= longest:
            assert tight == roomy
        else:
            assert tight == tokenizers[0].encode(tokenizers[0].decode(roomy))
            replaced += 1
    assert replaced > 0


# --- the scan -----------------------------------------------------------------------------------


def test_scan_counts_what_it_drops(tokenizers, tmp_path):
    texts = [("a cat", "the dog"), ("", "dogs"), ("x " * 50, "y"), ("y", "x " * 50), ("seven", " ")]
    data = dataclasses.replace(DATA, cache_dir=str(tmp_path))
    found = scan.scan(Listed(texts), tokenizers, data)
    assert found.kept.tolist() == [0]
    assert found.dropped == {"empty": 2, "blank": 2, "too long": 2}
    assert found.source_tokens == len(tokenizers[0].encode("a cat"))
    assert found.target_tokens == len(tokenizers[1].encode("the dog"))
    report = found.report()
    for part in (
        "7 pairs: 1 kept",
        "2 empty (first: line 7)",
        "2 blank",
        "2 too long (over 48/48 tokens)",
        "rows of 48/48",
    ):
        assert part in report
    assert "\n" not in report


def test_scan_is_cached_and_reused_for_other_row_lengths(opened, tokenizers, monkeypatch):
    pairs, found, _, data = opened()
    monkeypatch.setattr(Listed, "__getitems__", lambda *_: pytest.fail("read the corpus again"))
    again = scan.scan(pairs, tokenizers, data)
    assert (again.kept == found.kept).all() and again.report() == found.report()
    tight = scan.scan(pairs, tokenizers, dataclasses.replace(data, target_length=8))
    fits = [i for i, (_, t) in enumerate(pairs.texts) if len(tokenizers[1].encode(t)) <= 8]
    assert tight.kept.tolist() == fits
    assert tight.dropped["too long"] == PAIRS - len(fits)


def test_scan_memory_is_four_bytes_a_pair(opened):
    _, found, *_ = opened(2000)
    held = sum(a.nbytes for a in vars(found).values() if isinstance(a, np.ndarray))
    mapped = found.lengths.nbytes if isinstance(found.lengths, np.memmap) else 0
    assert held - mapped == 4 * 2000
    assert found.kept.dtype == np.uint32


def test_scan_errors(opened):
    with pytest.raises(ValueError, match="at most one may be 0"):
        opened(source_length=0, target_length=0)
    with pytest.raises(ValueError, match="none of 150 pairs fits rows of 2/48 tokens"):
        opened(source_length=2)


def test_resolved_lengths_go_back_into_the_config(opened):
    _, found, _, data = opened(source_length=0)
    assert data.source_length == 0
    fixed = found.resolved(data)
    assert (fixed.source_length, fixed.target_length) == (found.source_length, 48)
    assert dataclasses.replace(fixed, source_length=0) == data
