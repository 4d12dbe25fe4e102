"""Several corpora in one stream: shares, whole epochs of each, tags, exact resumption."""

import collections
import dataclasses
import itertools
import json

import numpy as np
import pytest
import tiny

from tfm import config
from tfm.config import Corpus
from tfm.data import mixture, scan, stream, vocabulary
from tfm.data.mixture import PERIOD, Mixture, Order
from tfm.training import loop

DATA = config.Data(rows=16, source_length=48, target_length=48, seed=3)
WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "seven", "small"]


class Named:
    """Pairs that say which corpus they are of."""

    dropped = {"empty": 2}  # noqa: RUF012
    first_dropped = {"empty": 7}  # noqa: RUF012

    def __init__(self, name, count):
        self.name, self.count, self.fingerprint = name, count, f"{name} {count}"

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        text = f"{self.name} {index} {' '.join(WORDS[: 1 + index % 9])}"
        return text, text

    def __getitems__(self, indices):
        return [self[int(i)] for i in indices]


def mixed(counts=(300, 60, 10), weights=(1.0, 1.0, 1.0), tags=("", "<bt>", ""), temperature=1.0):
    parts = tuple(map(Named, "xyz", counts))
    corpora = tuple(map(Corpus, [("f",)] * 3, weights, tags))
    return Mixture(parts, corpora, temperature)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    texts = [side for pair in mixed().__getitems__(range(370)) for side in pair]
    spec = config.Tokenizer(source_size=310)
    path = tmp_path_factory.mktemp("tokenizer") / "joint.model"
    model = vocabulary.train(texts, spec, "en", 310, path, tags=["<bt>"])
    return model, model


def opened(pairs, tokenizers, tmp_path, **arguments):
    data = dataclasses.replace(DATA, cache_dir=str(tmp_path))
    found = scan.scan(pairs, tokenizers, data)
    return stream.batches(pairs, found, tokenizers, data, prefetch=0, **arguments)


def sources(batch, tokenizer):
    """The source texts of a batch."""
    for ids, segments in zip(batch.source, batch.source_segments, strict=True):
        for number in range(1, segments.max() + 1):
            yield tokenizer.decode(ids[segments == number])


def test_its_pairs_are_those_of_the_corpora_with_their_tags():
    pairs = mixed()
    assert len(pairs) == 370 and pairs.dropped == {"empty": 6}
    assert pairs[0][0].startswith("x 0 ") and pairs[300] == ("<bt> y 0 the", "y 0 the")
    asked = [369, 0, 300, 299, 360, 0]
    assert pairs.__getitems__(asked) == [pairs[i] for i in asked]
    with pytest.raises(IndexError, match="pair 370 of 370"):
        pairs[370]
    assert mixed(tags=("", "", "")).fingerprint != pairs.fingerprint == mixed().fingerprint


def test_a_tag_is_one_piece_of_the_source_and_nowhere_else(tokenizers):
    source, _ = tokenizers
    assert source.pieces("<bt> the cat")[0] == "▁<bt>"
    assert source.pieces("<bt> the cat")[1:] == source.pieces("the cat")


@pytest.mark.parametrize(("temperature", "power"), [(1.0, 1.0), (5.0, 0.2), (0.0, 0.0)])
def test_shares_follow_weights_and_temperature(temperature, power):
    shares = mixed(weights=(1.0, 2.0, 0.5), temperature=temperature).shares(np.array([300, 60, 10]))
    wanted = np.array([1.0, 2.0, 0.5]) * np.array([300, 60, 10]) ** power
    np.testing.assert_allclose(shares, wanted / wanted.sum(), rtol=1e-12)


