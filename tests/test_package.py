"""``import tfm`` is a door: every room is behind it, none is entered before it is asked for."""

import pkgutil
import subprocess
import sys

import pytest

import tfm

ROOMS = sorted(m.name for m in pkgutil.iter_modules(tfm.__path__) if not m.name.startswith("_"))


def fresh(code):
    """Runs lines in an interpreter of their own; its last line of output."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_the_package_alone_imports_no_room_and_no_library():
    code = "import sys; before = set(sys.modules); import tfm; print(*set(sys.modules) - before)"
    found = {
        name for name in fresh(code).split() if name.split(".")[0] not in sys.stdlib_module_names
    }
    assert found == {"tfm"}


def test_every_room_is_an_attribute_of_the_package():
    code = f"import tfm; print(*(getattr(tfm, name).__name__ for name in {ROOMS}))"
    assert fresh(code).split() == [f"tfm.{name}" for name in ROOMS]
    assert "inspect" in ROOMS and "attention" in ROOMS


def test_what_the_readme_writes_works_after_the_import_alone():
    assert fresh("import tfm; print(tfm.inspect.trace.__module__)") == "tfm.inspect.trace"


@pytest.mark.parametrize("name", ["inspekt", "_hidden", "__main__"])
def test_an_unknown_name_is_an_attribute_error_with_the_usual_words(name):
    with pytest.raises(AttributeError, match=f"module 'tfm' has no attribute '{name}'"):
        getattr(tfm, name)
    assert not hasattr(tfm, name)
    with pytest.raises(ImportError, match=f"cannot import name '{name}' from 'tfm'"):
        exec(f"from tfm import {name}")


def test_a_room_whose_library_is_missing_says_which():
    code = (
        "import sys; sys.modules['jax'] = None\n"
        "import tfm\n"
        "try: tfm.masks\n"
        "except ModuleNotFoundError as error: print(error.name)\n"
    )
    assert fresh(code) == "jax"
