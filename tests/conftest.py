"""How every test runs: on the CPU with 8 fake devices, shapes and products taken strictly."""

import importlib.metadata
import io
import logging
import os
import sys

if "XLA_FLAGS" not in os.environ:  # read when XLA starts, here and in processes that tests start
    # After 40 s of one fake device's waiting for another XLA aborts, and pytest swallows its words:
    # too soon for 8 of them on two busy cores.
    os.environ["XLA_FLAGS"] = "--xla_cpu_collective_call_terminate_timeout_seconds=600"
    if importlib.metadata.version("jax").startswith("0.10."):
        # The former code generator compiles in half the time; later releases have no choice.
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import jax

# Before the first array is made: these settings hold for the whole process.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tiny  # noqa: E402

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


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
    """What takes long to compile and comes again is kept: for other tests, for the processes that
    they start, for the other workers of xdist and, in a folder named from outside, for other runs.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(base / "compiled"))
    least = os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(least))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The folder of a small trained run; do not write there. ``tiny.py`` says what it learns."""
    from tfm.training import loop

    folder = tmp_path_factory.mktemp("tiny")
    c = tiny.config(
        folder,
        train={"stop": "200u", "log_every": 25, "validate_every": 100, "checkpoint_every": 80},
    )
    loop.train(c, folder / "run")
    return folder / "run"


@pytest.fixture
def command(monkeypatch, capfdbinary):
    """``command("translate", "--model", run, stdin=b"...")``: the command line, in this process;
    gives (exit code, stdout as bytes, stderr as text).
    """
    from tfm import cli

    monkeypatch.setenv("GLIBC_TUNABLES", "")  # else it would start this process over
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # to have it back
    root, ours = logging.getLogger(), logging.getLogger("tfm")
    before = root.handlers[:], root.level, ours.level

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["tfm", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        code = ended.value.code
        if isinstance(code, str):  # what Python would print when it exits
            code, err = 1, err + code.encode()
        return code or 0, out, err.decode()

    yield run
    root.handlers, root.level = before[:2]
    ours.setLevel(before[2])


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
