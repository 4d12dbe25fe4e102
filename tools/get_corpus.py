"""Builds a real Chinese-English corpus on any machine with access to PyPI.

    python tools/get_corpus.py homeassistant --out data/homeassistant

The sentences are the texts of Home Assistant's user interface (Apache-2.0) and the translations of
its community: about ten thousand short pairs, written to ``{train,dev,test}.{zh,en}.gz``.
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

Pair = tuple[str, str]  # (Chinese, English)


def homeassistant(out: Path, version: str = "2024.3.3") -> None:
    """Pairs the texts of ``en.json`` and ``zh-Hans.json`` of every component, key by key.

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
            # Without a time stamp the same text gives the same file.
            (out / f"{name}.{language}.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    print(", ".join(f"{name} {len(pairs):,}" for name, pairs in splits.items()), f"pairs in {out}")
    print("dropped:", ", ".join(f"{count:,} {reason}" for reason, count in dropped.items()))


def read_components(wheel: Path) -> dict[str, list[Pair]]:
    """The pairs of each component, in the order of their keys."""
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
    """Yields (key path, text on one line) for every text in a tree."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}/{key}")
        elif isinstance(value, str):
            yield f"{path}/{key}", " ".join(value.split())


def clean_and_split(
    components: dict[str, list[Pair]],
) -> tuple[dict[str, list[Pair]], Counter[str]]:
    """Drops pairs that are not translations, and assigns every component to one split.

    A pair of dev or test is dropped if either of its texts also occurs in a split before it.

    Returns:
      The pairs of each split, and how many were dropped for each reason.
    """
    dropped: Counter[str] = Counter()
    splits: dict[str, dict[Pair, None]] = {"train": {}, "dev": {}, "test": {}}
    for component, pairs in components.items():
        split = splits[split_of(component)]
        for pair in pairs:
            if reason := "repeated" if pair in split else defect(*pair):
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
    """The split of a component, by the hash of its name: a tenth to dev, a tenth to test."""
    digit = hashlib.sha256(component.encode()).digest()[0] % 10
    return {0: "dev", 1: "test"}.get(digit, "train")


def defect(chinese: str, english: str) -> str:
    """Why a pair is not a translation; "" if it is one."""
    if not chinese or not english:
        return "empty"
    if chinese == english:
        return "untranslated"
    if not re.search(r"[\u4e00-\u9fff]", chinese):
        return "without Chinese"
    in_chinese, in_english = (
        sorted(re.findall(r"\{[^{}]*\}", text)) for text in (chinese, english)
    )
    return "" if in_chinese == in_english else "with other placeholders"


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"homeassistant": homeassistant})
