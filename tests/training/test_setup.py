"""A run whose tables start from word vectors: piece by piece, and only once."""

import dataclasses
import logging

import numpy as np
import pytest
import tiny

from tfm import translator
from tfm.data import corpus, tokenizer
from tfm.training import optimizer, setup, step
from tfm.transformer import Embeddings, declare
from tfm.word2vec import vectors

WIDTH = 32


def opened(folder, **model):
    c = tiny.config(folder, model=model)
    pairs = corpus.open_corpus(c.data.train, c.data)
    tokenizers = tokenizer.prepare(c, pairs, folder / "run")
    sizes = {"source_vocab": tokenizers[0].size, "target_vocab": tokenizers[1].size}
    return dataclasses.replace(c, model=dataclasses.replace(c.model, **sizes)), tokenizers


def fresh(c):
    return step.init_state(c, optimizer.make(c.optimizer, declare(c.model)))


def write(path, words, seed=0, width=WIDTH):
    table = np.random.default_rng(seed).normal(size=(len(words), width)).astype(np.float32)
    vectors.write(vectors.Vectors(tuple(words), table), path)
    return str(path), table


def test_pieces_that_have_a_vector_start_from_it_and_the_others_as_drawn(tmp_path, caplog):
    c, (source, target) = opened(tmp_path)
    lower, table = write(tmp_path / "lower.vec", source.vocabulary[4:10])
    upper, _ = write(tmp_path / "upper.vec", target.vocabulary[4:7], seed=1)
    c = tiny.change(c, model={"embeddings": Embeddings((lower, upper))})
    before = fresh(c)
    with caplog.at_level(logging.INFO, "tfm"):
        after = setup.with_vectors(before, c, (source, target))
    drawn, begun = (np.asarray(s.params["tables"]["source"]) for s in (before, after))
    size = np.sqrt(np.square(table).sum(1).mean())
    np.testing.assert_allclose(begun[4:10], table / size, rtol=1e-6)
    rest = np.r_[0:4, 10 : source.size]
    np.testing.assert_array_equal(begun[rest], drawn[rest])
    assert f"source table: {6 / source.size:.1%} of the pieces start from {lower}\n" in caplog.text
    assert f"target table: {3 / target.size:.1%} of the pieces start from {upper}\n" in caplog.text


def test_vectors_of_words_start_the_pieces_that_are_words(tmp_path, caplog):
    words = {"kind": "word", "source_size": 90, "target_size": 90}
    c = tiny.config(tmp_path, tokenizer=words)
    pairs = corpus.open_corpus(c.data.train, c.data)
    source, target = tokenizer.prepare(c, pairs, tmp_path / "words")
    sizes = {"source_vocab": source.size, "target_vocab": target.size}
    lower = [piece.removeprefix("▁") for piece in source.vocabulary[4:24]]
    file, table = write(tmp_path / "words.vec", lower)  # of both: the target's are in capitals
    c = tiny.change(c, model=sizes | {"embeddings": Embeddings((file,))})
    with caplog.at_level(logging.INFO, "tfm"):
        tables = setup.with_vectors(fresh(c), c, (source, target)).params["tables"]
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


def test_the_average_starts_where_the_weights_do(tmp_path):
    c, tokenizers = opened(tmp_path)
    file, _ = write(tmp_path / "a.vec", [*tokenizers[0].vocabulary, "A"])
    c = tiny.change(c, model={"embeddings": Embeddings((file,))}, train={"ema": 0.9})
    state = setup.with_vectors(fresh(c), c, tokenizers)
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
    c, tokenizers = opened(tmp_path, **model)
    write(tmp_path / "a", tokenizers[0].vocabulary[4:])
    write(tmp_path / "wide", tokenizers[0].vocabulary[4:], width=8)
    write(tmp_path / "other", ["nowhere"])
    names = tuple(str(tmp_path / name) for name in files)
    c = tiny.change(c, model={"embeddings": Embeddings(names)})
    with pytest.raises(ValueError, match=message):
        setup.with_vectors(fresh(c), c, tokenizers)


def test_a_run_starts_from_vectors_by_its_command(tmp_path, command):
    _, (source, _) = opened(tmp_path)
    file, _ = write(tmp_path / "a.vec", source.vocabulary[4:])
    experiment = tiny.experiment(tmp_path, tiny.config(tmp_path, train={"stop": "2u"}))
    code, _, err = command(
        "train", experiment, "--workdir", tmp_path / "run", "--model.embeddings.init", file
    )
    assert code == 0, err
    assert "pieces start from" in err
    assert translator.load(tmp_path / "run").config.model.embeddings.init == (file,)
