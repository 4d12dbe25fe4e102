"""Ctrl-C ends a command with exit code 130 and SIGTERM with 143, at once, whatever it is doing: in
Python or in native code, without a traceback and with nothing half-written left behind.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

import tfm

MAIN = "from tfm.cli import main; main()"
# Native work that no signal interrupts and that lets other threads run, as a compilation does.
NATIVE = """
import hashlib, sys

def native(*args, **kwargs):
    print("reached", file=sys.stderr, flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""
COMPILING = f"{NATIVE}\nimport jax; jax.stages.Lowered.compile = native\n"
TOKENIZING = f"""{NATIVE}
import sentencepiece
sentencepiece.SentencePieceTrainer.train = native
"""
READING = """
import sys, time
from tfm.data import text
pairs = text.read_pairs

def slow(*args):
    for i, pair in enumerate(pairs(*args)):
        if i == 50 and "checked" in globals():
            print("reached", file=sys.stderr, flush=True)
            time.sleep(600)
        yield pair
    globals()["checked"] = True

text.read_pairs = slow
"""
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


class Command:
    """A command in a process of its own, whose temporary files are in a folder of their own."""

    def __init__(self, folder, prelude, *arguments):
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        environment = os.environ | {
            "PYTHONPATH": str(Path(tfm.__file__).parents[1]),
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "TMPDIR": str(self.temporary),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", prelude + MAIN, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment,
        )  # fmt: skip

    def read_until(self, words):
        """Lines of stderr up to the one with these words."""
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if words in line:
                return lines
        raise AssertionError("".join(lines))

    def stop(self, number):
        """Sends the signal; returns (exit code, stdout, the rest of stderr)."""
        self.process.send_signal(number)
        start = time.monotonic()
        out, err = self.process.communicate(timeout=60)
        assert time.monotonic() - start < 20
        assert "Traceback" not in err and "Exception" not in err
        # Empty folders that TFDS leaves after every run.
        left = [p for p in self.temporary.iterdir() if not p.name.endswith("tfds")]
        assert not left
        return self.process.returncode, out, err


@pytest.fixture
def start(tmp_path):
    started = []

    def run(prelude, *arguments):
        started.append(Command(tmp_path, prelude, *arguments))
        return started[-1]

    yield run
    for command in started:
        command.process.kill()
        command.process.communicate()


@pytest.fixture
def experiment(tmp_path):
    (tmp_path / "data").mkdir()
    return tiny.experiment(tmp_path, tiny.config(tmp_path / "data"))


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.parametrize("prelude", [READING, TOKENIZING, COMPILING])
def test_training_before_its_first_update(start, experiment, tmp_path, prelude, number, code):
    run = tmp_path / "run"
    command = start(prelude, "train", experiment, "--workdir", run)
    command.read_until("reached")
    ended, out, err = command.stop(number)
    assert (ended, out) == (code, "")
    name = signal.Signals(number).name
    assert err.splitlines()[-1] == f"tfm train: received {name}; the same command resumes the run"
    left = {"config.json", "log.txt", "metrics.tsv"} if prelude == COMPILING else {"log.txt"}
    assert {n for n in names(run) if not n.startswith(("tensorboard", "tokenizers"))} <= left
    if prelude == READING:
        assert names(tmp_path / "data/cache") == []


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_training_after_an_update_saves_first(start, experiment, tmp_path, number, code):
    run = tmp_path / "run"
    arguments = ("train", experiment, "--workdir", run, "--train.log-every", 1, "--data.dev",
                 "--train.stop", "1000u")  # fmt: skip
    command = start("", *arguments)
    command.read_until("update 3 |")
    ended, _, err = command.stop(number)
    assert ended == code
    name = signal.Signals(number).name
    assert f"received {name}; the same command resumes the run" in err.splitlines()[-1]
    assert names(run / "checkpoints")
    assert not (run / "lock.json").exists()


def test_a_second_ctrl_c_ends_without_saving(start, experiment, tmp_path):
    saving = """
import time
from tfm.checkpoint import CheckpointManager
CheckpointManager.save = lambda *args, **kwargs: time.sleep(600)
"""
    run = tmp_path / "run"
    command = start(
        saving, "train", experiment, "--workdir", run, "--train.log-every", 1, "--data.dev"
    )
    command.read_until("update 1 |")
    command.process.send_signal(signal.SIGINT)
    command.read_until("SIGINT: saving, then stopping")
    ended, _, err = command.stop(signal.SIGINT)
    assert ended == 130
    assert err.splitlines()[-1].startswith("tfm train: received SIGINT")
    assert not (run / "lock.json").exists()


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_validation_is_abandoned_while_it_compiles(start, experiment, tmp_path, number, code):
    compiling = f"""{NATIVE}
from tfm.training import validation
scores = validation.Validation.scores

def native_scores(*args):
    import jax
    jax.stages.Lowered.compile = native
    return scores(*args)

validation.Validation.scores = native_scores
"""
    run = tmp_path / "run"
    command = start(compiling, "train", experiment, "--workdir", run, "--train.validate-every", 2)
    command.read_until("reached")
    ended, _, err = command.stop(number)
    assert ended == code
    assert "the same command resumes the run" in err.splitlines()[-1]
    assert any(name.startswith("2/") for name in names(run / "checkpoints"))


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_translating_leaves_no_output(start, tiny_run, tmp_path, number, code):
    source = tiny.write(tmp_path / "source", ["ab cd"])
    command = start(
        COMPILING, "translate", "--model", tiny_run, "--input", source, "--output", tmp_path / "out"
    )
    command.read_until("reached")
    ended, out, err = command.stop(number)
    assert (ended, out) == (code, "")
    assert err.splitlines()[-1] == f"tfm translate: received {signal.Signals(number).name}"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "temporary"]


