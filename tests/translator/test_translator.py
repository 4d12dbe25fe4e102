import dataclasses
import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import tfm
from tfm import config, decoding, inspect, params, transformer, translator
from tfm.config import Decode
from tfm.data import corpus
from tfm.data.tokenizer import BOS, EOS
from tfm.training.validation import Validation
from tfm.translator import buckets, split

pytestmark = pytest.mark.usefixtures("quick_compile")

# Of two length buckets: each costs a compilation for each number of rows.
SHORT = ["abc", "a b c", "hh", "d e", "fab", "", "bad", "abc", "   ", "\t", "cafe"]
LONG = ["abcd efgh", "ab ab ab ab", "head deaf"]


@pytest.fixture(scope="module")
def model(tiny_run):
    return tfm.load(tiny_run)


@pytest.fixture(scope="module")
def translations(model):
    return model.translate(SHORT + LONG)


def test_a_line_out_for_each_line_in_in_order(model, translations):
    assert len(translations) == len(SHORT) + len(LONG)
    for text, translation in zip(SHORT + LONG, translations, strict=True):
        assert bool(translation) == bool(text.strip())
        assert "\n" not in translation
    assert translations[0] == translations[7]
    assert len(set(translations)) > 8  # different texts have different translations
    assert model.translate([]) == []
    assert model.translate(["", " "]) == ["", ""]


def test_a_text_s_translation_does_not_depend_on_the_others(model, translations):
    texts = SHORT + LONG
    assert model.translate(texts, batch_size=1) == translations
    assert model.translate(texts[::-1]) == translations[::-1]


def test_white_space_does_not_matter(model):
    assert model.translate(["  a \t b  "]) == model.translate(["a b"])


def test_it_has_learned_something(model):
    sources = tiny.sentences(16, seed=9, words=(3, 3), letters=(2, 4))
    references = [s.upper() for s in sources]
    right, wrong = model.score(sources, references), model.score(sources, references[::-1])
    assert np.mean(right) > np.mean(wrong) + 10


def test_an_over_long_text_is_translated_in_parts_with_a_warning(model, caplog):
    words = "abc de " * 12
    with caplog.at_level(logging.WARNING, "tfm"):
        ((translation,),) = model.n_best([words], 1)
    limit = model.experiment.data.source_length
    parts = split.split(words.strip(), lambda part: len(model.source.encode(part)) <= limit)
    assert len(parts) > 1
    alone = [best[0] for best in model.n_best(parts, 1)]
    assert translation.text == " ".join(t.text for t in alone)
    assert translation.log_prob == pytest.approx(sum(t.log_prob for t in alone), rel=1e-4)
    assert translation.score == pytest.approx(sum(t.score for t in alone), rel=1e-4)
    assert translation.parts == tuple(zip(parts, (t.text for t in alone), strict=True))
    (record,) = caplog.records
    assert record.getMessage().startswith("longer than the 32 tokens the model takes")
    assert f"{len(parts)} parts" in record.getMessage()