def test_shares_are_kept_over_every_period_and_nearly_over_any_stretch():
    shares = [0.7, 0.29, 0.01]
    order = Order([1000, 5000, 70], shares, seed=4)
    owners = np.searchsorted([1000, 6000], [order.locate(e)[1] for e in range(PERIOD)], "right")
    counts = np.bincount(owners)
    np.testing.assert_allclose(counts / PERIOD, shares, atol=1 / PERIOD)
    # Of any stretch of 1/16 of a period: at random, but without replacement.
    for start in range(0, PERIOD, PERIOD // 16):
        part = np.bincount(owners[start : start + PERIOD // 16], minlength=3) * 16 / PERIOD
        deviation = np.sqrt(np.multiply(shares, np.subtract(1, shares)) * 16 / PERIOD)
        assert (np.abs(part - shares) < 4.5 * deviation).all()


@pytest.mark.parametrize(("table", "elements"), [(1 << 16, 4000), (0, 500)])
def test_every_corpus_has_whole_epochs_of_its_own(table, elements, monkeypatch):
    monkeypatch.setattr(mixture, "_MAX_TABLE", table)
    order = Order([50, 31, 7], [0.2, 0.5, 0.3], seed=1)
    seen = collections.defaultdict(list)
    for element in range(elements):
        epoch, rank = order.locate(element)
        seen[int(np.searchsorted([50, 81], rank, "right")), epoch].append(rank)
    first, count = (0, 50, 81), (50, 31, 7)
    last = {owner: max(e for o, e in seen if o == owner) for owner in range(3)}
    for (owner, epoch), ranks in seen.items():
        whole = range(first[owner], first[owner] + count[owner])
        assert len(set(ranks)) == len(ranks) and set(ranks) <= set(whole)
        assert epoch == last[owner] or len(ranks) == count[owner]
    assert last[1] > 4 and seen[1, 0] != seen[1, 1] != seen[1, 2]


def test_the_stream_of_one_corpus_is_what_it_was():
    """A run that was started before there were mixtures goes on with the same batches."""
    order = Order([100], [1.0], 5)
    expected = np.random.default_rng((5, 2)).permutation(100)
    assert [order.locate(200 + i) for i in range(100)] == [(2, int(r)) for r in expected]


def test_batches_have_the_shares_and_resume_on_any_number_of_hosts(tokenizers, tmp_path):
    pairs = mixed(weights=(1.0, 2.0, 1.0), temperature=0.0)
    whole = opened(pairs, tokenizers, tmp_path)
    first = list(itertools.islice(whole, 80))
    names = collections.Counter(
        text.removeprefix("<bt> ")[0] for b in first for text in sources(b, tokenizers[0])
    )
    total = sum(names.values())
    np.testing.assert_allclose([names[n] / total for n in "xyz"], [0.25, 0.5, 0.25], atol=0.03)
    assert np.mean([(b.source_segments > 0).mean() for b in first]) > 0.95
    state = json.loads(json.dumps(whole.get_state()))
    after = next(whole)
    halves = []
    for host in range(2):
        half = opened(pairs, tokenizers, tmp_path, host=host, hosts=2)
        half.set_state(state)
        halves.append(next(half).source)
    np.testing.assert_array_equal(np.concatenate(halves), after.source)


def test_another_weight_is_another_stream(tokenizers, tmp_path):
    state = opened(mixed(), tokenizers, tmp_path).get_state()
    other = opened(mixed(weights=(1.0, 2.0, 1.0)), tokenizers, tmp_path)
    with pytest.raises(ValueError, match="another corpus, tokenizer or data config"):
        other.set_state(state)


def test_a_corpus_that_would_never_be_drawn_is_refused():
    pairs = mixed(weights=(1.0, 1e-6, 1.0), temperature=0.0)
    with pytest.raises(ValueError, match=r"data\.mixture\[1\] .*less than 1/65536: raise its w"):
        mixture.order(pairs, np.arange(370), seed=0)
    with pytest.raises(ValueError, match=r"data\.mixture\[2\] .*: none of its pairs fits a row"):
        mixture.order(mixed(), np.arange(360), seed=0)


def test_a_run_trains_on_a_mixture_and_its_config_is_read_again(tmp_path):
    plain = tiny.config(tmp_path, train={"stop": "2u", "validate_every": 2})
    files = plain.data.train
    corpora = (Corpus(files, tag="<2up>"), Corpus(files[::-1], weight=0.5, tag="<2down>"))
    experiment = tiny.change(plain, data={"mixture": corpora, "temperature": 2.0})
    assert config.from_json(config.to_json(experiment)) == experiment
    assert loop.train(experiment, tmp_path / "run").step == 2
    pieces = vocabulary.load(tmp_path / "run" / "tokenizers" / "source.model").vocabulary
    assert {"▁<2up>", "▁<2down>"} <= set(pieces)


@pytest.mark.parametrize("tag", ["bt", "<a b>", "<>", "<<x>>"])
def test_a_tag_is_a_name_in_brackets(tag):
    data = config.Data(mixture=(Corpus(("a", "b"), tag=tag),))
    with pytest.raises(ValueError, match=r"data\.mixture\[0\]\.tag .*in angle brackets"):
        config.check(config.Config(data=data))
