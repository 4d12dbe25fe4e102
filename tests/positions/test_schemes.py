"""The position schemes by name, and the questions that the model asks each of them."""

import ast
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tfm
from tfm import params, positions, ranges
from tfm.positions import SCHEMES, schemes

pytestmark = pytest.mark.usefixtures("quick_compile")

D, N, H, T = 16, 4, 4, 5
# A value of every hyperparameter that is not its default.
CHANGED = {
    "sinusoidal": {
        "max_wavelength": 500.0,
        "endpoint": True,
        "interleaved": True,
        "offset": 2,
    },
    "learned": {"max_length": 9, "offset": 2, "like_embeddings": False},
    "none": {},
    "shaw": {"clip": 3},
    "t5": {"buckets": 8, "max_distance": 6},
    "alibi": {},
    "rotary": {"base": 500.0, "scaling": 2.0, "interleaved": True},
    "transformer_xl": {},
    "fire": {"hidden": 5, "threshold": 4.0},
}


def test_every_scheme_with_every_hyperparameter_is_tested_here():
    assert CHANGED.keys() == SCHEMES.keys()
    for name, kind in SCHEMES.items():
        assert {f.name for f in dataclasses.fields(kind)} == CHANGED[name].keys()
        assert all(getattr(kind(), key) != value for key, value in CHANGED[name].items())


@pytest.mark.parametrize("name", SCHEMES)
def test_text_and_data_give_back_the_same_scheme(name):
    for scheme in (SCHEMES[name](), SCHEMES[name](**CHANGED[name])):
        assert schemes.name(scheme) == name
        for again in (
            schemes.parse(schemes.to_text(scheme)),
            schemes.from_dict(schemes.to_dict(scheme)),
            positions.make(name, **dataclasses.asdict(scheme)),
        ):
            assert again == scheme and hash(again) == hash(scheme)
            values = (dataclasses.asdict(x).values() for x in (again, scheme))
            kinds, expected = (list(map(type, v)) for v in values)
            assert kinds == expected
    assert schemes.to_text(SCHEMES[name]()) == name  # defaults are left out


def test_texts_as_on_the_command_line():
    assert schemes.parse("rotary:base=500,scaling=2") == positions.Rotary(500.0, 2.0)
    assert schemes.parse(" rotary : base = 5e2 , interleaved = true ") == positions.Rotary(
        base=500.0, interleaved=True
    )
    assert schemes.parse("rotary:interleaved=False") == positions.Rotary()
    assert schemes.parse("t5:buckets=8") == positions.T5(buckets=8)
    assert schemes.to_text(positions.Rotary(500.0, 2.0)) == "rotary:base=500.0,scaling=2.0"
    assert schemes.to_dict(positions.T5(8)) == {
        "scheme": "t5", "buckets": 8, "max_distance": 128,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rotry", "no scheme 'rotry'; did you mean 'rotary'"),
        ("xyzzy", "no scheme 'xyzzy'; known: sinusoidal, learned, none"),
        ("", "no scheme ''; known: sinusoidal"),
        ("rotary_interleaved", "no scheme 'rotary_interleaved'; known: .*rotary"),
        ("rotary:bse=3", "rotary has no hyperparameter 'bse'; did you mean 'base'"),
        ("t5:clip=3", "t5 has no hyperparameter 'clip'; known: buckets, max_distance"),
        ("alibi:slope=3", "alibi has no hyperparameter 'slope'; it has none"),
        ("rotary:base", "'base' in 'rotary:base' is not name=value"),
        ("rotary:base=x", "'base=x' in 'rotary:base=x' is not name=value"),
        ("t5:buckets=8.5", "buckets in 't5:buckets=8.5' is not of type int"),
        ("shaw:clip=True", "clip in 'shaw:clip=True' is not of type int"),
        ("rotary:interleaved=1", "interleaved in 'rotary:interleaved=1' is not of type bool"),
        ("rotary:base='x'", "base in .* is not of type float"),
    ],
)
def test_a_text_that_names_no_scheme_is_an_error_with_the_nearest_known_name(text, message):
    with pytest.raises(ValueError, match=f"positions: {message}"):
        schemes.parse(text)