def test_n_best_is_sorted_distinct_and_scored_as_it_says(model):
    found = model.n_best(LONG, 4, beam_size=4, length_norm="power", length_penalty=0.5)
    for source, hypotheses in zip(LONG, found, strict=True):
        texts = [h.text for h in hypotheses]
        assert len(set(texts)) == len(texts) == 4
        scores = [h.score for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        forced = model.score([source] * 4, texts)
        np.testing.assert_allclose(forced, [h.log_prob for h in hypotheses], rtol=1e-4, atol=1e-4)
        lengths = np.array([len(model.target.encode(text)) for text in texts])
        np.testing.assert_allclose(scores, np.array(forced) / np.sqrt(lengths), rtol=1e-4)


def test_n_best_of_more_than_the_beam_is_refused(model):
    with pytest.raises(ValueError, match=r"n-best 3: must be from 1 to the beam size, 2"):
        model.n_best(["a"], 3)


def test_a_translation_of_one_part_has_that_part(model):
    ((found,), (blank,)) = model.n_best(["  ab \t c ", " "], 1)
    assert found.parts == (("ab c", found.text),)  # as the tokenizer sees it
    assert dataclasses.astuple(blank) == ("", 0.0, 0.0, (), (), (), "")


def test_a_beam_of_one_is_greedy(model):
    params, arch, decode = model.params, model.arch, Decode(strategy="sample", top_k=1)
    for text, translation in zip(LONG, model.translate(LONG, beam_size=1), strict=True):
        ids = model.source.encode(text)
        source = jnp.asarray([ids + [0] * (16 - len(ids))])
        valid = (source != 0).astype(jnp.int32)
        limit = 2 * len(ids) + 10
        memory = transformer.encode(params, arch, source, valid, jnp.arange(16)[None])
        cache = transformer.init_cache(params, arch, memory, valid, hypotheses=1, max_length=limit)

        def step(tokens, parents, cache):
            logits, cache = transformer.decode_step(params, arch, cache, tokens, parents)
            return logits, jax.nn.logsumexp(logits, axis=-1), cache

        greedy = decoding.search(
            step,
            cache,
            jnp.array([limit]),
            decode,
            max_length=limit,
            bos=BOS,
            eos=EOS,
            keys_B=jax.random.split(jax.random.key(0), 1),
        )
        assert model.target.decode(np.asarray(greedy.tokens[0, 0])) == translation


def test_a_score_does_not_depend_on_the_others(model):
    sources, targets = ["abc", "a b c d", "h"], ["ABC", "A B C D", "H"]
    together = model.score(sources, targets)
    alone = [model.score([s], [t])[0] for s, t in zip(sources, targets, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert all(value < 0 for value in together)
    with pytest.raises(ValueError, match="2 sources but 1 targets"):
        model.score(["a", "b"], ["A"])
    with pytest.raises(ValueError, match="pair 2 has 3 and 42 tokens; the model takes 32 and 32"):
        model.score(["a", "a"], ["A", "A" * 40])


def test_the_number_of_compiled_shapes_is_bounded(model):
    for limit, batch_size in ((32, 16), (64, 64), (200, 48)):
        shapes = {
            (buckets.count(count, batch_size), buckets.length(length, limit))
            for count in range(1, batch_size + 1)
            for length in range(1, limit + 1)
        }
        assert all(rows <= batch_size and length <= limit for rows, length in shapes)
        lengths = 2 * np.ceil(np.log2(limit / 8)) + 1  # two a doubling
        assert len(shapes) <= lengths * (np.ceil(np.log(batch_size) / np.log(4)) + 1)
    model.translate(SHORT + LONG)
    before = len(model.programs.by_shape)
    model.translate(["fed", "abcd fed"])
    assert len(model.programs.by_shape) - before <= 2  # one row of each bucket, at most
    model.translate(["gag", "fed abcd"])
    assert len(model.programs.by_shape) - before <= 2
    assert model.compile_seconds > 0


def test_other_weights_share_what_is_compiled(model, translations):
    other = model.with_params(jax.tree.map(lambda x: 0.5 * x, model.params))
    before = len(model.programs.by_shape)
    assert other.translate(SHORT + LONG) != translations
    assert len(model.programs.by_shape) == before
    assert model.translate(SHORT + LONG) == translations


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_weights_of_fewer_bits(kind, tiny_run, model, translations):
    """Each text still alone, and its score that of the same weights."""
    other = tfm.load(tiny_run, weights=kind)
    found = [best[0] for best in other.n_best(SHORT + LONG, 1)]
    texts = [t.text for t in found]
    assert other.translate(SHORT + LONG, batch_size=1) == texts
    assert np.mean([a == b for a, b in zip(texts, translations, strict=True)]) > 0.7
    forced = other.score(LONG, texts[-len(LONG) :])
    np.testing.assert_allclose(forced, [t.log_prob for t in found[-len(LONG) :]], rtol=1e-3)
    assert forced != model.score(LONG, texts[-len(LONG) :])
    assert inspect.trace(other, "ab").target.text == other.translate(["ab"])[0]
    with pytest.raises(ValueError, match=r"execution.weights 'int9'"):
        tfm.load(tiny_run, weights="int9")


@pytest.mark.parametrize("kernel", ["splash", "cudnn"])
def test_a_kernel_named_for_training_is_used_for_nothing_else(kernel, tiny_run, tmp_path):
    """Translates, scores, validates and inspects where there is no such kernel."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    settings = json.loads((run / "config.json").read_text())
    settings["execution"]["implementation"] = kernel
    (run / "config.json").write_text(json.dumps(settings))
    model, plain = tfm.load(run), tfm.load(tiny_run)
    assert model.experiment.execution.implementation == kernel
    assert model.execution.implementation == "auto"
    assert model.translate(SHORT[:3]) == plain.translate(SHORT[:3])
    assert model.score(["ab"], ["AB"]) == plain.score(["ab"], ["AB"])
    assert inspect.trace(model, "ab").target.text == plain.translate(["ab"])[0]

    experiment = config.read(run / "config.json")
    pairs = corpus.open_corpus(experiment.data.dev, experiment.data)
    validation = Validation(experiment, tmp_path, pairs, (model.source, model.target))
    scores = validation.scores(1, model.params)
    assert np.isfinite(scores["loss"])


def test_a_warning_says_once_that_learned_positions_end_translations(model, caplog):
    """A source of n tokens allows 2n + 10: 18 of the first, 22 and 24 of the others."""
    arch = dataclasses.replace(model.arch, positions="learned:max_length=20")
    experiment = dataclasses.replace(model.experiment, model=arch)
    weights = params.init(jax.random.key(0), transformer.declare(arch))
    short = translator.Translator(experiment, weights, model.source, model.target)
    with caplog.at_level(logging.WARNING, "tfm"):
        short.translate(["abc"])
        assert not caplog.records
        short.translate(["abcde"])
        short.with_params(weights).translate(["abcdef"])
    (record,) = caplog.records
    assert "end at 20 tokens" in record.getMessage() and "allow 24" in record.getMessage()


def test_loading_what_is_no_run(tiny_run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no config\.json there"):
        tfm.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="is it a folder of a run"):
        tfm.load(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns("best", "checkpoints"))
    with pytest.raises(FileNotFoundError, match=r"run/checkpoints: no such folder"):
        tfm.load(run)
    (run / "best").mkdir()
    (run / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match=r"run/checkpoints: no checkpoint there"):
        tfm.load(run)


def test_without_a_best_the_newest_checkpoint_is_loaded(tiny_run, tmp_path, caplog):
    run = shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("best"))
    with caplog.at_level(logging.INFO, "tfm"):
        model = tfm.load(run)
    assert "weights of update 200" in caplog.text
    assert jax.tree.structure(model.params) == jax.tree.structure(tfm.load(tiny_run).params)


def test_tokenizers_of_another_run_are_noticed(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    settings = json.loads((run / "config.json").read_text())
    settings["model"]["target_vocab"] = 50
    (run / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"tokenizers have \d+ and \d+ pieces, but .* and 50"):
        tfm.load(run)


def test_defaults_are_those_of_the_run(model):
    assert model.experiment.decode == Decode(beam_size=2, batch_size=16, guard="off")
    assert model.source.size == model.arch.source_vocab