def test_translating_what_a_person_types(start, tiny_run):
    command = start("", "translate", "--model", tiny_run)
    command.read_until("weights of update")
    time.sleep(0.5)  # it waits for a line now
    ended, out, err = command.stop(signal.SIGINT)
    assert (ended, out, err) == (130, "", "tfm translate: received SIGINT\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["score", "evaluate", "inspect", "check-data", "plan", "demo"])
def test_other_commands_while_they_compile(start, tiny_run, experiment, tmp_path, name):
    files = [tiny.write(tmp_path / n, ["ab", "cd"]) for n in ("source", "target")]
    arguments = {
        "score": ("--model", tiny_run, "--source", files[0], "--target", files[1]),
        "evaluate": ("--model", tiny_run, "--source", files[0], "--reference", files[1]),
        "inspect": ("ab", "--model", tiny_run, "--output", tmp_path / "page.html"),
        "check-data": (experiment,),
        "plan": (experiment, "--topology", "cpu:2"),
        "demo": ("--workdir", tmp_path / "demo"),
    }[name]
    prelude = COMPILING
    if name == "demo":  # the data first
        prelude = TOKENIZING
    if name == "inspect":  # compiles by calling jitted functions
        prelude = f"{NATIVE}\nimport tfm.inspect.trace\n"
        prelude += "sys.modules['tfm.inspect.trace']._activations = native\n"
    command = start(prelude, name, *arguments)
    command.read_until("reached")
    ended, _, err = command.stop(signal.SIGTERM)
    assert ended == 143
    assert err.splitlines()[-1].startswith(f"tfm {name}: received SIGTERM")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.slow
def test_word_vectors(start, tmp_path):
    text = tiny.write(tmp_path / "text", tiny.sentences(20000, seed=0, words=(5, 9)))
    folder = tmp_path / "vectors"
    command = start(
        "", "embed", "train", text, "--output", folder / "x.vec", "--epochs", 1000, "--min-count", 1
    )
    command.read_until("replica(s) on")
    time.sleep(2)
    ended, _, err = command.stop(signal.SIGTERM)
    assert ended == 143
    assert err.splitlines()[-1] == "tfm embed: received SIGTERM"
    assert names(folder) == []


@pytest.mark.slow
def test_a_real_compilation_is_not_waited_for(start, experiment, tmp_path):
    """Of forty unrolled layers, which take minutes."""
    large = ("--model.encoder-layers", 40, "--model.decoder-layers", 40, "--execution.unroll", 40)
    lowered = """
import sys, jax
compile = jax.stages.Lowered.compile

def announced(self, *args, **kwargs):
    if "update" in str(self.as_text()[:200]):
        print("reached", file=sys.stderr, flush=True)
    return compile(self, *args, **kwargs)

jax.stages.Lowered.compile = announced
"""
    command = start(lowered, "train", experiment, "--workdir", tmp_path / "run", *large)
    command.read_until("reached")
    time.sleep(3)
    assert command.stop(signal.SIGINT)[0] == 130


def test_a_signal_in_a_finaliser_is_not_lost():
    """Python only reports exceptions that are raised there."""
    code = """
import os, signal, time
from tfm import signals

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)  # here the handler is called

try:
    with signals.raising():
        Finalised()
        time.sleep(20)
except signals.Stopped as error:
    os._exit(error.exit_code)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(tfm.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (143, b"")


def test_ctrl_c_while_modules_are_imported(tmp_path):
    """The entry point of the installed command, interrupted in its first imports."""
    code = """
import sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "jax":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
from tfm.cli import start
start()
"""
    environment = os.environ | {
        "PYTHONPATH": str(Path(tfm.__file__).parents[1]), "GLIBC_TUNABLES": "",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (130, b"")
