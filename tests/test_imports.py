"""The house: arrows point down only, and opening a door starts no machine."""

import ast
import pathlib
import subprocess
import sys

import pytest

import tfm

ROOT = pathlib.Path(tfm.__file__).parent

# From the top down; packages of one level do not import each other.
LEVELS = [
    {"__main__"},
    {"cli"},
    {"serve"},
    {"demo"},
    {"inspect", "comparison"},
    {"interop"},
    {"plan"},
    {"training"},
    {"translator"},  # below training, which translates the dev set
    {"checkpoint"},  # below the translator, which reads weights
    {"word2vec", "evaluation"},
    {"data"},
    {"config"},
    {"config_format"},
    {"decoding", "transformer"},
    {"sharding"},
    {"attention"},
    {"layers", "embeddings", "positions", "masks"},
    {"quantize"},
    {"linear"},
    {"processes"},
    {"params", "terminal", "run_folder", "lock_file", "lock_holder", "signals", "ranges", "memory"},
    {"shapes"},
    {"values"},
    {"hint", "storage", "client"},
]
LEVEL = {package: i for i, packages in enumerate(LEVELS) for package in packages}


def modules():
    """Dotted name → path of every module of the package."""
    out = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        out[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return out


MODULES = modules()


def arrows(name):
    """The modules of tfm that ``name`` imports anywhere in its text, lazily or for types too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "tfm"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import on line {node.lineno}"
            if node.module.split(".")[0] == "tfm":
                whole = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {m if m in MODULES else node.module for m in whole}
    return found - {"tfm"}


def package(name):
    return name.split(".")[1]


NAMES = sorted(set(MODULES) - {"tfm"})


@pytest.mark.parametrize("name", NAMES)
def test_arrows_point_down(name):
    assert package(name) in LEVEL, f"{name}: give the new package its level in LEVELS"
    for target in arrows(name):
        assert package(name) == package(target) or LEVEL[package(name)] < LEVEL[package(target)], (
            f"{name} imports {target}"
        )


def test_no_two_modules_of_one_room_need_each_other():
    seen, open_names = set(), []

    def visit(name):
        assert name not in open_names, " → ".join([*open_names, name])
        if name not in seen:
            open_names.append(name)
            for target in arrows(name) & set(MODULES):
                visit(target)
            open_names.pop()
            seen.add(name)

    for name in NAMES:
        visit(name)


def test_search_knows_no_model_and_evaluation_only_languages():
    for name in NAMES:
        if package(name) == "decoding":
            assert {package(target) for target in arrows(name)} <= {"decoding", "ranges"}
        if package(name) == "evaluation":
            assert arrows(name) <= {"tfm.data.languages"}


def test_the_package_never_imports_what_stands_beside_it():
    for name in MODULES:
        for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(a.name for a in node.names)]
                roots = {n.split(".")[0] for n in names[: 1 if names[0] else None]}
                assert not roots & {"tests", "tools", "experiments", "conftest"}, name


def test_importing_starts_no_backend():
    code = "\n".join(
        [
            *(f"import {name}" for name in MODULES if not name.endswith("__main__")),
            "from jax._src import xla_bridge",
            "assert not xla_bridge.backends_are_initialized()",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_importing_one_piece_does_not_import_them_all():
    code = (
        "import sys; from tfm import attention, positions, masks, embeddings\n"
        "heavy = {'flax', 'optax', 'orbax', 'grain', 'sentencepiece', 'tensorflow_datasets'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