def test_data_that_name_no_scheme_are_an_error_with_the_nearest_known_name():
    with pytest.raises(ValueError, match="no scheme 'sinusoid'; did you mean 'sinusoidal'"):
        schemes.from_dict({"scheme": "sinusoid"})
    with pytest.raises(ValueError, match="learned has no hyperparameter 'length'; did you mean"):
        schemes.from_dict({"scheme": "learned", "length": 3})
    with pytest.raises(ValueError, match="rotary has no hyperparameter 'sclaing'; did you mean"):
        positions.make("rotary", sclaing=2.0)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_does_what_it_says_it_acts_on_and_nothing_else(name, draw, rng):
    """Its parameters are declared for a side or a layer; its answers have the documented shapes."""
    scheme = SCHEMES[name](**CHANGED[name])
    assert scheme.problem(D, N, H) is None
    declared = {"side": scheme.side_params(D, N), "layer": scheme.layer_params(D, N, H)}
    drawn = {key: None if tree is None else draw(tree) for key, tree in declared.items()}
    for tree in declared.values():
        leaves = jax.tree.leaves(tree, is_leaf=params.is_param)
        assert tree is None or (leaves and all(map(params.is_param, leaves)))

    at_BT, distances = jnp.broadcast_to(jnp.arange(T), (2, T)), positions.consecutive(T, T)
    options = {"heads": N, "bidirectional": True}
    added_BTD = scheme.input(drawn["side"], at_BT, D)
    rotate = scheme.rotation(at_BT)
    bias = scheme.bias(drawn["side"], distances, at_BT, **options)
    relative = scheme.relative(drawn["layer"], distances)
    answers = {"input": added_BTD, "rotation": rotate, "bias": bias, "relative": relative}
    given = {key for key, answer in answers.items() if answer is not None}
    assert given == ({scheme.acts_on} if name != "none" else set())
    assert (scheme.frequencies(H) is not None) == (rotate is not None)

    q = jnp.asarray(rng.normal(size=(2, N, T, H)), jnp.float32)
    if added_BTD is not None:
        assert (added_BTD.shape, added_BTD.dtype) == ((2, T, D), jnp.float32)
    if rotate is not None:
        assert rotate(q).shape == q.shape and scheme.frequencies(H).shape == (H // 2,)
        np.testing.assert_allclose(rotate(q)[:, :, 0], q[:, :, 0])  # position 0 is left as it is
    if bias is not None:
        assert bias.shape in ((1, N, T, T), (2, N, T, T)) and bias.dtype == jnp.float32
    if relative is not None:
        assert relative.scores(q, q).shape == (2, N, T, T)


def test_the_rotation_of_a_scheme_is_that_of_its_hyperparameters(rng):
    x = jnp.asarray(rng.normal(size=(2, N, T, H)), jnp.float32)
    at_BT = jnp.asarray(rng.integers(0, 50, (2, T)))
    fields = {"base": 500.0, "scaling": 2.0, "interleaved": True}
    expected = positions.rotate(x, at_BT[:, None], **fields)
    np.testing.assert_array_equal(positions.Rotary(**fields).rotation(at_BT)(x), expected)
    assert np.abs(positions.Rotary().rotation(at_BT)(x) - expected).max() > 0.1
    np.testing.assert_allclose(
        positions.Rotary(**fields).frequencies(H), 500.0 ** (-np.arange(2) / 2) / 2, rtol=1e-6
    )


def test_only_learned_positions_have_a_longest_sentence():
    longest = {name: kind().longest for name, kind in SCHEMES.items()}
    assert {name for name, n in longest.items() if n is not None} == {"learned"}
    assert positions.Learned(9).longest == 9


def test_only_rotary_positions_can_be_scaled():
    assert positions.Rotary(base=7.0).scaled(2.0) == positions.Rotary(base=7.0, scaling=2.0)
    with pytest.raises(
        ValueError, match=r"rotary_scaling 0\.0: must be 0\.001 or more; positions are div"
    ):
        positions.Rotary().scaled(0.0)
    for name in SCHEMES.keys() - {"rotary"}:
        with pytest.raises(ValueError, match=r"rotary_scaling 2\.0: .*not rotary; leave it out"):
            SCHEMES[name]().scaled(2.0)


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (positions.Sinusoidal(), "d_model 15 must be even"),
        (positions.TransformerXL(), "d_model 15 must be even"),
        (positions.Rotary(), "head width 5 must be even"),
        (positions.T5(7), "even number of buckets, 4 or more, got 7"),
        (positions.T5(8, 4), "max_distance 4 must be more than the 4 exact buckets"),
    ],
)
def test_a_scheme_that_does_not_fit_the_sizes_says_why(scheme, message):
    assert message in scheme.problem(15, 3, 5)


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (positions.Sinusoidal(1.0), "max_wavelength 1.0: must be more than 1"),
        (
            positions.Rotary(scaling=0.0),
            "scaling 0.0: must be 0.001 or more; positions are divided",
        ),
        (positions.Rotary(scaling=float("nan")), "scaling nan: must be 0.001 or more"),
        (positions.Rotary(base=1.0), "base 1.0: must be more than 1"),
        (positions.Learned(0), "max_length 0: must be from 1 to"),
        (positions.Shaw(0), "clip 0: must be from 1 to"),
        (positions.T5(2), "buckets 2: must be from 4 to"),
        (positions.make("rotary", base="x"), "base 'x': must be a float, not str"),
    ],
)
def test_a_hyperparameter_out_of_its_range_is_refused(scheme, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        ranges.check(scheme)


def compared_names(path):
    """(line, name) of scheme names that a file compares, matches or looks up.

    Docstrings and messages are no comparisons. "none" names other things too: it counts where the
    comparison speaks of positions or schemes.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        sides = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            sides = [node.value]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("startswith", "endswith"):
                sides = node.args
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Dict):
            sides = [key for key in node.value.keys if key is not None]  # {"rotary": ...}[name]
        for side in sides:
            elements = getattr(side, "elts", [side])
            for element in elements:
                name = element.value if isinstance(element, ast.Constant) else None
                text = ast.unparse(node)
                if name in SCHEMES and (name != "none" or "position" in text or "scheme" in text):
                    yield element.lineno, name


def test_no_other_file_compares_the_names_of_schemes():
    """A new scheme must not need a change elsewhere."""
    root = pathlib.Path(tfm.__file__).parent
    found = [
        (str(path.relative_to(root)), line, name)
        for path in sorted(root.rglob("*.py"))
        if path.parent != root / "positions"
        and path.name != "config_format.py"  # it reads what older versions wrote
        for line, name in compared_names(path)
    ]
    assert found == []


def test_a_comparison_of_a_scheme_s_name_would_be_found(tmp_path):
    path = tmp_path / "other.py"
    path.write_text(
        'if x == "rotary" or y in ("t5", "no") or z.startswith("alibi"):\n'
        '    match x:\n        case "shaw":\n            pass\n'
        'y = {"learned": 1}[x], arch.positions == "none", tie == "none"\n'
        'print("transformer_xl", x == "other")\n'
    )
    names = sorted(name for _, name in compared_names(path))
    assert names == ["alibi", "learned", "none", "rotary", "shaw", "t5"]
