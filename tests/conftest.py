"""How every test runs: on the CPU with 8 fake devices, shapes and products taken strictly."""

import jax

# Before the first array is made: these settings hold for the whole process.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

from tfm import params  # noqa: E402


@pytest.fixture(scope="module")
def quick_compile():
    """For files that compile much and compute little: half the optimisation, half the wait."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def draw():
    """``draw(declaration, seed)``: random parameters, biases and scales included, so that no
    parameter hides behind the 0 or 1 it starts with. Drawn by NumPy, which compiles nothing.
    """

    def draw_params(declaration, seed=0):
        rng = np.random.default_rng(seed)

        def leaf(path, p):
            centre = 1.0 if path[-1].key == "scale" else 0.0
            return (centre + 0.25 * rng.normal(size=p.shape)).astype(np.float32)

        tree = jax.tree_util.tree_map_with_path(leaf, declaration, is_leaf=params.is_param)
        return jax.tree.map(jax.numpy.asarray, tree)

    return draw_params


@pytest.fixture(scope="session")
def sentences():
    """``sentences(rng, pairs, vocab, width, segments)``: a batch with one pair a row.

    ``pairs`` lists (source length, target length). Padding holds random tokens: a model that
    looks at it gives itself away.
    """

    def batch(rng, pairs, vocab=11, source_width=7, target_width=5):
        def side(lengths, width):
            places = np.broadcast_to(np.arange(width, dtype=np.int32), (len(lengths), width))
            real = (places < np.array(lengths)[:, None]).astype(np.int32)
            return rng.integers(1, vocab, real.shape).astype(np.int32), real, places

        names = ("source", "target")
        sides = (side([p[i] for p in pairs], w) for i, w in enumerate((source_width, target_width)))
        out = {}
        for name, (tokens, segments, places) in zip(names, sides, strict=True):
            tokens_name = "target_input" if name == "target" else name
            out |= {tokens_name: tokens, f"{name}_segments": segments, f"{name}_positions": places}
        return out

    return batch
