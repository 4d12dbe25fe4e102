"""Wrong input ends with one line that says what is wrong and where."""

import contextlib
import json
import resource
import shutil
import signal

import jax
import pytest
import tiny

from tfm import config, memory
from tfm.positions import Learned

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def experiment(tmp_path, tiny_run):
    """``experiment(**changes)`` writes an experiment file with the corpora of the tiny run."""
    kept = config.read(tiny_run / "config.json")

    def write(**changes):
        unresolved = tiny.change(kept, model={"source_vocab": 0, "target_vocab": 0})
        return tiny.experiment(tmp_path, tiny.change(unresolved, **changes))

    return write


@pytest.fixture
def fails(command, tmp_path):
    """``fails(...)`` runs a command that must end with exit code 1, nothing on stdout and one error
    line, which is returned.
    """

    def run(*arguments, stdin=b""):
        code, out, err = command(*arguments, stdin=stdin)
        assert code == 1
        assert out == b""
        assert "Traceback" not in err
        lines = [line for line in err.splitlines() if "error:" in line]
        assert len(lines) == 1 and lines[0] == err.splitlines()[-1]
        assert lines[0].startswith(f"tfm {arguments[0]}: error: ")
        return lines[0].removeprefix(f"tfm {arguments[0]}: error: ")

    return run


