"""How many parameters a Transformer has, and which sizes do not fit together."""

import dataclasses

import pytest

from tfm import params, transformer

CONFIG = transformer.Config(
    source_vocab=11, target_vocab=11, d_model=16, heads=4, d_ff=24, max_length=8,
    encoder_layers=2, decoder_layers=2, tie="none",
)  # fmt: skip


def config(**changes):
    return dataclasses.replace(CONFIG, **changes)


def attention_count(d, n, k, h, bias):
    return d * h * (2 * n + 2 * k) + bias * (n * h + 2 * k * h + d)


def by_hand(c, v_source, v_target):
    """Vaswani 2017 counted on paper: tables, then what one layer of each side holds."""
    d, f, norm = c.d_model, c.d_ff, 2 * c.d_model
    attend = attention_count(d, c.heads, c.kv_heads or c.heads, c.head_dim or d // c.heads, c.bias)
    feed_forward = 2 * d * f + f + d
    encoder = c.encoder_layers * (attend + feed_forward + 2 * norm)
    decoder = c.decoder_layers * (2 * attend + feed_forward + 3 * norm)
    return (v_source + v_target) * d + encoder + decoder + 2 * norm


@pytest.mark.parametrize("name", list(transformer.PRESETS))
def test_presets_have_the_parameters_counted_by_hand(name):
    c = dataclasses.replace(transformer.PRESETS[name], source_vocab=37_000, target_vocab=32_000)
    assert params.count(transformer.declare(c)) == by_hand(c, 37_000, 32_000)


def test_base_and_big_have_the_size_the_paper_says():
    """Vaswani 2017, table 3: 65 and 213 million, one table of 37,000 for all."""
    for name, millions in (("base", 65), ("big", 213)):
        c = dataclasses.replace(
            transformer.PRESETS[name], source_vocab=37_000, target_vocab=37_000, tie="all"
        )
        assert abs(params.count(transformer.declare(c)) / 1e6 - millions) < 0.03 * millions


def test_variants_have_the_parameters_counted_by_hand():
    c = config(kv_heads=2, head_dim=6, tie="target-output")
    assert params.count(transformer.declare(c)) == by_hand(c, 11, 11)
    post = dataclasses.replace(c, norm_placement="post")
    assert params.count(transformer.declare(post)) == by_hand(c, 11, 11) - 4 * 16
    learned = dataclasses.replace(c, positions="learned")
    assert params.count(transformer.declare(learned)) == by_hand(c, 11, 11) + 2 * 8 * 16
    plain = dataclasses.replace(c, bias=False)
    assert params.count(transformer.declare(plain)) == by_hand(plain, 11, 11)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 18}, "d_model 18 .* heads 4"),
        ({"kv_heads": 3}, "heads 4 .* kv_heads 3"),
        ({"source_vocab": 0}, "source_vocab and target_vocab must be set"),
        ({"tie": "all", "target_vocab": 13}, "tie='all'.* 11 .* 13"),
        ({"tie": "source-target", "target_vocab": 13}, "source-target.* 11 .* 13"),
        ({"tie": "source-output", "target_vocab": 13}, "source-output.* 11 .* 13"),
    ],
)
def test_sizes_that_do_not_fit_are_an_error_that_names_both(changes, message):
    with pytest.raises(ValueError, match=message):
        transformer.declare(config(**changes))
