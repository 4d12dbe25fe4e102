"""How every test runs: on the CPU with 8 fake devices, without implicit rank promotion, and with
matrix products in full precision.
"""

import importlib.metadata
import io
import logging
import os
import sys

if "XLA_FLAGS" not in os.environ:  # read when XLA starts, here and in processes that tests start
    # XLA aborts when one fake device waits 40 s for another, and pytest hides its message: on two
    # busy cores 8 of them need longer.
    os.environ["XLA_FLAGS"] = "--xla_cpu_collective_call_terminate_timeout_seconds=600"
    if importlib.metadata.version("jax").startswith("0.10."):
        # The old code generator compiles in half the time; later releases do not have it.
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

from tfm import config, params, transformer  # noqa: E402


@pytest.fixture(scope="module")
def quick_compile():
    """For files that compile much and compute little: compilation takes half as long."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
    """Keeps what takes long to compile in a cache that other tests, the processes that they start
    and the other workers of xdist share, and other runs too if the environment names the folder.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(base / "compiled"))
    least = os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", float(least))


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The folder of a small trained run, which tests only read. ``tiny.py`` says what it learns."""
    from tfm.training import loop

    folder = tmp_path_factory.mktemp("tiny")
    experiment = tiny.config(
        folder,
        train={"stop": "200u", "log_every": 25, "validate_every": 100, "checkpoint_every": 80},
    )
    loop.train(experiment, folder / "run")
    return folder / "run"


@pytest.fixture(scope="session")
def letters(tmp_path_factory):
    """A tokenizer of which every piece is a letter, a to h, or the space."""
    from tfm.data import vocabulary

    spec = config.Tokenizer("char", byte_fallback=False)
    path = tmp_path_factory.mktemp("letters") / "source.model"
    return vocabulary.train(tiny.sentences(100, seed=1), spec, "lower", 60, path)


@pytest.fixture(scope="session")
def untrained(letters, draw):
    """``untrained(positions="t5", decode={"beam_size": 2})``: a translator with random weights
    that reads and writes letters; fields of the architecture, and of config sections by name.
    """
    from tfm.translator import Translator

    def make(decode=None, data=None, execution=None, seed=0, **fields):
        sizes = {"d_model": 16, "heads": 2, "d_ff": 16, "encoder_layers": 1, "decoder_layers": 1}
        vocab = {"source_vocab": letters.size, "target_vocab": letters.size}
        arch = transformer.Architecture(**sizes | vocab | {"tie": "none"} | fields)
        lengths = {"source": "lower", "target": "upper", "source_length": 16, "target_length": 16}
        experiment = config.Config(
            model=arch,
            execution=transformer.Execution(**execution or {}),
            data=config.Data(**lengths | (data or {})),
            decode=config.Decode(
                **{"beam_size": 2, "batch_size": 8, "guard": "off"} | (decode or {})
            ),
        )
        return Translator(experiment, draw(transformer.declare(arch), seed), letters, letters)

    return make


@pytest.fixture
def command(monkeypatch, capfdbinary):
    """``command("translate", "--model", run, stdin=b"...")`` runs the command line in this process
    and gives (exit code, stdout as bytes, stderr as text).
    """
    from tfm import cli

    monkeypatch.setenv("GLIBC_TUNABLES", "")  # else it would start this process again
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # to restore it afterwards
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
    """``draw(declaration, seed)``: random parameters, biases and scales too, so that a test notices
    one that is not used, whose initial value is 0 or 1. NumPy draws them, which compiles nothing.
    """

    def draw_params(declaration, seed=0):
        rng = np.random.default_rng(seed)

        def leaf(path, p):
            centre = 1.0 if path and path[-1].key == "scale" else 0.0
            return (centre + 0.25 * rng.normal(size=p.shape)).astype(np.float32)

        tree = jax.tree_util.tree_map_with_path(leaf, declaration, is_leaf=params.is_param)
        return jax.tree.map(jax.numpy.asarray, tree)

    return draw_params


@pytest.fixture(scope="session")
def sentences():
    """``sentences(rng, pairs, vocab, source_width, target_width)``: a ``transformer.Batch`` of
    NumPy arrays with one pair a row, without labels.

    ``pairs`` lists (source length, target length). Padding holds random tokens, so that a model
    that reads it gives other numbers.
    """

    def batch(rng, pairs, vocab=11, source_width=7, target_width=5):
        def side(lengths, width):
            positions = np.broadcast_to(np.arange(width, dtype=np.int32), (len(lengths), width))
            segments = (positions < np.array(lengths)[:, None]).astype(np.int32)
            tokens = rng.integers(1, vocab, segments.shape).astype(np.int32)
            return tokens, segments, positions

        source_lengths, target_lengths = zip(*pairs, strict=True)
        return transformer.Batch(
            *side(source_lengths, source_width), *side(target_lengths, target_width)
        )

    return batch
