import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

import tfm

pytestmark = pytest.mark.usefixtures("quick_compile")


def hostile(count, seed=0):
    """Lines of all that turns up in files, every tenth of them blank, none too long."""
    rng = random.Random(seed)
    strange = [
        "😀👩‍👩‍👧",
        "龘靐齉",
        "a\tb",
        "\u2581a",
        "\x00",
        "\u2028b",
        "é",
        "e\u0301",
        "\ufeff",
        "<unk>",
        "</s>",
    ]
    lines = []
    for number, sentence in enumerate(tiny.sentences(count, seed, words=(1, 3)), 1):
        kind = number % 10
        if kind in (0, 5):
            lines.append(rng.choice(["", " ", "\t \t", "\u3000"]))
        else:
            lines.append(sentence if kind % 2 else f"{sentence} {rng.choice(strange)}")
    return lines


def translated(command, run, content, *options):
    code, out, err = command("translate", "--model", run, *options, stdin=content)
    assert code == 0, err
    return out.decode().split("\n")[:-1]


def check_line_by_line(command, run, lines, batch_sizes):
    """N in, N out; blanks stay empty; the same for every batch size, and for a line by itself."""
    found = []
    for size in batch_sizes:
        # CRLF here and there, and no line break at the end.
        ends = ["\r\n" if i % 3 else "\n" for i in range(len(lines) - 1)] + [""]
        content = "".join(map(str.__add__, lines, ends)).encode()
        found.append(translated(command, run, content, "--batch-size", size))
    assert all(translations == found[0] for translations in found[1:])
    assert len(found[0]) == len(lines)
    for line, translation in zip(lines, found[0], strict=True):
        assert bool(line.strip()) or translation == ""
        assert not set("\r\t") & set(translation)
    plain = [line.isascii() and line.islower() for line in lines]
    model = tfm.load(run)
    some = [i for i, good in enumerate(plain) if good][:12]
    assert [found[0][i] for i in some] == model.translate([lines[i] for i in some])


def test_a_hundred_lines_of_anything(command, tiny_run):
    check_line_by_line(command, tiny_run, [*hostile(98), "ab" * 60, "a"], (1, 64))


@pytest.mark.slow
def test_a_thousand_lines_of_anything(command, tiny_run):
    long = " ".join(tiny.sentences(400, seed=3))[:3000]
    lines = hostile(999)
    lines[500:500] = [long]
    check_line_by_line(command, tiny_run, lines, (1, 64))


def test_stdout_holds_translations_and_stderr_the_rest(command, tiny_run, tmp_path):
    source, packed = tmp_path / "in.txt", tmp_path / "in.txt.gz"
    content = "\ufeffab cd\n\nfed\n".encode()
    source.write_bytes(content)
    packed.write_bytes(gzip.compress(content))
    code, out, err = command("translate", "--model", tiny_run, "--input", source)
    first, empty, last = out.decode().splitlines()
    assert code == 0 and first and last and not empty
    assert "weights of update" in err and "compiled search for" in err
    assert "\ufeff" not in first  # a byte order mark is no text

    target = tmp_path / "out.txt"
    code, nothing, _ = command(
        "translate", "--model", tiny_run, "--input", packed, "--output", target
    )
    assert (code, nothing) == (0, b"")
    assert target.read_bytes() == out
    assert not list(tmp_path.glob(".*"))
    assert translated(command, tiny_run, b"") == []


def test_text_that_is_not_utf_8(command, tiny_run, tmp_path):
    source, target = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_bytes(b"ab\ncd\n\xff\xfe\nef\n")
    code, out, err = command(
        "translate", "--model", tiny_run, "--input", source, "--output", target
    )
    assert (code, out) == (1, b"")
    assert err.splitlines()[-1] == (
        f"tfm translate: error: {source} line 3: not UTF-8 (invalid start byte)"
    )
    assert not [p for p in tmp_path.iterdir() if p != source]
    code, _, err = command("translate", "--model", tiny_run, stdin=b"\xe4\xbd")
    assert code == 1
    assert err.splitlines()[-1].startswith("tfm translate: error: stdin line 1: not UTF-8")


def test_n_best_rows(command, tiny_run):
    rows = translated(command, tiny_run, b"ab\n\nfed cab\n", "--n-best", 2, "--beam-size", 3)
    cells = [row.split("\t") for row in rows]
    assert [row[0] for row in cells] == ["1", "1", "2", "3", "3"]
    assert all(len(row) == 4 for row in cells)
    assert cells[2] == ["2", "0.0000", "0.0000", ""]
    assert float(cells[0][1]) >= float(cells[1][1])
    best = tfm.load(tiny_run).n_best(["ab"], 2, beam_size=3)[0]
    assert [row[3] for row in cells[:2]] == [t.text for t in best]
    assert float(cells[0][2]) == pytest.approx(best[0].log_prob, abs=1e-3)


