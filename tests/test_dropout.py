"""Dropout's bits are our own hash, so their statistics are tested as a generator's would be."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import layers

pytestmark = pytest.mark.usefixtures("quick_compile")

N = 2**16


def kept(key, shape=(N,), rate=0.5):
    return np.asarray(layers.dropout(jnp.ones(shape), rate, key)) != 0


def correlation(a, b):
    a, b = a.astype(float).ravel(), b.astype(float).ravel()
    return float(((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std()))


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(50_000,), (64, 1024), (16, 33, 7, 31), (1, 4, 256, 256)])
def test_the_share_kept_is_binomial(shape, rate):
    for seed in range(3):
        mask = kept(jax.random.key(seed), shape, rate)
        error = math.sqrt(rate * (1 - rate) / mask.size)
        assert abs(mask.mean() - (1 - rate)) < 4.5 * error


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_every_row_and_column_is_dropped_at_the_same_rate(rate):
    """Counts by row and by column spread as binomials do: no stripes."""
    mask = kept(jax.random.key(3), (512, 512), rate)
    for axis in (0, 1):
        z = (mask.sum(axis=axis) - 512 * (1 - rate)) / math.sqrt(512 * rate * (1 - rate))
        assert np.abs(z).max() < 5
        assert 0.8 < z.var() < 1.25  # the variance of 512 unit normals, to 4 standard errors


def keys_in_use():
    """Neighbouring seeds, splits, folds, and both kinds of generator; no two hold equal words."""
    seeds = [jax.random.key(i) for i in (0, 1, 2, 3, 4, 2**31, 2**32 - 1)]
    splits = list(jax.random.split(jax.random.key(0), 4))
    folds = [jax.random.fold_in(jax.random.key(1), i) for i in range(4)]
    other = [jax.random.key(i, impl="rbg") for i in (7, 8, 9)]
    return seeds + splits + folds + other


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_masks_of_different_keys_are_uncorrelated(rate):
    masks = [kept(key, rate=rate) for key in keys_in_use()]
    worst = max(abs(correlation(a, b)) for a, b in itertools.combinations(masks, 2))
    assert worst < 5 / math.sqrt(N)  # 153 pairs: the largest of so many normals is about 3


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_positions_of_one_mask_are_uncorrelated(rate):
    for seed in range(3):
        mask = kept(jax.random.fold_in(jax.random.key(9), seed), rate=rate)
        for lag in [*range(1, 33), 64, 128, 256, 512, 1000, 1024, 4096, 32768]:
            assert abs(correlation(mask[lag:], mask[:-lag])) < 5 / math.sqrt(N - lag)


def test_masks_of_different_keys_are_uncorrelated_at_any_lag():
    masks = [kept(jax.random.key(i)).astype(float) for i in range(6)]
    spectra = [np.fft.fft((m - m.mean()) / m.std()) for m in masks]
    for a, b in itertools.combinations(spectra, 2):
        lags = np.fft.ifft(a * b.conj()).real / N
        assert np.abs(lags).max() < 6.5 / math.sqrt(N)  # 65,536 lags


def test_the_same_key_gives_the_same_mask():
    key = jax.random.key(5)
    np.testing.assert_array_equal(kept(key), kept(jax.random.clone(key)))
    jitted = jax.jit(lambda x, k: layers.dropout(x, 0.5, k))(jnp.ones(N), key)
    np.testing.assert_array_equal(np.asarray(jitted) != 0, kept(key))


def test_raw_keys_are_refused_and_wrapped_they_are_typed_keys():
    raw = jax.random.PRNGKey(5)
    with pytest.raises(ValueError, match=r"key is a uint32 array .* jax\.random\.wrap_key_data"):
        kept(raw)
    np.testing.assert_array_equal(kept(jax.random.wrap_key_data(raw)), kept(jax.random.key(5)))


@pytest.mark.parametrize("number", [1, 4])
def test_an_array_of_keys_has_a_key_for_each_row(number):
    """The mask of a row, or of several consecutive rows, is that of their key alone."""
    keys = jax.random.split(jax.random.key(5), number)
    mask = kept(keys, (len(keys) * 3, 8, 7))
    np.testing.assert_array_equal(mask, np.concatenate([kept(key, (3, 8, 7)) for key in keys]))
    halves = layers.split(keys, 2)
    for i, key in enumerate(keys):
        for half, own in zip(halves, layers.split(key, 2), strict=True):
            np.testing.assert_array_equal(kept(half[i], (64,)), kept(own, (64,)))


def test_kept_entries_are_scaled_so_that_the_mean_does_not_change(rng):
    x = jnp.asarray(rng.normal(size=(64, 1024)), jnp.float32)
    y = np.asarray(layers.dropout(x, 0.2, jax.random.key(0)))
    np.testing.assert_allclose(y[y != 0], np.asarray(x)[y != 0] / 0.8, rtol=1e-6)
    assert layers.dropout(x.astype(jnp.bfloat16), 0.2, jax.random.key(0)).dtype == jnp.bfloat16
    error = np.sqrt(np.square(x).mean() * 0.25 / x.size)  # var of (y - x) is x² p/(1-p)
    assert abs(y.mean() - x.mean()) < 4 * error


def test_the_gradient_is_the_mask():
    x, key = jnp.linspace(-1, 1, 1000), jax.random.key(0)
    grad = jax.grad(lambda x: layers.dropout(x, 0.3, key).sum())(x)
    np.testing.assert_allclose(grad, kept(key, (1000,), 0.3) / np.float32(0.7), rtol=1e-6)


def test_no_rate_or_no_key_is_the_identity(rng):
    x = jnp.asarray(rng.normal(size=(4, 5)), jnp.float32)
    np.testing.assert_array_equal(layers.dropout(x, 0.5, None), x)
    np.testing.assert_array_equal(layers.dropout(x, 0.0, jax.random.key(0)), x)


def test_splitting_no_key_gives_no_keys():
    assert layers.split(None, 3) == [None, None, None]
    keys = layers.split(jax.random.key(0), 3)
    assert len({tuple(jax.random.key_data(k).tolist()) for k in keys}) == 3
