"""Builds a real Chinese-English corpus on any machine that reaches PyPI.

    python tools/get_corpus.py homeassistant --out data/homeassistant

The texts are those of Home Assistant's user interface (Apache-2.0), translated by its community:
some ten thousand short pairs. They come as ``{train,dev,test}.{zh,en}.gz``, split by component.
"""

import gzip
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro

Pair = tuple[str, str]  # Chinese, English.


def homeassistant(out: Path, version: str = "2024.3.3") -> None:
    """Pairs ``en.json`` with ``zh-Hans.json`` of every component, by key.

    Args:
      out: folder to write to.
      version: of the homeassistant package on PyPI.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = ["pip", "download", "--quiet", "--no-deps", f"homeassistant=={version}"]
        if subprocess.run([sys.executable, "-m", *command, "--dest", folder]).returncode:
            raise SystemExit(f"get_corpus: `{' '.join(command)}` failed; see its message above")
        [wheel] = Path(folder).glob("*.whl")
        components = read_components(wheel)
    splits, dropped = clean_and_split(components)
    out.mkdir(parents=True, exist_ok=True)
    for name, pairs in splits.items():
        for column, language in enumerate(("zh", "en")):
            text = "".join(pair[column] + "\n" for pair in pairs)
            # No time stamp: the same text gives the same file.
            (out / f"{name}.{language}.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    print(", ".join(f"{name} {len(pairs):,}" for name, pairs in splits.items()), f"pairs in {out}")
    print("dropped:", ", ".join(f"{count:,} {reason}" for reason, count in dropped.items()))


def read_components(wheel: Path) -> dict[str, list[Pair]]:
    """The translated texts of each component, in the order of their keys."""
    components = {}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        for name in sorted(names):
            found = re.fullmatch(r"homeassistant/components/(\w+)/translations/zh-Hans\.json", name)
            english = name.replace("zh-Hans", "en")
            if found and english in names:
                texts = [dict(leaves(json.loads(archive.read(n)))) for n in (name, english)]
                shared = sorted(texts[0].keys() & texts[1].keys())
                components[found[1]] = [(texts[0][key], texts[1][key]) for key in shared]
    return components


def leaves(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yields (key path, text on one line) of every text in a tree."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}/{key}")
        elif isinstance(value, str):
            yield f"{path}/{key}", " ".join(value.split())


def clean_and_split(
    components: dict[str, list[Pair]],
) -> tuple[dict[str, list[Pair]], Counter[str]]:
    """Drops what is no translation, and gives every component to one split.

    Dev and test lose what also stands in train, on either side: a sentence of theirs is new.

    Returns:
      Pairs of each split, and how many were dropped for each reason.
    """
    dropped: Counter[str] = Counter()
    splits: dict[str, dict[Pair, None]] = {"train": {}, "dev": {}, "test": {}}
    for component, pairs in components.items():
        split = splits[split_of(component)]
        for pair in pairs:
            if reason := "repeated" if pair in split else fault(*pair):
                dropped[reason] += 1
            else:
                split[pair] = None
    known = {text for pair in splits["train"] for text in pair}
    for name in ("dev", "test"):
        new = {pair: None for pair in splits[name] if not known & set(pair)}
        dropped["held-out but in train"] += len(splits[name]) - len(new)
        splits[name] = new
        known |= {text for pair in new for text in pair}
    return {name: list(pairs) for name, pairs in splits.items()}, dropped


def split_of(component: str) -> str:
    """A tenth of the components for dev, a tenth for test; the same ones for ever."""
    digit = hashlib.sha256(component.encode()).digest()[0] % 10
    return {0: "dev", 1: "test"}.get(digit, "train")


def fault(chinese: str, english: str) -> str:
    """Why a pair is no translation; "" if it is one."""
    if not chinese or not english:
        return "empty"
    if chinese == english:
        return "untranslated"
    if not re.search(r"[\u4e00-\u9fff]", chinese):
        return "without Chinese"
    places = (sorted(re.findall(r"\{[^{}]*\}", text)) for text in (chinese, english))
    return "" if next(places) == next(places) else "with other placeholders"


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"homeassistant": homeassistant})