def test_score_prints_a_number_a_line(command, tiny_run, tmp_path):
    source = tiny.write(tmp_path / "source", ["ab cd", "fed"])
    target = tiny.write(tmp_path / "target", ["AB CD", "FED"])
    code, out, _ = command("score", "--model", tiny_run, "--source", source, "--target", target)
    assert code == 0
    expected = tfm.load(tiny_run).score(["ab cd", "fed"], ["AB CD", "FED"])
    np.testing.assert_allclose([float(x) for x in out.split()], expected, atol=1e-5)


def test_evaluate(command, tiny_run, tmp_path):
    sources = ["ab cd", "fed", "", "gag"]
    model = tfm.load(tiny_run)
    references = [*model.translate(sources[:3]), "NO"]
    files = tiny.write(tmp_path / "source", sources), tiny.write(tmp_path / "reference", references)
    arguments = ("--model", tiny_run, "--source", files[0], "--reference", files[1])
    code, out, _ = command("evaluate", *arguments, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["scores"]["exact"]["value"] == 75.0
    assert "tok:13a" in found["scores"]["BLEU"]["signature"]
    assert "version:" in found["scores"]["chrF"]["signature"]
    assert found["decode"]["beam_size"] == 2 and found["decode"]["length_norm"] == "gnmt"
    assert found["sentences"] == 4
    assert found["compile_seconds"] > 0 and found["sentences_per_second"] > 0

    code, out, _ = command("evaluate", *arguments, "--beam-size", 1, "--source-length", 48)
    text = out.decode()
    assert code == 0
    assert text.startswith("BLEU ") and "tok:13a" in text
    assert "beam_size 1" in text and "source_length 48" in text and "compile seconds " in text


def test_check_data_looks_at_an_experiment(command, tmp_path):
    """What it finds is in ``test_check.py``."""
    there = tiny.experiment(tmp_path, tiny.config(tmp_path))
    code, out, _ = command("check-data", there, "--data.rows", 4)
    assert code == 0
    assert out.decode().startswith("train: 600 pairs: 600 kept")
    assert "batches: 4 rows of 32/32 tokens" in out.decode()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["translate", "--modle", "x"], "--model"),
        (["evaluate", "--model", "x", "--source", "a", "--refrence", "b"], "--reference"),
    ],
)
def test_misspelt_words_are_answered_with_the_nearest(command, arguments, words):
    code, out, err = command(*arguments)
    assert code in (1, 2)
    assert not out
    assert words in err
    assert "Traceback" not in err


def test_help_names_every_command(command):
    code, out, _ = command("--help")
    assert code == 0
    for name in ("demo", "train", "translate", "score", "evaluate", "check-data"):
        assert f"  {name} " in out.decode()
        code, about, _ = command(name, "--help")
        assert code == 0 and (b"--" in about)
    assert command()[0] == 2


def test_version(command):
    code, out, _ = command("--version")
    assert code == 0
    assert out.decode() == f"tfm {tfm.__version__}, jax {jax.__version__}\n"


def complete(script, *words):
    """What bash offers for the last of ``words``."""
    program = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()\n'
        "_tyro_tfm; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["bash", "-c", program, "bash", script, *words], capture_output=True, text=True, timeout=60
    )
    return done.stdout.split()


@pytest.mark.parametrize("before", [(), ("translate",)])
def test_bash_completes_commands_options_and_choices(command, tmp_path, before):
    script = tmp_path / "tfm.bash"
    code, _, err = command(*before, "--tyro-write-completion", "bash", script)
    assert code == 0, err
    assert complete(script, "tfm", "tr") == ["train", "translate"]
    assert "--beam-size" in complete(script, "tfm", "translate", "--b")
    assert complete(script, "tfm", "embed", "neigh") == ["neighbours"]
    assert complete(script, "tfm", "embed", "train", "--wid") == ["--width"]
    assert "cosine" in complete(script, "tfm", "train", "x.py", "--optimizer.schedule", "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_for_other_shells(command, shell):
    code, out, err = command("--tyro-print-completion", shell)
    assert code == 0, err
    assert b"translate" in out and b"--beam-size" in out


def test_a_reader_that_has_had_enough_ends_it_quietly(tiny_run):
    environment = os.environ | {
        "PYTHONPATH": str(Path(tfm.__file__).parents[1]),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", "from tfm.cli import main; main()", "translate", "--model",
         str(tiny_run), "--batch-size", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip
    process.stdin.write(b"ab\n" * 200)
    process.stdin.close()
    assert process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read().decode()
    assert process.wait(timeout=120) == 141
    assert "Traceback" not in err and "rror" not in err
