"""Checks of arguments cost nothing in a compiled program, and what they say."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from tfm import attention, params, transformer, values
from tfm.shapes import Check
from tfm.transformer import Architecture, Batch
from tfm.values import Values

ARCH = Architecture(
    source_vocab=11, target_vocab=11, d_model=8, heads=2, d_ff=16, encoder_layers=1,
    decoder_layers=1, attention_dropout=0.1, positions="shaw",
)  # fmt: skip
KEY = jax.eval_shape(lambda: jax.random.key(0))


def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def programs():
    """The programs of four entrances."""
    ids = array(3, 5, dtype=jnp.int32)
    q, k, mask = array(3, 5, 4, 8), array(3, 7, 2, 8), array(3, 1, 5, 7, dtype=jnp.bool_)
    weights = params.abstract(attention.attention_params(8, 4, 2, 4, True))
    model = params.abstract(transformer.declare(ARCH))
    layered = jax.eval_shape(lambda p: transformer.inference_params(p, ARCH), model)
    cache = jax.eval_shape(
        lambda p, memory, segments: transformer.init_cache(
            p, ARCH, memory, segments, hypotheses=2, max_length=4
        ),
        layered, array(3, 5, 8), ids,
    )  # fmt: skip

    def multi_head(p, x, memory, mask, key):
        kv = attention.keys_values(p, memory)
        return attention.multi_head(p, x, kv, mask=mask, dropout_rate=0.1, key=key)

    calls = {
        "attend": (lambda q, k, mask: attention.attend(q, k, k, mask=mask), (q, k, mask)),
        "multi_head": (multi_head, (weights, array(3, 5, 8), array(3, 7, 8), mask, KEY)),
        "forward": (
            lambda p, key, *batch: transformer.forward(p, ARCH, Batch(*batch), key=key),
            (model, KEY, *[ids] * 6),
        ),
        "decode_step": (
            lambda p, cache, tokens: transformer.decode_step(p, ARCH, cache, tokens, tokens),
            (layered, cache, array(3, 2, dtype=jnp.int32)),
        ),
    }
    jax.clear_caches()
    return {name: str(jax.make_jaxpr(f)(*arguments)) for name, (f, arguments) in calls.items()}


def test_compiled_programs_do_not_contain_the_checks(monkeypatch):
    """The same programs come of functions that check nothing."""
    checked = programs()
    for kind in (Check, Values):
        for name, method in vars(kind).items():
            if inspect.isfunction(method) and name not in ("__init__", "error", "size"):
                monkeypatch.setattr(kind, name, lambda self, *args, **kwargs: None)
    monkeypatch.setattr(Check, "size", lambda self, letter: 999_999)  # large and odd
    x = jnp.ones((1, 2, 2, 4))
    attention.attend(x, x, x, mask=jnp.ones((1, 1, 2, 2)))  # numbers as a mask: nothing checks
    unchecked = programs()
    for name in checked:
        assert checked[name] == unchecked[name], name


def test_a_batch_of_symbolic_size_can_be_exported():
    (b,) = export.symbolic_shape("b")
    ids = array(b, 5, dtype=jnp.int32)
    exported = export.export(jax.jit(lambda p, *ids: transformer.forward(p, ARCH, Batch(*ids))))(
        params.abstract(transformer.declare(ARCH)), *[ids] * 6
    )
    assert str(exported.out_avals[0].shape) == "(b, 5, 8)"


def test_a_letter_has_one_size_in_all_arguments():
    check = Check("f", D=(4, "arch.d_model"))
    check.floats(x_BTD=jnp.ones((2, 3, 4)), y_BTD=np.ones((2, 3, 4)))
    assert (check.size("B"), check.size("T")) == (2, 3)
    with pytest.raises(
        ValueError, match=r"^f: y_TD \[T,D\] has shape \(3, 5\), but D is 4 in arch"
    ):
        check.floats(y_TD=np.ones((3, 5)))
    with pytest.raises(ValueError, match=r"^f: y \[T,B\] has shape \(3, 4\), but B is 2 in x_BTD"):
        check.floats("TB", y=np.ones((3, 4)))
    with pytest.raises(
        ValueError, match=r"^f: x has shape \(4,\); .* 2 or more dimensions \[...,T,D"
    ):
        check.floats("...TD", x=np.ones(4))


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        ("floats", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.float8_e4m3fn, np.float64]),
        ("ints", [jnp.int32, jnp.int8, jnp.uint32, np.int64, jnp.int4]),
        ("bools", [jnp.bool_]),
    ],
)
def test_kinds_of_arrays(kind, good):
    every = [jnp.float32, jnp.bfloat16, jnp.int32, jnp.bool_, jnp.complex64]
    for dtype in dict.fromkeys([*every, *good]):
        check = getattr(Check("f"), kind)
        if dtype in good:
            check(x_B=array(2, dtype=dtype))
        else:
            with pytest.raises(ValueError, match=r"^f: x_B is a .* array of shape"):
                check(x_B=array(2, dtype=dtype))


def test_what_has_no_shape_is_described_by_value_or_type():
    for x, shown in (
        (None, "None"), (3, "3"), ([1.0] * 99, "of type list"), ("text", "'text'"),
        (np.ones(3), r"a float64 array of shape \(3,\)"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"^f: x_B is {shown}; it must be an integer array"):
            Check("f").ints(x_B=x)


def test_arrays_of_other_libraries_are_no_arrays():
    class Tensor:
        shape, dtype = (3,), "torch.float32"

    with pytest.raises(ValueError, match=r"^f: x_B is a torch.float32 array"):
        Check("f").floats(x_B=Tensor())
    assert values.kind_of(None) == values.kind_of("no dtype") == "other"


def test_values_are_read_only_where_they_are_known():
    ids = jnp.array([0, 7])
    with pytest.raises(ValueError, match=r"^f: ids holds 7, but the rows of table are 0 to 6"):
        Check("f").within(7, "the rows of table", ids=ids)
    jax.eval_shape(lambda ids: Check("f").within(7, "the rows of table", ids=ids), ids)
    with pytest.raises(ValueError, match="ids holds 7"):  # a constant is known under jit as well
        jax.jit(lambda: Check("f").within(7, "the rows of table", ids=ids))()


def test_numbers_and_names():
    check = Values("f")
    check.counts(n=np.int64(3))
    check.counts(0, n=0)
    check.positive(x=1, y=np.float32(2), z=jnp.float32(3))
    check.rate(x=0, y=0.999)
    for wrong in (0, -1, 1.0, True, "3", None, np.float32(2), jnp.ones(2)):
        with pytest.raises(ValueError, match=r"^f: n is .*; it must be an integer, 1 or more"):
            check.counts(n=wrong)
    for wrong in (0.0, -1, np.nan, np.inf, "3", None, True, jnp.ones(2), jnp.float32(-1)):
        with pytest.raises(ValueError, match=r"^f: x is .*; it must be .*positive and finite"):
            check.positive(x=wrong)
    with pytest.raises(ValueError, match=r"^f: kind 'gelo' is not known; did you mean 'gelu'"):
        check.choice(("relu", "gelu"), kind="gelo")


def test_parameters_are_found_in_any_mapping():
    from flax.core import freeze

    tree = freeze({"q": {"w": jnp.ones((4, 2))}})
    Check("f").params(tree, {"q/w": "DH", "q/b?": "H"}, "declare")
    with pytest.raises(
        ValueError, match=r"^f: params\['q'\]\['b'\] is missing; make params as decl"
    ):
        Check("f").params(tree, {"q/b": "H"}, "declare")
    for wrong in (None, 3, jnp.ones(3), {"q": None}, {"q": [1]}):
        with pytest.raises(ValueError, match=r"params\['q'\]\['w'\] is missing"):
            Check("f").params(wrong, {"q/w": "DH"}, "declare")
