"""Continuous batching finds what a search of one batch finds, on one device and on a mesh."""

import dataclasses
import logging

import jax
import numpy as np
import pytest
import tiny

import tfm
from tfm import params, sharding, transformer
from tfm.sharding import NO_MESH, Layout, Mesh
from tfm.translator import Translator

pytestmark = pytest.mark.usefixtures("quick_compile")

# Of one bucket, and more than there are slots.
TEXTS = [text for text in tiny.sentences(60, seed=4, words=(1, 3), letters=(1, 3)) if len(text) < 7]
SLOTS = 4


@pytest.fixture(scope="module")
def model(tiny_run):
    return tfm.load(tiny_run)


def same(found, expected):
    """Equal texts and, up to rounding, log-probabilities of all hypotheses."""
    assert [[t.text for t in best] for best in found] == [
        [t.text for t in best] for best in expected
    ]
    numbers = lambda found: [t.log_prob for best in found for t in best]  # noqa: E731
    np.testing.assert_allclose(numbers(found), numbers(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [{}, {"beam_size": 1}, {"strategy": "sample", "samples": 2, "seed": 3}],
    ids=["beam", "greedy", "sample"],
)
def test_more_sentences_than_slots_are_translated_as_in_one_batch(model, settings, caplog):
    n = 1 if settings.get("beam_size") == 1 else 2
    expected = model.n_best(TEXTS, n, batch_size=64, **settings)
    with caplog.at_level(logging.INFO, "tfm"):
        same(model.n_best(TEXTS, n, batch_size=SLOTS, **settings), expected)
        same(model.n_best(TEXTS[::-1], n, batch_size=SLOTS, **settings), expected[::-1])
    compiled = [line.split()[1] for line in caplog.messages if line.startswith("compiled")]
    assert {"start", "insert", "advance"} <= set(compiled) <= {"start", "insert", "advance", "keep"}
    assert len(compiled) <= 7  # start for two numbers of rows, insert, advance and keep for three


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": "learned:max_length=20"},
        {"positions": "rotary", "attention": "linear"},
        {"positions": "fire:hidden=4"},
        {"positions": "shaw:clip=2", "attention": "local", "window": 2},
    ],
    ids=lambda changes: changes["positions"],
)
def test_a_sentence_may_enter_at_any_place_of_the_ring(model, changes):
    """Sentences of random weights go on to their limits, which differ."""
    arch = dataclasses.replace(model.arch, **changes)
    weights = params.init(jax.random.key(1), transformer.declare(arch))
    experiment = dataclasses.replace(model.experiment, model=arch)
    other = Translator(experiment, weights, model.source, model.target)
    texts = TEXTS[:14]
    expected = other.n_best(texts, 2, batch_size=16)
    assert len({len(best[0].text) for best in expected}) > 2
    same(other.n_best(texts, 2, batch_size=SLOTS), expected)


class Numbers:
    """A tokenizer of 16 pieces: letters one by one, and ids as numbers."""

    def encode(self, text):
        return [4 + ord(letter) % 12 for letter in text] + [3]

    def encode_batch(self, texts):
        return list(map(self.encode, texts))

    def decode(self, ids):
        return " ".join(map(str, ids))


@pytest.mark.parametrize(
    "sizes",
    [
        {"data": 2, "tensor": 2},
        {"fsdp": 2, "tensor": 2},
        pytest.param({"data": 8}, marks=pytest.mark.slow),
        pytest.param({"fsdp": 4, "sequence": 2}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_mesh_finds_what_one_device_finds(model, sizes):
    """Of random weights, whose vocabularies can be divided by the mesh."""
    arch = dataclasses.replace(model.arch, source_vocab=16, target_vocab=16)
    weights = params.init(jax.random.key(1), transformer.declare(arch))
    weights = jax.tree.map(np.asarray, weights)
    experiment = dataclasses.replace(model.experiment, model=arch)
    layout = Layout(sharding.make(Mesh(**{"data": 1} | sizes)))
    model, other = (
        Translator(experiment, weights, Numbers(), Numbers(), layout)
        for layout in (NO_MESH, layout)
    )
    same(other.n_best(TEXTS, 2, batch_size=SLOTS), model.n_best(TEXTS, 2, batch_size=64))
    assert other.translate(TEXTS[:1]) == model.translate(TEXTS[:1])
    held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(other.params))
    whole = sum(x.nbytes for x in jax.tree.leaves(model.params))
    shards = sizes.get("fsdp", 1) * sizes.get("tensor", 1)
    assert held < whole * (1 / shards + 0.1)
