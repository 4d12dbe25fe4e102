import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import transformer

SOURCE = np.array([[7, 8, 3], [9, 3, 0]], np.int32)
TARGET = np.array([[5, 3, 0, 0], [4, 6, 5, 3]], np.int32)


@pytest.mark.parametrize("xp", [np, jnp])
def test_one_pair_a_row(xp):
    batch = transformer.single_sentences(xp.asarray(SOURCE), xp.asarray(TARGET), bos=2)
    expected = {
        "source": SOURCE,
        "source_segments": [[1, 1, 1], [1, 1, 0]],
        "source_positions": [[0, 1, 2], [0, 1, 0]],
        "target_input": [[2, 5, 3, 0], [2, 4, 6, 5]],
        "target_segments": [[1, 1, 0, 0], [1, 1, 1, 1]],
        "target_positions": [[0, 1, 0, 0], [0, 1, 2, 3]],
        "target": TARGET,
    }
    assert batch._fields == tuple(expected)
    for name, x in batch._asdict().items():
        np.testing.assert_array_equal(x, expected[name])
        assert x.dtype == jnp.int32
        assert isinstance(x, np.ndarray if xp is np else jax.Array)


def test_a_batch_is_a_pytree_and_its_labels_may_be_missing():
    batch = transformer.single_sentences(SOURCE, TARGET, bos=2)._replace(target=None)
    assert len(jax.tree.leaves(batch)) == 6
    assert jax.tree.map(lambda x: x[:1], batch).source.shape == (1, 3)