@contextlib.contextmanager
def full_disk(at):
    """Files cannot grow beyond ``at`` bytes: the kernel refuses, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at, limits[1]))
    min_seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)  # no half-written programs
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", min_seconds)
        signal.signal(signal.SIGXFSZ, handler)


def train(fails, experiment, folder, *options):
    return fails("train", experiment, "--workdir", folder, *options)


def test_unknown_key_on_the_command_line(command, experiment, tmp_path):
    code, out, err = command(
        "train", experiment(), "--workdir", tmp_path / "run", "--train.stpo", "5u"
    )
    assert code == 2
    assert not out
    assert "--train.stpo" in err and "--train.stop" in err
    assert not (tmp_path / "run").exists()


def test_unknown_key_in_the_config_of_a_run(fails, tiny_run, tmp_path):
    shutil.copytree(tiny_run / "tokenizers", tmp_path / "tokenizers")
    path = tmp_path / "config.json"
    settings = json.loads((tiny_run / "config.json").read_text())
    settings["optimizer"]["learning_rat"] = settings["optimizer"].pop("learning_rate")
    path.write_text(json.dumps(settings))
    assert fails("translate", "--model", tmp_path) == (
        f"{path}: config.optimizer has no key 'learning_rat'; did you mean 'learning_rate'?"
    )
    path.write_text("{")
    assert fails("translate", "--model", tmp_path).startswith(f"{path}: ")


def test_different_line_counts(fails, experiment, tiny_run, tmp_path):
    files = tiny.write(tmp_path / "a", ["a", "b"]), tiny.write(tmp_path / "b", ["A"])
    words = f"{files[0]} has 2 lines but {files[1]} has 1: line N of one must "
    message = train(fails, experiment(data={"train": files}), tmp_path / "run")
    assert message.startswith(words)
    options = "--model", tiny_run, "--source", files[0]
    assert fails("score", *options, "--target", files[1]).startswith(words)
    assert fails("evaluate", *options, "--reference", files[1]).startswith(words)


def test_text_that_is_not_utf_8(fails, experiment, tiny_run, tmp_path):
    bad, good = tmp_path / "bad", tiny.write(tmp_path / "good", ["A", "B"])
    bad.write_bytes(b"a\n\xff\n")
    message = f"{bad} line 2: not UTF-8 (invalid start byte)"
    options = "--model", tiny_run, "--source", bad
    assert fails("score", *options, "--target", good) == message
    assert fails("evaluate", *options, "--reference", good) == message
    bad.write_bytes(b"\xff\n\xfe\n")
    message = train(fails, experiment(data={"train": (str(bad), good)}), tmp_path / "run")
    assert message == f"{bad} and {good}: no usable pair; every line is empty or not UTF-8"


def test_missing_files(fails, experiment, tiny_run, tmp_path):
    nowhere = tmp_path / "nowhere"
    for name in ("train", "dev"):
        path = experiment(data={name: (str(nowhere), str(nowhere))})
        assert train(fails, path, tmp_path / "run") == f"corpus {nowhere}: no such file"
    message = fails("train", nowhere, "--workdir", tmp_path / "run")
    assert message == f"experiment {nowhere}: no such file"
    assert str(nowhere) in fails("translate", "--model", tiny_run, "--input", nowhere)
    out = nowhere / "out"
    assert str(out) in fails("translate", "--model", tiny_run, "--output", out)
    message = fails("translate", "--model", nowhere)
    assert message == f"model {nowhere}: no config.json there; is it a folder of a run?"
    assert not nowhere.exists()


def test_experiment_without_get_config(fails, tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text("a = 1\n")
    assert fails("train", path, "--workdir", tmp_path) == (
        f"experiment {path}: defines no get_config()"
    )


def test_errors_in_an_experiment_file(fails, tmp_path):
    path = tmp_path / "experiment.py"
    path.write_text("def get_config():\n    return 1 / 0\n")
    assert fails("train", path, "--workdir", tmp_path / "run") == (
        f"experiment {path} line 2: ZeroDivisionError: division by zero"
    )
    path.write_text("def get_config(:\n")
    assert fails("check-data", path).startswith(f"experiment {path} line 1: invalid syntax")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["", "run", "a/run"])
def test_workdir_that_is_a_file_or_in_one(fails, experiment, tmp_path, name):
    file = tmp_path / "file"
    file.write_text("mine")
    workdir = file / name
    wanted = f"workdir {workdir}: {file} is a file: name a folder, or move the file away"
    assert train(fails, experiment(), workdir) == wanted
    assert fails("demo", "--workdir", workdir) == wanted
    assert fails("check-data", experiment(), "--workdir", workdir) == wanted
    assert file.read_text() == "mine"


def test_cache_that_is_a_file(fails, experiment, tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for cache in (file, file / "cache"):
        message = train(fails, experiment(data={"cache_dir": str(cache)}), tmp_path / "run")
        assert f"data.cache_dir {cache}: {file} is a file: name a folder" in message


def test_vectors_under_a_file(fails, tmp_path):
    file, text = tmp_path / "file", tiny.write(tmp_path / "text", ["a b", "b a"])
    file.write_text("mine")
    message = fails("embed", "train", text, "--output", file / "x.vec")
    wanted = (
        f"{file}/x.vec: cannot be written: {file} is a file: name a folder, or move the file away"
    )
    assert message == wanted


def test_char_tokenizer_that_is_too_small(fails, experiment, tmp_path):
    path = experiment(tokenizer={"kind": "char", "source_size": 60, "byte_fallback": True})
    assert train(fails, path, tmp_path / "run") == (
        "tokenizer.source_size 60: must be 260 or more, for the 4 special pieces and the 256 bytes "
        "of tokenizer.byte_fallback"
    )


def test_vocabulary_other_than_the_saved_one(fails, experiment, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    message = train(fails, experiment(tokenizer={"kind": "bpe"}), run)
    where = f"tokenizer {run}/tokenizers/source.model: "
    assert message.startswith(f"{where}kept vocabulary has kind char")
    assert "but the config asks for bpe" in message
    message = train(fails, experiment(tokenizer={"joint": True}), run)
    assert "does not fit tokenizer.joint True" in message


def test_too_little_text_for_the_vocabulary(fails, experiment, tmp_path):
    run = tmp_path / "run"
    message = train(fails, experiment(tokenizer={"kind": "bpe", "source_size": 5000}), run)
    assert message.startswith("tokenizer for lower: 600 sentences give at most ")
    assert "pieces, but 5000 were asked for; lower tokenizer.source_size" in message
    assert [p.name for p in run.rglob("*") if p.is_file()] == ["log.txt"]


def test_no_pair_that_fits(fails, experiment, tmp_path):
    message = train(fails, experiment(data={"target_length": 2}), tmp_path / "run")
    assert message.startswith("none of 600 pairs fits rows of 32/2 tokens; raise data.")


def test_loss_that_is_not_finite(fails, experiment, tmp_path, monkeypatch):
    path = experiment(
        optimizer={"learning_rate": 1e30, "clip": 0.0}, train={"stop": "50u", "bad_steps": 3}
    )
    message = train(fails, path, tmp_path / "run")
    assert "3 updates in a row, up to " in message
    assert "had no finite loss or gradient: lower optimizer.learning_rate" in message
    assert "there is no checkpoint" in message
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_contradictory_settings(fails, experiment, tmp_path):
    path = experiment(train={"accumulate": 3})
    message = train(fails, path, tmp_path / "run")
    assert "data.rows 8: not a multiple of 3" in message
    assert "train.accumulate 3" in message
    path = experiment(model={"tie": "all"}, tokenizer={"coverage": 0.9})
    assert train(fails, path, tmp_path / "two")
    path = experiment(model={"positions": Learned(max_length=31)})
    message = train(fails, path, tmp_path / "three")
    assert message.startswith("model.positions: max_length 31, but rows hold 32 tokens a sentence")


def test_impossible_model_is_refused_before_the_data_is_opened(fails, experiment, tmp_path):
    nowhere = str(tmp_path / "nowhere")
    path = experiment(model={"heads": 0}, data={"train": (nowhere, nowhere)})
    message = f"experiment {path}: model.heads 0: must be from 1 to 16,777,216"
    assert train(fails, path, tmp_path / "run") == message
    assert fails("check-data", path) == message
    assert not (tmp_path / "run").exists()


def test_full_disk_while_training(fails, experiment, tmp_path):
    run = tmp_path / "run"
    with full_disk(at=40_000):
        message = train(fails, experiment(data={"dev": ()}, train={"stop": "3u"}), run)
    assert message == (
        f"checkpoints {run}/checkpoints: saving failed (File too large); the newest one is none"
    )
    assert not list((run / "checkpoints").iterdir())


def test_full_disk_while_converting_text(fails, experiment, tmp_path):
    cache = tmp_path / "cache"
    path = experiment(data={"cache_dir": str(cache)})
    with full_disk(at=500):
        message = train(fails, path, tmp_path / "run")
    assert message.startswith("corpus ") and str(cache) in message and "File too large" in message
    assert not [p for p in cache.rglob("*") if p.is_file()]


def test_full_disk_while_translating(fails, tiny_run, tmp_path):
    out = tmp_path / "out.txt"
    source = tiny.write(tmp_path / "source", ["ab cd"] * 5000)
    with full_disk(at=5000):
        message = fails("translate", "--model", tiny_run, "--input", source, "--output", out)
    assert str(out) in message and "File too large" in message
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_an_output_that_cannot_be_written_is_known_before_the_model_is_read(fails, tmp_path):
    nowhere, gone = tmp_path / "no model", tmp_path / "gone" / "out"
    for path, message in ((tmp_path, "is a folder"), (gone, "is no folder")):
        found = fails("translate", "--model", nowhere, "--output", path)
        assert found.startswith(f"{path}: ") and message in found
        found = fails("inspect", "ab", "--model", nowhere, "-o", path)
        assert found.startswith(f"{path}: ") and message in found
    text = tiny.write(tmp_path / "text", ["a"])
    assert "is a folder" in fails("embed", "train", text, "--output", tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch-size", "0"), "--batch-size 0: must be 1 or more"),
        (("--beam-size", "0"), "--beam-size 0: must be 1 or more"),
        (("--n-best", "0"), "--n-best 0: must be 1 or more"),
        (("--max-length-factor", "-1"), "--max-length-factor -1.0: must be from 0 to 1,000"),
        (("--max-length-factor", "nan"), "--max-length-factor nan: must be from 0 to 1,000"),
        (("--length-penalty", "nan"), "--length-penalty nan: must be from -10 to 10"),
        (("--length-penalty", "inf"), "--length-penalty inf: must be from -10 to 10"),
        (("--temperature", "0"), "--temperature 0.0: must be from 0.0001 to 10,000"),
        (("--source-length", "1"), "--source-length 1: must be from 2 to 65,535; the last token"),
    ],
)
def test_settings_of_a_search_out_of_range(fails, tmp_path, options, message):
    found = fails("translate", "--model", tmp_path / "no model", *options)
    assert found.startswith(message)


def test_a_beam_that_does_not_fit_into_memory(fails, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free", lambda device: 2**30)
    out = tmp_path / "out"
    options = "--model", tiny_run, "--output", out, "--beam-size", 100_000
    message = fails("translate", *options, stdin=b"ab cd\n" * 64)
    assert message.startswith("decode.beam_size 100000: searching 16 sentence(s) of 8 tokens")
    assert "1.0 GiB are free: lower beam_size to " in message
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": {"learning_rate": float("nan")}}, "optimizer.learning_rate nan: must be m"),
        ({"data": {"rows": 0}}, "data.rows 0: must be from 1 to 65,536"),
        ({"train": {"patience": -1}}, "train.patience -1: must be 0 or more; 0 is off"),
        ({"train": {"seed": "3"}}, "train.seed '3': must be an int, not str"),
        ({"train": {"metric": "ter"}}, "train.metric 'ter': choose from bleu, chrf, loss"),
    ],
)
def test_a_field_of_an_experiment_out_of_range(fails, experiment, tmp_path, changes, message):
    path = experiment(**changes)
    assert train(fails, path, tmp_path / "run").startswith(f"experiment {path}: {message}")
    assert not (tmp_path / "run").exists()
    ((section, fields),) = changes.items()
    ((name, value),) = fields.items()
    if isinstance(value, int | float):  # a value of another type is refused as it is parsed
        option = f"--{section}.{name.replace('_', '-')}", value
        assert train(fails, experiment(), tmp_path / "run", *option).startswith(message)


def test_n_best_beyond_the_beam(fails, tiny_run):
    message = fails("translate", "--model", tiny_run, "--n-best", 9, stdin=b"a\n")
    assert message == "n-best 9: must be from 1 to the beam size, 2"
