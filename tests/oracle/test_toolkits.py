"""Models that Marian and CTranslate2 made: imported, with the numbers of their own toolkit.

``TFM_MODELS`` names the folder that holds marian-tatoeba-zh-en and aren-transliteration.
"""

import functools
import os
from pathlib import Path

import numpy as np
import pytest

import tfm
from tfm.interop import exporting, folders

MODELS = Path(os.environ.get("TFM_MODELS", "/nowhere"))
here = pytest.mark.skipif(not MODELS.is_dir(), reason="TFM_MODELS names no folder")
ARABIC = {"آتزمون": "atzmon", "آتشيسون": "achison"}
LINES = 300

# As the other toolkit: no translation is decoded again, and length is limited by number alone.
EXACTLY = {"guard": "off", "max_length_factor": 0.0}


@functools.cache
def imported(name, form, folder):
    folders.write_run(folders.read(MODELS / name, form, ("", "")), folder / name)
    return tfm.load(folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@here
@pytest.mark.parametrize("name", ["aren-transliteration", "aren-transliteration-i8"])
def test_ctranslate2s_own_model_transliterates(folder, name):
    model = imported(name, "ctranslate2", folder)
    assert model.translate(list(ARABIC), beam_size=2, guard="off") == list(ARABIC.values())


@here
def test_scores_are_those_of_ctranslate2(folder):
    ctranslate2 = pytest.importorskip("ctranslate2")
    theirs = ctranslate2.Translator(str(MODELS / "aren-transliteration"))
    model = imported("aren-transliteration", "ctranslate2", folder)
    pairs = [*ARABIC.items(), ("سليمان", "solomon"), ("و", "w")]
    got = model.score(*zip(*pairs, strict=True))
    want = theirs.score_batch(*([list(x) for x in side] for side in zip(*pairs, strict=True)))
    for a, b in zip(got, want, strict=True):
        assert abs(a - sum(b.log_probs)) <= 1e-4


def test_the_format_that_is_written_is_what_ctranslate2_reads(tmp_path, draw):
    """A random model of two vocabularies, exported; greedy search in both."""
    ctranslate2 = pytest.importorskip("ctranslate2")
    model, texts = random_model(draw)
    exporting.to_ctranslate2(model, tmp_path / "float32")
    theirs = ctranslate2.Translator(str(tmp_path / "float32"), compute_type="float32")
    want = theirs.translate_batch(
        [model.source.pieces(text) for text in texts], beam_size=1, max_decoding_length=15,
        return_scores=True, length_penalty=0,
        suppress_sequences=[[piece] for piece in model.target.vocabulary[:3]],  # as ours
    )  # fmt: skip
    got = model.n_best(texts, 1, beam_size=1, **EXACTLY, max_length_offset=16)
    for ours, other in zip(got, want, strict=True):
        tokens = model.target.decode([model.target._ids[x] for x in other.hypotheses[0]])
        assert ours[0].text == tokens
    again = folders.read(tmp_path / "float32", "ctranslate2", ("", ""))
    for a, b in zip(*map(leaves, (again.model.params, stacked(model))), strict=True):
        assert (np.asarray(a) == np.asarray(b)).all()


def random_model(draw):
    import jax

    from tfm import config, transformer
    from tfm.data.foreign import ForeignTokenizer
    from tfm.translator import Translator

    special = ["<pad>", "<unk>", "<s>", "</s>"]
    source, target = (
        ForeignTokenizer("characters", [*special, *letters], tuple(range(4 + len(letters))))
        for letters in ("abcdefgh", "ABCDEFGHIJ")
    )
    arch = transformer.Architecture(
        source_vocab=source.size, target_vocab=target.size, d_model=16, heads=2, d_ff=24,
        encoder_layers=2, decoder_layers=2, dropout=0.0, norm_placement="post",
        activation="gelu_exact", output_bias=True,
    )  # fmt: skip
    params = draw(transformer.declare(arch))
    keys = iter(jax.random.split(jax.random.key(3), 200))
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(next(keys), x.shape), params)
    model = Translator(config.Config(model=arch), params, source, target)
    return model, ["abc", "h", "gfedcba", "aabbcc"]


def stacked(model):
    return exporting._stacked(model.params)


def leaves(tree):
    import jax

    return [x for _, x in sorted(jax.tree.leaves_with_path(tree), key=lambda item: str(item[0]))]


@here
def test_forced_scores_are_those_of_marian(folder):
    model = imported("marian-tatoeba-zh-en", "marian", folder)
    sources, best = marian_output()
    got = model.score(sources, [text for text, _ in best])
    assert np.abs(np.array(got) - [log_prob for _, log_prob in best]).max() <= 2e-4


@here
@pytest.mark.slow
def test_beam_search_finds_what_marian_finds_or_stops_before_it(folder):
    model = imported("marian-tatoeba-zh-en", "marian", folder)
    sources, best = marian_output()
    got = model.n_best(sources, 1, beam_size=4, **EXACTLY, max_length_offset=60)
    other = [i for i in range(LINES) if got[i][0].text != best[i][0]]
    # Marian goes on until its whole beam has ended, tfm until four hypotheses have.
    assert len(other) <= 0.05 * LINES


def marian_output():
    folder, best = MODELS / "marian-tatoeba-zh-en", {}
    for line in (folder / "beam4.nbest").read_text(encoding="utf-8").splitlines():
        number, text, score, _ = (part.strip() for part in line.split("|||"))
        best.setdefault(int(number), (text, float(score.split()[1])))
    sources = (folder / "source.zh").read_text(encoding="utf-8").splitlines()[:LINES]
    return sources, [best[i] for i in range(LINES)]
