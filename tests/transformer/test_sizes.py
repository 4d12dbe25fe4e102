"""How many parameters a Transformer has, and which sizes and variants do not fit together."""

import dataclasses

import jax
import numpy as np
import pytest

from tfm import params, positions, transformer

ARCH = transformer.Architecture(
    source_vocab=11, target_vocab=11, d_model=16, heads=4, d_ff=24, encoder_layers=2,
    decoder_layers=2, tie="none",
)  # fmt: skip


def architecture(**changes):
    return dataclasses.replace(ARCH, **changes)


def count(arch):
    return params.count(transformer.declare(arch))


def attention_count(d, n, k, h, bias):
    return d * h * (2 * n + 2 * k) + bias * (n * h + 2 * k * h + d)


def by_hand(arch, v_source, v_target):
    """Vaswani 2017 counted on paper: tables, then what one layer of each side holds."""
    d, f, norm = arch.d_model, arch.d_ff, (1 if arch.norm == "rms" else 2) * arch.d_model
    heads = arch.heads, arch.kv_heads or arch.heads, arch.head_dim or d // arch.heads
    attend = attention_count(d, *heads, arch.bias)
    feed_forward = 3 * d * f if arch.activation == "swiglu" else 2 * d * f + f + d
    encoder = arch.encoder_layers * (attend + feed_forward + 2 * norm)
    decoder = arch.decoder_layers * (2 * attend + feed_forward + 3 * norm)
    return (v_source + v_target) * d + encoder + decoder + 2 * norm


@pytest.mark.parametrize("name", list(transformer.PRESETS))
def test_presets_have_the_parameters_counted_by_hand(name):
    arch = dataclasses.replace(transformer.PRESETS[name], source_vocab=37_000, target_vocab=32_000)
    assert count(arch) == by_hand(arch, 37_000, 32_000)


def test_base_and_big_have_the_size_the_paper_says():
    """Vaswani 2017, table 3: 65 and 213 million, one table of 37,000 for all."""
    for name, millions in (("base", 65), ("big", 213)):
        arch = dataclasses.replace(
            transformer.PRESETS[name], source_vocab=37_000, target_vocab=37_000, tie="all"
        )
        assert abs(count(arch) / 1e6 - millions) < 0.03 * millions


def test_variants_have_the_parameters_counted_by_hand():
    arch = architecture(kv_heads=2, head_dim=6, tie="target-output")
    assert count(arch) == by_hand(arch, 11, 11)
    post = dataclasses.replace(arch, norm_placement="post")
    assert count(post) == by_hand(arch, 11, 11) - 4 * 16
    learned = dataclasses.replace(arch, positions="learned:max_length=8")
    assert count(learned) == by_hand(arch, 11, 11) + 2 * 8 * 16
    plain = dataclasses.replace(arch, bias=False)
    assert count(plain) == by_hand(plain, 11, 11)


def test_attention_and_position_variants_have_the_parameters_counted_by_hand():
    """With two layers a side and 4 heads of width 4."""
    plain = count(ARCH)
    for changes, more in [
        ({"positions": "shaw:clip=3"}, 4 * 2 * 7 * 4),
        ({"positions": "t5:buckets=8"}, 2 * 8 * 4),
        ({"positions": "alibi"}, 0),
        ({"positions": "rotary"}, 0),
        ({"positions": "transformer_xl"}, 4 * (16 * 16 + 2 * 16)),
        ({"qk_norm": True}, 6 * 2 * 4),
        ({"attention": "additive"}, 4 * 16),
        ({"attention": "additive", "cross_attention": "additive"}, 6 * 16),
        ({"attention": "linear"}, 0),
        ({"attention": "local"}, 0),
    ]:
        assert count(architecture(**changes)) == plain + more, changes


