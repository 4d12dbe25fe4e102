import jax.numpy as jnp
import numpy as np

from tfm import masks


def drawn(*rows):
    return np.array([[cell == "1" for cell in row.split()] for row in rows])


def test_padding_hides_the_zeros_whatever_the_dtype():
    for dtype in (bool, np.int32, np.float32):
        mask = masks.padding(jnp.array([[1, 1, 0], [1, 0, 0]], dtype))
        assert (mask.shape, mask.dtype) == ((2, 1, 1, 3), bool)
        np.testing.assert_array_equal(mask[:, 0, 0], drawn("1 1 0", "1 0 0"))


def test_padding_takes_segment_ids():
    np.testing.assert_array_equal(masks.padding(jnp.array([[1, 2, 0]]))[0, 0], drawn("1 1 0"))


def test_causal_is_the_lower_triangle():
    mask = masks.causal(4)
    assert (mask.shape, mask.dtype) == ((1, 1, 4, 4), bool)
    np.testing.assert_array_equal(mask[0, 0], drawn("1 0 0 0", "1 1 0 0", "1 1 1 0", "1 1 1 1"))


def test_causal_with_more_keys_than_queries():
    np.testing.assert_array_equal(masks.causal(2, 4)[0, 0], drawn("1 0 0 0", "1 1 0 0"))
    np.testing.assert_array_equal(masks.causal(2, 4, offset=2)[0, 0], drawn("1 1 1 0", "1 1 1 1"))
    np.testing.assert_array_equal(
        masks.causal(3, 3, offset=-1)[0, 0], drawn("0 0 0", "1 0 0", "1 1 0")
    )


def test_segments_keep_packed_sentences_apart():
    ids = jnp.array([[1, 1, 2, 0]])
    mask = masks.segment(ids, ids)
    assert (mask.shape, mask.dtype) == ((1, 1, 4, 4), bool)
    np.testing.assert_array_equal(mask[0, 0], drawn("1 1 0 0", "1 1 0 0", "0 0 1 0", "0 0 0 0"))


def test_segments_across_two_languages():
    mask = masks.segment(jnp.array([[1, 2, 2], [1, 1, 0]]), jnp.array([[1, 1, 2, 0], [1, 2, 0, 0]]))
    np.testing.assert_array_equal(mask[0, 0], drawn("1 1 0 0", "0 0 1 0", "0 0 1 0"))
    np.testing.assert_array_equal(mask[1, 0], drawn("1 0 0 0", "1 0 0 0", "0 0 0 0"))


def test_combine_is_the_logical_and():
    segments = jnp.array([[1, 1, 2, 0]])
    mask = masks.combine(None, masks.segment(segments, segments), None, masks.causal(4))
    np.testing.assert_array_equal(mask[0, 0], drawn("1 0 0 0", "1 1 0 0", "0 0 1 0", "0 0 0 0"))


def test_combining_nothing_restricts_nothing():
    assert masks.combine() is None
    assert masks.combine(None, None) is None


def test_window_hides_what_is_far():
    expected = [[abs(s - t - 2) <= 1 for s in range(7)] for t in range(4)]
    np.testing.assert_array_equal(masks.window(4, 7, 1, offset=2)[0, 0], expected)
