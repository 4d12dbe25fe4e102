"""Validation uses every device of the mesh, and finds what one device finds."""

import jax
import numpy as np
import pytest
import tiny

from tfm import memory, transformer
from tfm.data import corpus
from tfm.sharding import NO_MESH, Layout, Mesh, make
from tfm.training.validation import Validation

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def trained(untrained, draw, tmp_path_factory):
    """A config, its dev set, tokenizers and weights, as numbers on the host."""
    dev = tiny.corpus(tmp_path_factory.mktemp("text"), "dev", 5, seed=2)
    model = untrained(data={"dev": dev, "rows": 8}, d_model=32, decode={"max_length_factor": 1.0})
    experiment = model.experiment
    pairs = corpus.open_corpus(dev, experiment.data)
    weights = jax.tree.map(np.asarray, draw(transformer.declare(experiment.model)))
    return experiment, pairs, (model.source, model.target), weights


def on(layout, trained, folder):
    """(scores, the validation) with the weights sharded as in training, or on one device."""
    experiment, pairs, tokenizers, weights = trained
    validation = Validation(experiment, folder, pairs, tokenizers, layout)
    if layout.mesh is not None:
        placed = layout.abstract_like(weights, transformer.declare(experiment.model))
        weights = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), weights, placed)
    return validation.scores(1, weights), validation


@pytest.fixture(scope="module")
def alone(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    scores, _ = on(NO_MESH, trained, folder)
    return scores, (folder / "hypotheses/1.txt").read_text()


@pytest.mark.parametrize("fits", [True, False])
def test_a_mesh_scores_what_one_device_scores(fits, trained, alone, tmp_path, monkeypatch):
    """With all weights on each device, or, where they are more than it may hold, sharded."""
    weights = trained[3]
    size = sum(x.nbytes for x in jax.tree.leaves(weights))
    budget = size * (100 if fits else 0.9)  # bytes of each device
    monkeypatch.setattr(memory, "free", lambda device: budget)
    monkeypatch.setattr("tfm.translator.search_memory.require", lambda *_: None)
    layout = Layout(make(Mesh(data=2, fsdp=4)))
    scores, validation = on(layout, trained, tmp_path)
    assert (tmp_path / "hypotheses/1.txt").read_text() == alone[1]
    assert scores == pytest.approx(alone[0], rel=1e-5)
    translator = validation._translator.with_params(weights)
    assert translator.layout.axis_size("batch") == (8 if fits else 2)
    first = sum(x.addressable_data(0).nbytes for x in jax.tree.leaves(translator.params))
    assert first == pytest.approx(size, rel=0.2) if fits else first < budget
