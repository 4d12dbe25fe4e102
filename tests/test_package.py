"""The package: what ``import tfm`` does, the metadata files, and the contents of the wheel."""

import pathlib
import pkgutil
import re
import subprocess
import sys
import zipfile

import pytest
import yaml

import tfm

ROOT = pathlib.Path(tfm.__file__).parents[1]
MODULES = sorted(m.name for m in pkgutil.iter_modules(tfm.__path__) if not m.name.startswith("_"))


def fresh(code):
    """Runs code in a new interpreter; returns its output."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_else():
    code = "import sys; before = set(sys.modules); import tfm; print(*set(sys.modules) - before)"
    found = {
        name for name in fresh(code).split() if name.split(".")[0] not in sys.stdlib_module_names
    }
    assert found == {"tfm"}


def test_every_module_is_an_attribute_of_the_package():
    code = f"import tfm; print(*(getattr(tfm, name).__name__ for name in {MODULES}))"
    assert fresh(code).split() == [f"tfm.{name}" for name in MODULES]
    assert "inspect" in MODULES and "attention" in MODULES


def test_the_readme_example_works_after_importing_the_package_alone():
    assert fresh("import tfm; print(tfm.inspect.trace.__module__)") == "tfm.inspect.trace"


@pytest.mark.parametrize("name", ["inspekt", "_hidden", "__version_info__"])
def test_an_unknown_name_is_the_usual_attribute_error(name):
    with pytest.raises(AttributeError, match=f"module 'tfm' has no attribute '{name}'"):
        getattr(tfm, name)
    assert not hasattr(tfm, name)
    with pytest.raises(ImportError, match=f"cannot import name '{name}' from 'tfm'"):
        exec(f"from tfm import {name}")


def test_a_missing_library_is_named():
    code = (
        "import sys; sys.modules['jax'] = None\n"
        "import tfm\n"
        "try: tfm.masks\n"
        "except ModuleNotFoundError as error: print(error.name)\n"
    )
    assert fresh(code) == "jax"


def test_the_wheel_contains_every_file_of_the_package(tmp_path):
    """Among them py.typed, without which type checkers ignore tfm's annotations."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"tfm-{tfm.__version__}-")
    listed = zipfile.ZipFile(wheel).namelist()
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tfm").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "tfm/py.typed" in files and len(files) > 100
    assert {name for name in listed if name.startswith("tfm/")} == files


def test_the_version_is_the_same_everywhere():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{tfm.__version__}"\n' in project
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(tfm.__version__)}\]", changes, re.MULTILINE)


def test_the_citation_file():
    """The fields that the Citation File Format 1.2 requires, and those that ours is to have."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= cited.keys()
    assert cited["authors"] == [{"name": "The tfm authors"}]
    assert cited["type"] == "software" and cited["license"] == "Apache-2.0"
    assert cited["version"] == tfm.__version__
