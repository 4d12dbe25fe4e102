"""Initial embedding tables from word vectors; settings that may change on resume."""

import dataclasses
import functools
import logging

import numpy as np
import pytest
import tiny

from tfm import config, translator
from tfm.data import corpus, vocabulary
from tfm.training import optimizer, setup, step
from tfm.transformer import declare
from tfm.word2vec import vectors

WIDTH = 32


def opened(folder, **model):
    experiment = tiny.config(folder, model=model)
    pairs = corpus.open_corpus(experiment.data.train, experiment.data)
    tokenizers = vocabulary.prepare(experiment, pairs, folder / "run")
    sizes = {"source_vocab": tokenizers[0].size, "target_vocab": tokenizers[1].size}
    return dataclasses.replace(
        experiment, model=dataclasses.replace(experiment.model, **sizes)
    ), tokenizers


def fresh(experiment):
    return step.init_state(
        experiment, optimizer.make(experiment.optimizer, declare(experiment.model))
    )


def write(path, words, seed=0, width=WIDTH):
    table = np.random.default_rng(seed).normal(size=(len(words), width)).astype(np.float32)
    vectors.write(vectors.Vectors(tuple(words), table), path)
    return str(path), table


def test_pieces_with_a_vector_start_from_it_and_the_others_at_random(tmp_path, caplog):
    experiment, (source, target) = opened(tmp_path)
    lower, table = write(tmp_path / "lower.vec", source.vocabulary[4:10])
    upper, _ = write(tmp_path / "upper.vec", target.vocabulary[4:7], seed=1)
    experiment = tiny.change(experiment, train={"init_embeddings": (lower, upper)})
    before = fresh(experiment)
    with caplog.at_level(logging.INFO, "tfm"):
        after = setup.with_vectors(before, experiment, (source, target))
    random, initial = (np.asarray(s.params["tables"]["source"]) for s in (before, after))
    size = np.sqrt(np.square(table).sum(1).mean())
    np.testing.assert_allclose(initial[4:10], table / size, rtol=1e-6)
    rest = np.r_[0:4, 10 : source.size]
    np.testing.assert_array_equal(initial[rest], random[rest])
    assert f"source table: {6 / source.size:.1%} of the pieces start from {lower}\n" in caplog.text
    assert f"target table: {3 / target.size:.1%} of the pieces start from {upper}\n" in caplog.text


def test_vectors_of_words_initialise_the_pieces_that_are_words(tmp_path, caplog):
    words = {"kind": "word", "source_size": 90, "target_size": 90}
    experiment = tiny.config(tmp_path, tokenizer=words)
    pairs = corpus.open_corpus(experiment.data.train, experiment.data)
    source, target = vocabulary.prepare(experiment, pairs, tmp_path / "words")
    sizes = {"source_vocab": source.size, "target_vocab": target.size}
    lower = [piece.removeprefix("▁") for piece in source.vocabulary[4:24]]
    file, table = write(tmp_path / "words.vec", lower)  # of both: the target's are in capitals
    experiment = tiny.change(experiment, model=sizes, train={"init_embeddings": (file,)})
    with caplog.at_level(logging.INFO, "tfm"):
        tables = setup.with_vectors(fresh(experiment), experiment, (source, target)).params[
            "tables"
        ]
    size = np.sqrt(np.square(table).sum(1).mean())
    np.testing.assert_allclose(tables["source"][4:24], table / size, rtol=1e-5)
    assert f"source table: {20 / source.size:.1%} of the pieces start from {file}" in caplog.text
    same = [(i, lower.index(w)) for i, p in enumerate(target.vocabulary)
            if (w := p.removeprefix("▁").lower()) in lower and p.startswith("▁")]  # fmt: skip
    assert len(same) > 10
    rows, words = np.array(same).T
    got = np.asarray(tables["target"])[rows]
    np.testing.assert_allclose(got / table[words], (got / table[words])[0, 0], rtol=1e-4)
    assert f"target table: {len(same) / target.size:.1%}" in caplog.text


def test_average_starts_equal_to_the_weights(tmp_path):
    experiment, tokenizers = opened(tmp_path)
    file, _ = write(tmp_path / "a.vec", [*tokenizers[0].vocabulary, "A"])
    experiment = tiny.change(experiment, train={"init_embeddings": (file,), "ema": 0.9})
    state = setup.with_vectors(fresh(experiment), experiment, tokenizers)
    np.testing.assert_array_equal(
        state.average["tables"]["source"], state.params["tables"]["source"]
    )


@pytest.mark.parametrize(
    ("files", "model", "message"),
    [
        (("a", "a", "a"), {}, "3 files, but two languages"),
        (("wide",), {}, "width 8, the model's is 32"),
        (("other",), {}, "no.* of .* pieces has a vector"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(tmp_path, files, model, message):
    experiment, tokenizers = opened(tmp_path, **model)
    write(tmp_path / "a", tokenizers[0].vocabulary[4:])
    write(tmp_path / "wide", tokenizers[0].vocabulary[4:], width=8)
    write(tmp_path / "other", ["nowhere"])
    names = tuple(str(tmp_path / name) for name in files)
    experiment = tiny.change(experiment, train={"init_embeddings": names})
    with pytest.raises(ValueError, match=message):
        setup.with_vectors(fresh(experiment), experiment, tokenizers)


def test_vectors_given_on_the_command_line(tmp_path, command):
    _, (source, _) = opened(tmp_path)
    file, _ = write(tmp_path / "a.vec", source.vocabulary[4:])
    experiment = tiny.experiment(tmp_path, tiny.config(tmp_path, train={"stop": "2u"}))
    code, _, err = command(
        "train", experiment, "--workdir", tmp_path / "run", "--train.init_embeddings", file
    )
    assert code == 0, err
    assert "pieces start from" in err
    assert translator.load(tmp_path / "run").experiment.train.init_embeddings == (file,)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("train.stop", True),
        ("decode.beam_size", True),  # of a whole section
        ("mesh.data", True),
        ("train.stop_x", False),  # only begins like a name that may change
        ("decoder.layers", False),
        ("train.seed", False),
        ("model.d_model", False),
        ("execution.remat", True),
        ("execution.dtype", False),
    ],
)
def test_only_named_fields_and_whole_sections_may_change_on_resume(name, changes):
    assert setup.may_change(name) == changes


def test_fields_that_may_change_exist():
    experiment = config.Config()
    for name in setup.MAY_CHANGE:
        functools.reduce(getattr, name.split("."), experiment)
