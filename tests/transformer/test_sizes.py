"""How many parameters a Transformer has, and which sizes do not fit together."""

import dataclasses

import jax
import numpy as np
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
    d, f, norm = c.d_model, c.d_ff, (1 if c.norm == "rms" else 2) * c.d_model
    attend = attention_count(d, c.heads, c.kv_heads or c.heads, c.head_dim or d // c.heads, c.bias)
    feed_forward = 3 * d * f if c.activation == "swiglu" else 2 * d * f + f + d
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


def test_attention_and_position_variants_have_the_parameters_counted_by_hand():
    """Of the two layers a side, 4 heads of width 4."""
    plain = params.count(transformer.declare(CONFIG))
    for changes, more in [
        ({"positions": "shaw", "relative_clip": 3}, 4 * 2 * 7 * 4),
        ({"positions": "t5", "relative_buckets": 8}, 2 * 8 * 4),
        ({"positions": "alibi"}, 0),
        ({"positions": "rotary"}, 0),
        ({"positions": "transformer_xl"}, 4 * (16 * 16 + 2 * 16)),
        ({"qk_norm": True}, 6 * 2 * 4),
        ({"attention": "additive"}, 4 * 16),
        ({"attention": "additive", "cross_attention": "additive"}, 6 * 16),
        ({"attention": "linear"}, 0),
        ({"attention": "local"}, 0),
    ]:
        assert params.count(transformer.declare(config(**changes))) == plain + more, changes


def test_deepnorm_starts_values_outputs_and_feed_forward_smaller():
    """Wang 2022: β is 0.87 (N⁴M)^(-1/16) in the encoder and (12M)^(-1/4) in the decoder."""
    post, deep = (
        params.init(jax.random.key(0), transformer.declare(config(norm_placement=p)))
        for p in ("post", "deepnorm")
    )
    for side, beta in [("encoder", 0.87 * 32 ** (-1 / 16)), ("decoder", 24**-0.25)]:
        ratios = jax.tree_util.tree_map_with_path(
            lambda _, a, b: float(np.abs(b).sum() / max(np.abs(a).sum(), 1e-9)),
            post[side]["layers"],
            deep[side]["layers"],
        )
        for block in {"self", "cross"} & set(ratios):
            r = ratios[block]
            np.testing.assert_allclose([r["v"]["w"], r["out"]["w"]], beta, rtol=1e-5)
            np.testing.assert_allclose([r["q"]["w"], r["k"]["w"]], 1.0, rtol=1e-5)
        np.testing.assert_allclose([ratios["ff"]["up"], ratios["ff"]["down"]], beta, rtol=1e-5)
        assert ratios["ff_norm"]["scale"] == 1.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 18}, "d_model 18 .* heads 4"),
        ({"kv_heads": 3}, "heads 4 .* kv_heads 3"),
        ({"source_vocab": 0}, "source_vocab and target_vocab must be set"),
        ({"tie": "all", "target_vocab": 13}, "tie='all'.* 11 .* 13"),
        ({"tie": "source-target", "target_vocab": 13}, "source-target.* 11 .* 13"),
        ({"tie": "source-output", "target_vocab": 13}, "source-output.* 11 .* 13"),
        ({"positions": "rotary", "head_dim": 5}, "'rotary'.* head width 5 must be even"),
        ({"positions": "transformer_xl", "d_model": 15, "head_dim": 4}, "d_model 15 must be even"),
        ({"attention": "local", "window": 0}, "window 0: .* say 1 or more"),
        ({"soft_cap": -1.0}, "soft_cap -1.0 may not be negative"),
        ({"rotary_scaling": 0.0}, "rotary_scaling 0.0 must be positive"),
        ({"attention": "linear", "soft_cap": 5.0}, "'linear' with soft_cap=5.0: .* set it to 0"),
        ({"attention": "linear", "attention_dropout": 0.1}, "attention_dropout=0.1: .*neither"),
        ({"heads": 0}, "heads 0 must be 1 or more"),
        ({"kv_heads": -4}, "kv_heads -4 must be 0 or more"),
        ({"head_dim": -1}, "head_dim -1 must be 0 or more"),
        ({"encoder_layers": 0}, "encoder_layers 0 must be 1 or more"),
        ({"decoder_layers": -1}, "decoder_layers -1 must be 1 or more"),
        ({"d_model": 0}, "d_model 0 must be 1 or more"),
        ({"d_ff": 0}, "d_ff 0 must be 1 or more"),
        ({"positions": "shaw", "relative_clip": 0}, "relative_clip 0 must be 1 or more"),
        ({"positions": "learned", "max_length": 0}, "max_length 0 must be 1 or more"),
        ({"positions": "rotary", "rotary_base": 1.0}, "rotary_base 1.0 must be more than 1"),
        ({"positions": "rotary_interleaved", "rotary_base": -2.0}, "rotary_base -2.0 must be more"),
        (
            {"positions": "t5", "relative_buckets": 7},
            "relative_buckets 7, .*even number.*got 7",
        ),
        ({"positions": "t5", "relative_buckets": 2}, "relative_buckets 2, .*4 or more, got 2"),
        (
            {"positions": "t5", "relative_buckets": 8, "relative_max_distance": 4},
            "relative_max_distance 4: .*must be more than the 4 exact buckets",
        ),
        ({"dropout": 1.0}, "^dropout 1.0 must be less than 1"),
        ({"attention_dropout": -0.1}, "attention_dropout -0.1 must be .*not negative"),
        ({"activation_dropout": float("nan")}, "activation_dropout nan must be less than 1"),
        ({"implementation": "cudnn", "dtype": "float32"}, "'cudnn' with dtype='float32'"),
    ],
)
def test_sizes_that_do_not_fit_are_an_error_that_names_both(changes, message):
    with pytest.raises(ValueError, match=message):
        transformer.declare(config(**changes))


def test_all_but_vocabularies_is_checked_before_there_are_any():
    transformer.check(config(source_vocab=0, target_vocab=0), vocabularies=False)
    with pytest.raises(ValueError, match="heads 0 must be 1"):
        transformer.check(config(source_vocab=0, target_vocab=0, heads=0), vocabularies=False)


def test_fields_of_schemes_that_are_not_taken_do_not_matter():
    transformer.check(config(relative_clip=0, relative_buckets=1, max_length=0, rotary_base=0.0))