def test_deepnorm_initialises_values_outputs_and_feed_forward_smaller():
    """Wang 2022: β is 0.87 (N⁴M)^(-1/16) in the encoder and (12M)^(-1/4) in the decoder."""
    post, deep = (
        params.init(jax.random.key(0), transformer.declare(architecture(norm_placement=p)))
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
        ({"attention": "local", "window": 0}, "^window 0: must be 1 or more"),
        ({"soft_cap": -1.0}, "^soft_cap -1.0: must be 0.001 or more, or 0; 0 is off"),
        (
            {"positions": "rotary:scaling=0.0"},
            "^positions.scaling 0.0: must be 0.001 or more; positions are div",
        ),
        ({"attention": "linear", "soft_cap": 5.0}, "'linear' with soft_cap=5.0: .* set it to 0"),
        ({"attention": "linear", "attention_dropout": 0.1}, "attention_dropout=0.1: .*neither"),
        ({"heads": 0}, "^heads 0: must be from 1 to"),
        ({"kv_heads": -4}, "^kv_heads -4: must be from 0 to"),
        ({"head_dim": -1}, "^head_dim -1: must be from 0 to"),
        ({"encoder_layers": 0}, "^encoder_layers 0: must be from 1 to"),
        ({"decoder_layers": -1}, "^decoder_layers -1: must be from 1 to"),
        ({"d_model": 0}, "^d_model 0: must be from 1 to"),
        ({"d_ff": 0}, "^d_ff 0: must be from 1 to"),
        ({"positions": "shaw:clip=0"}, "^positions.clip 0: must be from 1 to"),
        ({"positions": "learned:max_length=0"}, "^positions.max_length 0: must be from 1 to"),
        ({"positions": "rotary:base=1.0"}, "^positions.base 1.0: must be more than 1"),
        (
            {"positions": "rotary:interleaved=True,base=-2.0"},
            "^positions.base -2.0: must be more than 1",
        ),
        ({"positions": "t5:buckets=7"}, "positions='t5.*even number.*got 7"),
        ({"positions": "t5:buckets=2"}, "^positions.buckets 2: must be from 4 to"),
        ({"positions": "t5:buckets=8,max_distance=4"}, "4 must be more than the 4 exact buckets"),
        ({"positions": 3}, "^positions 3: must be a Scheme, not int"),
        ({"dropout": 1.0}, "^dropout 1.0: must be from 0 to 0.999; 0 is off"),
        ({"attention_dropout": -0.1}, "^attention_dropout -0.1: must be from 0"),
        ({"activation_dropout": float("nan")}, "^activation_dropout nan: must be from 0"),
    ],
)
def test_sizes_that_do_not_fit_are_an_error_that_names_both(changes, message):
    with pytest.raises(ValueError, match=message):
        transformer.declare(architecture(**changes))


def test_all_but_vocabularies_is_checked_before_there_are_any():
    transformer.validate(architecture(source_vocab=0, target_vocab=0), vocabularies=False)
    with pytest.raises(ValueError, match="heads 0: must be from 1"):
        transformer.validate(
            architecture(source_vocab=0, target_vocab=0, heads=0), vocabularies=False
        )


def test_positions_may_be_given_as_text():
    by_text, by_scheme = (
        architecture(positions=p) for p in ("rotary:base=500", positions.Rotary(base=500.0))
    )
    assert by_text == by_scheme and hash(by_text) == hash(by_scheme)
    assert by_text.positions == positions.Rotary(base=500.0)
    assert dataclasses.replace(by_text, positions="t5").positions == positions.T5()
    assert dataclasses.replace(by_text, heads=2).positions == by_scheme.positions
    with pytest.raises(ValueError, match="no scheme 'rotry'; did you mean 'rotary'"):
        architecture(positions="rotry")
    with pytest.raises(ValueError, match="rotary has no hyperparameter 'bse'; did you mean"):
        architecture(positions="rotary:bse=3")


def test_an_architecture_has_the_hyperparameters_of_its_own_scheme_only():
    for field in ("max_length", "relative_clip", "relative_buckets", "rotary_base"):
        with pytest.raises(TypeError, match=field):
            transformer.Architecture(**{field: 8})


def test_an_architecture_says_nothing_of_how_it_is_computed():
    names = [{f.name for f in dataclasses.fields(x)} for x in (ARCH, transformer.Execution())]
    assert not names[0] & names[1]
    assert names[1] == {"implementation", "lookup", "dtype", "weights", "unroll", "remat"}
