import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import positions

D = 16


def closed_form(position, d_model):
    """Vaswani 2017, §3.5, one number at a time, sines before cosines."""
    angles = [position / 10_000 ** (2 * i / d_model) for i in range(d_model // 2)]
    return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]


def test_sinusoids_are_those_of_the_paper():
    ids = jnp.array([[0, 1, 2], [7, 100, 1000]])
    expected = [[closed_form(p, D) for p in row] for row in ids.tolist()]
    # A float32 angle near 1000 is known to 3e-5.
    np.testing.assert_allclose(positions.sinusoidal(ids, D), expected, atol=1e-4)
    np.testing.assert_allclose(positions.sinusoidal(ids[0], D), expected[0], atol=1e-6)


def test_products_depend_on_the_distance_alone():
    x = np.asarray(positions.sinusoidal(jnp.arange(50), D), np.float64)
    products = x @ x.T
    for distance in (0, 1, 7, 20):
        diagonal = np.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-4)


def test_the_longest_wavelength_is_a_setting():
    x = positions.sinusoidal(jnp.array([3]), 4, max_wavelength=100.0)
    angles = np.array([3.0, 0.3])
    np.testing.assert_allclose(x[0], np.concatenate([np.sin(angles), np.cos(angles)]), atol=1e-6)


def test_an_odd_width_is_an_error():
    with pytest.raises(ValueError, match="even d_model, got 7"):
        positions.sinusoidal(jnp.arange(3), 7)


def test_learned_positions_are_rows_and_beyond_the_table_an_error_or_nan(rng):
    """A compiled function cannot raise: it gives NaN."""
    table = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)
    for wrong, ids in ((5, jnp.array([[0, 4], [2, 5]])), (-1, np.array([-1, 2]))):
        with pytest.raises(ValueError, match=f"position {wrong}: .* has 5 rows, 0 to 4; shorten"):
            positions.learned(ids, table)
    x = jax.jit(positions.learned)(jnp.array([[0, 4], [2, 5]]), table)
    np.testing.assert_array_equal(x[0], table[np.array([0, 4])])
    np.testing.assert_array_equal(x[1, 0], table[2])
    assert np.all(np.isnan(x[1, 1]))


def test_the_declared_table_has_one_row_a_position():
    declared = positions.learned_params(9, 4)
    assert (declared.shape, declared.axes) == ((9, 4), ("position", "embed"))
