"""After a warm-up nothing is left to compile, in this process or in a new one."""

import os
import shutil
import subprocess
import sys

import pytest
import tiny

import tfm

pytestmark = pytest.mark.usefixtures("quick_compile")

RUN = "import sys; from tfm.cli import main; sys.exit(main())"
TEXTS = [text for text in tiny.sentences(60, seed=4, words=(1, 2), letters=(1, 3)) if len(text) < 6]


@pytest.mark.parametrize("settings", [{}, {"strategy": "sample"}], ids=["beam", "sample"])
def test_texts_of_any_number_find_their_programs_compiled(tiny_run, settings):
    model = tfm.load(tiny_run, source_length=8)
    model.warm_up(batch_size=4, **settings)
    compiled = set(model.programs.by_shape)
    for count in (1, 3, 4, 17):
        model.translate(TEXTS[:count], batch_size=4, **settings)
    assert set(model.programs.by_shape) == compiled


@pytest.mark.slow
def test_a_new_process_finds_them_in_the_folder_of_the_run(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}

    def translate(*options, lines=()):
        sizes = ["--source-length", "8", "--batch-size", "4", "--beam-size", "1"]
        command = [sys.executable, "-c", RUN, "translate", "--model", str(run), *sizes, *options]
        text = "".join(f"{line}\n" for line in lines)
        done = subprocess.run(
            command, input=text, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    plain = translate(lines=TEXTS)
    assert len(plain) == len(TEXTS) and not (run / "compiled").exists()
    assert translate("--warm-up") == []
    programs = {path.name for path in (run / "compiled").glob("*-cache")}
    assert len(programs) >= 8
    assert translate(lines=TEXTS) == plain
    assert {path.name for path in (run / "compiled").glob("*-cache")} == programs
