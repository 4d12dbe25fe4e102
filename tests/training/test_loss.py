import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.training.loss import cross_entropy

B, T, D, V = 3, 7, 8, 11


def inputs(dtype=jnp.float32, scale=1.0):
    keys = jax.random.split(jax.random.key(0), 4)
    hidden = scale * jax.random.normal(keys[0], (B, T, D))
    table = jax.random.normal(keys[1], (V, D))
    labels = jax.random.randint(keys[2], (B, T), 0, V)
    weights = jax.random.randint(keys[3], (B, T), 0, 3).astype(jnp.float32) / 2
    assert float((weights == 0).mean()) > 0.1
    return hidden.astype(dtype), table.astype(dtype), labels, weights


def reference(hidden, table, labels, weights, smoothing):
    """The sums in float64 NumPy, from torch's definition of label_smoothing.

    torch.nn.functional.cross_entropy: the target is (1 - ε)·one_hot + ε/V.
    Returns also the gradients of the loss, from the closed form softmax - target.
    """
    hidden, table = np.asarray(hidden, np.float64), np.asarray(table, np.float64)
    labels, weights = np.asarray(labels), np.asarray(weights, np.float64)
    logits = hidden @ table.T
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    one_hot = np.eye(len(table))[labels]
    target = (1 - smoothing) * one_hot + smoothing / len(table)
    sums = (
        -(weights * (target * log_p).sum(-1)).sum(),
        -(weights * (one_hot * log_p).sum(-1)).sum(),
        (weights * (logits.argmax(-1) == labels)).sum(),
        weights.sum(),
    )
    d_logits = weights[..., None] * (np.exp(log_p) - target)
    gradients = d_logits @ table, np.einsum("btv,btd->vd", d_logits, hidden)
    return sums, gradients


def differentiated(hidden, table, labels, weights, smoothing=0.1, chunk=6, scale=1.0):
    def loss(hidden, table):
        sums = cross_entropy(hidden, table, labels, weights, label_smoothing=smoothing, chunk=chunk)
        return scale * sums.loss, sums

    (_, sums), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(hidden, table)
    return sums, gradients


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 6, 9, 15, 1000])  # slices of 1, 2, 3, 4 (of 5) and 7
def test_sums_and_gradients_equal_float64(smoothing, chunk):
    arrays = inputs()
    want, want_gradients = reference(*arrays, smoothing)
    plain = cross_entropy(*arrays, label_smoothing=smoothing, chunk=chunk)
    sums, gradients = differentiated(*arrays, smoothing, chunk)
    np.testing.assert_allclose(plain, want, rtol=2e-6)
    np.testing.assert_allclose(sums, want, rtol=2e-6)
    for got, expected in zip(gradients, want_gradients, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_gradients_equal_finite_differences():
    hidden, table, labels, weights = inputs()
    _, gradients = differentiated(hidden, table, labels, weights)
    rng = np.random.default_rng(0)
    d_hidden, d_table = rng.normal(size=hidden.shape), rng.normal(size=table.shape)
    h = 1e-5

    def along(t):
        hidden64, table64 = np.asarray(hidden, np.float64), np.asarray(table, np.float64)
        sums, _ = reference(hidden64 + t * d_hidden, table64 + t * d_table, labels, weights, 0.1)
        return sums[0]

    slope = (along(h) - along(-h)) / (2 * h)
    got = np.vdot(gradients[0], d_hidden) + np.vdot(gradients[1], d_table)
    assert got == pytest.approx(slope, rel=1e-5)


def test_gradients_equal_autodiff_of_the_naive_loss_with_a_cotangent():
    hidden, table, labels, weights = inputs()

    def naive(hidden, table):
        log_p = jax.nn.log_softmax(hidden @ table.T)
        nll = -jnp.take_along_axis(log_p, labels[..., None], -1)[..., 0]
        return -3.7 * ((0.9 * nll - 0.1 * log_p.mean(-1)) * weights).sum()

    want = jax.grad(naive, (0, 1))(hidden, table)
    _, got = differentiated(hidden, table, labels, weights, scale=-3.7)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_only_the_loss_has_a_gradient():
    hidden, table, labels, weights = inputs()

    def others(hidden):
        sums = cross_entropy(hidden, table, labels, weights, label_smoothing=0.1, chunk=6)
        return sums.nll + sums.correct + sums.tokens

    assert not np.any(jax.grad(others)(hidden))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_token_of_weight_zero_has_no_effect(bad):
    hidden, table, labels, weights = inputs()
    padding = np.asarray(weights) == 0
    broken_hidden = jnp.where(padding[..., None], bad, hidden)
    broken_labels = jnp.where(padding, -1, labels)
    want, want_gradients = differentiated(hidden, table, labels, weights)
    got, gradients = differentiated(broken_hidden, table, broken_labels, weights)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(gradients[0], want_gradients[0])
    np.testing.assert_array_equal(gradients[1], want_gradients[1])
    assert not np.any(np.asarray(gradients[0])[padding])
    assert np.all(np.any(np.asarray(gradients[0])[~padding], axis=-1))


def test_batch_of_padding_gives_zeros():
    hidden, table, labels, weights = inputs()
    sums, gradients = differentiated(hidden, table, labels, jnp.zeros_like(weights))
    assert not any(np.any(x) for x in (*sums, *gradients))


def test_large_logits_stay_finite():
    arrays = inputs(scale=1e4)
    want, want_gradients = reference(*arrays, 0.1)
    sums, gradients = differentiated(*arrays)
    np.testing.assert_allclose(sums, want, rtol=1e-5)
    np.testing.assert_allclose(gradients[0], want_gradients[0], atol=1e-4)


def test_bfloat16_inputs_give_bfloat16_gradients_and_float32_sums():
    arrays = inputs(jnp.bfloat16)
    want, want_gradients = reference(*arrays, 0.1)
    sums, gradients = differentiated(*arrays)
    assert all(x.dtype == jnp.float32 for x in sums)
    # The products of bfloat16 numbers are exact in float32: only the order of sums differs.
    np.testing.assert_allclose(sums, want, rtol=1e-5)
    for got, expected in zip(gradients, want_gradients, strict=True):
        assert got.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=0.02, atol=0.02)


