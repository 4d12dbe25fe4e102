"""Parallel text by name: local files, TensorFlow Datasets, or the embedded phrasebook.

Whatever its origin, a corpus is read at random by index as ``(source text, target text)``.
Local text is converted once to array_record by a TFDS builder, under a name made from the
files' bytes: the same text is never converted twice, changed text is never mistaken for the old.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from tfm import config
from tfm.data import phrasebook, text

_FORMAT = "1"  # Part of the cache key: raise it when conversion changes.


class Pairs(Protocol):
    """A corpus: random access to sentence pairs; picklable, so workers may share it.

    Attributes:
      fingerprint: names the content; equal fingerprints mean equal pairs in equal order.
      dropped: what conversion left out, by reason ("empty", "undecodable"), in pairs.
      first_dropped: the first line of each reason, from 1.
    """

    fingerprint: str
    dropped: dict[str, int]
    first_dropped: dict[str, int]

    def __len__(self) -> int:
        """Pairs in the corpus."""

    def __getitem__(self, index: int) -> tuple[str, str]:
        """One pair: (source text, target text)."""

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[str, str]]:
        """Many pairs in one call, which is several times faster than one by one."""


def open_corpus(spec: tuple[str, ...], data: config.Data) -> Pairs:
    """Opens the corpus that ``spec`` names (see ``config.Data``), converting it if need be.

    Args:
      spec: ``(source file, target file)``, ``(TSV file,)``, ``("tfds:NAME[:SPLIT]",)`` or
        ``("phrasebook:SPLIT",)``.
      data: languages, TSV columns, and where converted text is kept.

    Raises:
      FileNotFoundError: a file is missing, or a TFDS set is not here and cannot be fetched.
      ValueError: the spec or the text does not fit; the message names file and line.
    """
    if len(spec) == 1 and spec[0].startswith("tfds:"):
        name, _, split = spec[0].removeprefix("tfds:").partition(":")
        return _open_tfds(name, split or "train", data)
    if len(spec) == 1 and spec[0].startswith("phrasebook:"):
        return _open_phrasebook(spec[0].removeprefix("phrasebook:"), data)
    if len(spec) not in (1, 2):
        raise ValueError(
            f"corpus {spec!r}: name two files, one TSV file, tfds:NAME or phrasebook:SPLIT"
        )
    return _open_text(tuple(Path(part).expanduser() for part in spec), data)


def cache_dir(data: config.Data) -> Path:
    """The folder of everything that can be made again from the corpora."""
    return Path(data.cache_dir or "~/.cache/tfm").expanduser()


@dataclasses.dataclass(frozen=True)
class _Stored:
    """Pairs kept by TFDS in array_record files; ``source`` and ``target`` name its features."""

    folder: str
    split: str
    source: str
    target: str
    fingerprint: str
    dropped: dict[str, int]
    first_dropped: dict[str, int]

    @functools.cached_property
    def _records(self) -> Sequence[bytes]:
        import tensorflow_datasets as tfds

        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        builder = tfds.builder_from_directory(self.folder)
        return builder.as_data_source(self.split, deserialize_method=raw)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[str, str]:
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[str, str]]:
        # TFDS's own decoding of these messages takes five times as long.
        from tensorflow_datasets.proto import tf_example_pb2

        pairs = []
        for record in self._records.__getitems__(list(indices)):
            features = tf_example_pb2.Example.FromString(record).features.feature
            sides = (features[name].bytes_list.value[0] for name in (self.source, self.target))
            source, target = (side.decode() for side in sides)
            pairs.append((source, target))
        return pairs


@dataclasses.dataclass(frozen=True)
class _Phrasebook:
    """Pairs made on demand by the bilingual grammar; nothing is stored."""

    split: str
    chinese_first: bool
    fingerprint: str
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    first_dropped: dict[str, int] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return phrasebook.size(self.split)

    def __getitem__(self, index: int) -> tuple[str, str]:
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        chinese, english = phrasebook.pair(self.split, int(index))
        return (chinese, english) if self.chinese_first else (english, chinese)

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[str, str]]:
        return [self[index] for index in indices]


def _open_phrasebook(split: str, data: config.Data) -> Pairs:
    if split not in ("train", "dev", "test"):
        raise ValueError(f"phrasebook:{split}: the splits are train, dev and test")
    if {data.source, data.target} != {"zh", "en"}:
        raise ValueError(f"phrasebook: has zh and en, not {data.source} and {data.target}")
    code = hashlib.sha256(Path(phrasebook.__file__).read_bytes()).hexdigest()
    return _Phrasebook(split, data.source == "zh", f"phrasebook:{split}:{data.source}:{code}")


def _open_tfds(name: str, split: str, data: config.Data) -> Pairs:
    import tensorflow_datasets as tfds

    # Without TensorFlow the translation sets are registered only by this import.
    importlib.import_module("tensorflow_datasets.translate")
    try:
        builder = tfds.builder(name, file_format="array_record")
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise ValueError(f"tfds:{name}: {str(error).strip().splitlines()[0]}") from error
    languages = sorted(builder.info.features)
    for language in (data.source, data.target):
        if language not in languages:
            raise ValueError(f"tfds:{name}: has no {language!r}; its features are {languages}")
    if not builder.data_path.exists():
        _download(builder, name)
    if split.partition("[")[0] not in builder.info.splits:
        known = ", ".join(builder.info.splits)
        raise ValueError(f"tfds:{name}: has no split {split!r}; its splits are {known}")
    info = builder.info.splits[split]
    fingerprint = f"tfds:{builder.info.full_name}:{split}:{info.num_examples}:{info.num_bytes}"
    fingerprint += f":{data.source}:{data.target}"
    return _Stored(str(builder.data_path), split, data.source, data.target, fingerprint, {}, {})


def _download(builder: Any, name: str) -> None:
    """Lets TFDS fetch and convert a set; whatever goes wrong becomes one line of advice."""
    try:
        _prepare(builder)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(
            f"tfds:{name}: not prepared in {builder.data_path} and cannot be prepared here "
            f"({reason}); run `tfds build {name} --file_format=array_record` on a machine with "
            "network access and copy its folder, or set TFDS_DATA_DIR to where it lies"
        ) from error


def _prepare(builder: Any) -> None:
    """Runs ``download_and_prepare``; progress on stderr, and only on a terminal."""
    import tensorflow_datasets as tfds

    shown = sys.stderr.isatty()
    tfds.display_progress_bar(shown)
    with contextlib.redirect_stdout(sys.stderr if shown else io.StringIO()):
        builder.download_and_prepare()


def _open_text(paths: tuple[Path, ...], data: config.Data) -> Pairs:
    """Local text: found in the cache by content, converted there on first use."""
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"corpus {path}: no such file")
    columns = data.tsv_columns if len(paths) == 1 else None
    content = hashlib.sha256(f"{_FORMAT} {columns}".encode())
    for path in paths:
        content.update(b"gzip" if path.suffix == ".gz" else b"plain")
        with path.open("rb") as file:
            content.update(hashlib.file_digest(file, "sha256").digest())
    fingerprint = f"text:{content.hexdigest()}"
    builder = _text_builder(paths, columns, cache_dir(data) / "corpora" / content.hexdigest()[:24])
    if not builder.data_path.exists():
        text.check(paths, columns)
        try:
            _prepare(builder)
        except (OSError, RuntimeError) as error:  # array_record knows the second only
            # Another process may have finished the same corpus first; then there is no error.
            if not builder.data_path.exists():
                reason = " ".join(str(error).split())
                raise OSError(f"corpus {paths[0]}: not converted: {reason}") from error
    import tensorflow_datasets as tfds

    notes = tfds.builder_from_directory(builder.data_path).info.metadata
    return _Stored(
        folder=str(builder.data_path),
        split="train",
        source="source",
        target="target",
        fingerprint=fingerprint,
        dropped=dict(notes["dropped"]),
        first_dropped=dict(notes["first_dropped"]),
    )


def _text_builder(paths: tuple[Path, ...], columns: tuple[int, int] | None, folder: Path) -> Any:
    """A TFDS builder of ``paths`` in ``folder``, which it fills whole or not at all.

    ``tfds.folder_dataset.TranslateFolder`` would need TensorFlow. The class is made here, not at
    import, because importing TFDS takes half a second.
    """
    import tensorflow_datasets as tfds

    class ParallelText(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Lines of text, in the order of the files."""

        name = "parallel_text"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.Translation(("source", "target")),
                disable_shuffling=True,
                metadata=tfds.core.MetadataDict(),
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
            del dl_manager
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, str]]]:
            dropped: dict[str, int] = {}
            first: dict[str, int] = {}
            for number, source, target, fault in text.read_pairs(paths, columns):
                if fault:
                    dropped[fault] = dropped.get(fault, 0) + 1
                    first.setdefault(fault, number)
                else:
                    yield number, {"source": source, "target": target}
            self.info.metadata.update(dropped=dropped, first_dropped=first)

    return ParallelText(data_dir=folder, file_format="array_record")
