"""Models of other toolkits as run folders: tokenizers, commands, what a folder is."""

import json

import numpy as np
import pytest

import tfm
from tfm import config, transformer
from tfm.cli import models
from tfm.data import foreign, vocabulary
from tfm.data.foreign import ForeignTokenizer
from tfm.interop import ctranslate2, folders, mapping, model_bin
from tfm.params import is_param

LETTERS = "abcdef"
PIECES = ["<pad>", "<unk>", "<s>", "</s>", *LETTERS]
V = len(PIECES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of CTranslate2 with random weights, whose special pieces stand elsewhere."""
    import jax

    path = tmp_path_factory.mktemp("ct2") / "model"
    path.mkdir()
    arch = transformer.Architecture(
        source_vocab=V, target_vocab=V, d_model=8, heads=2, d_ff=8, encoder_layers=1,
        decoder_layers=1, output_bias=True,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda p: rng.normal(size=p.shape).astype(np.float32),
        transformer.declare(arch), is_leaf=is_param,
    )  # fmt: skip
    rows = {side: np.roll(np.arange(V), 4) for side in ("source", "target")}
    (path / "model.bin").write_bytes(ctranslate2.export(arch, params, rows))
    pieces = [PIECES[i] for i in np.argsort(rows["source"])]
    for side in ("source", "target"):
        (path / f"{side}_vocabulary.json").write_text(json.dumps(pieces))
    (path / "config.json").write_text(json.dumps({"add_source_eos": True}))
    return path


def test_an_imported_folder_translates_scores_and_is_exported_with_the_same_bits(
    folder, tmp_path, capsys
):
    run, back = tmp_path / "run", tmp_path / "back"
    assert models.import_("ctranslate2", str(folder), str(run), "aa", "bb") == 0
    model = tfm.load(run)
    assert model.source.vocabulary == PIECES and model.experiment.data.source == "aa"
    best = model.n_best(["abc"], 1, beam_size=2)[0][0]
    assert model.score(["abc"], [best.text]) == pytest.approx([best.log_prob], abs=1e-4)
    assert models.export(str(run), "ctranslate2", str(back)) == 0
    for name in ("source_vocabulary.json", "target_vocabulary.json"):
        assert json.loads((back / name).read_text()) == json.loads((folder / name).read_text())
    a, b = (model_bin.read((path / "model.bin").read_bytes()) for path in (folder, back))
    assert a.variables.keys() == b.variables.keys()
    for name, x in a.variables.items():
        assert (x == b.variables[name]).all(), name
    capsys.readouterr()
    for path, form in ((run, "tfm"), (folder, "ctranslate2")):
        assert models.models(str(path), json=True) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["format"] == form and found["vocabularies"] == [V, V]
        assert found["exports"] == {"ctranslate2": "yes"}
    assert models.models(str(run)) == 0
    assert "1+1 of width 8" in capsys.readouterr().out


def test_an_output_that_exists_is_refused_and_stays(folder, tmp_path):
    kept = tmp_path / "run"
    kept.mkdir()
    with pytest.raises(FileExistsError, match="exists already"):
        folders.write_run(folders.read(folder, "ctranslate2", ("", "")), kept)
    assert list(tmp_path.iterdir()) == [kept] and not list(kept.iterdir())


def test_training_in_the_folder_of_an_imported_model_is_refused(folder, tmp_path):
    run = folders.write_run(folders.read(folder, "ctranslate2", ("", "")), tmp_path / "run")
    with pytest.raises(ValueError, match="holds an imported model"):
        vocabulary.prepare(config.Config(), [], run.tokenizers)


def test_what_is_no_model_is_said_so(tmp_path):
    with pytest.raises(ValueError, match="is neither a run nor a model"):
        models.models(str(tmp_path))


def test_a_tokenizer_of_characters_or_words_keeps_the_protocol(tmp_path):
    for kind, text, pieces in (
        ("characters", "abz", ["a", "b", "z"]), ("words", " a  b zz", ["a", "b", "zz"]),
    ):  # fmt: skip
        made = ForeignTokenizer(kind, PIECES, tuple(range(V)))
        made.save(tmp_path / f"{kind}.model")
        again = foreign.load(tmp_path / f"{kind}.json")
        assert again.digest == made.digest and again.size == V
        assert again.pieces(text) == pieces
        assert again.encode(text) == [4, 5, 1, 3]
        assert again.decode([2, 4, 5, 3, 6]) == ("ab" if kind == "characters" else "a b")
    with pytest.raises(ValueError, match="needs a vocabulary that tfm trained"):
        made.sample("a", np.random.default_rng(0), 2, 1.0)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}', '{"format": 1, "kind": "x"}', "{}"])
def test_a_damaged_tokenizer_is_one_clear_line(tmp_path, text):
    path = tmp_path / "source.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"source\.json: damaged .*import the model again"):
        foreign.load(path)


def test_rows_go_into_our_order_and_back():
    rows = mapping.ordinary_rows(6, {"pad": 5, "unk": 1, "bos": None, "eos": 0})
    assert rows.tolist() == [5, 1, -1, 0, 2, 3, 4]
    assert mapping.closed_rows(rows) == (2,)
    table = np.arange(12.0).reshape(6, 2)
    ours = mapping.take_rows(table, rows)
    assert (ours[2] == 0).all() and (ours[0] == table[5]).all()
    assert (mapping.put_rows(ours, rows) == table).all()