def test_float32_table_with_bfloat16_hidden():
    hidden, table, labels, weights = inputs()
    _, gradients = differentiated(hidden.astype(jnp.bfloat16), table, labels, weights)
    assert gradients[0].dtype == jnp.bfloat16
    assert gradients[1].dtype == jnp.float32


def shapes_and_products(jaxpr):
    """Shapes of all outputs in a jaxpr, nested ones included, and the number of matrix products."""
    shapes, products = [], 0
    for equation in jaxpr.eqns:
        shapes += [v.aval.shape for v in equation.outvars]
        products += equation.primitive.name == "dot_general" and len(shapes[-1]) == 3
        products += equation.primitive.name == "dot_general" and shapes[-1] == (V, D)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            more, n = shapes_and_products(inner)
            shapes, products = shapes + more, products + n
    return shapes, products


def test_three_matrix_products_and_no_array_of_all_logits():
    arrays = inputs()
    jaxpr = jax.make_jaxpr(lambda *a: differentiated(*a, chunk=6))(*arrays).jaxpr
    shapes, products = shapes_and_products(jaxpr)
    assert products == 3
    assert (B, 2, V) in shapes
    assert max(np.prod(s) for s in shapes if V in s[1:]) == B * 2 * V
    plain = jax.make_jaxpr(lambda *a: cross_entropy(*a, label_smoothing=0.1, chunk=6))(*arrays)
    assert shapes_and_products(plain.jaxpr)[1] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table_VD": jnp.zeros((V, D + 1))}, r"table is \[11, 9\]: want \[V,8\]"),
        ({"labels_BT": jnp.zeros((B, T + 1), int)}, r"labels are \[3, 8\]"),
        ({"weights_BT": jnp.zeros((B,))}, r"weights \[3\]"),
        ({"label_smoothing": 1.0}, "train.label_smoothing 1.0"),
        ({"chunk": 0}, "train.loss_chunk 0"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    names = ("hidden_BTD", "table_VD", "labels_BT", "weights_BT")
    arguments = dict(zip(names, inputs(), strict=True)) | {"label_smoothing": 0.1, "chunk": 6}
    with pytest.raises(ValueError, match=message):
        cross_entropy(**(arguments | changes))
