"""Parallel corpora: local files, TensorFlow Datasets (TFDS), or the built-in phrasebook.

Whatever its origin, a corpus gives random access to pairs ``(source text, target text)``. Local
text is converted once to array_record by a TFDS builder, in a cache folder named after a hash of
the files' bytes: the same text is not converted twice, and changed text is converted anew.
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
from tfm.data import languages, phrasebook, text

_FORMAT = "1"  # Part of the cache key; increase it whenever conversion changes.


class Pairs(Protocol):
    """A corpus: random access to sentence pairs. Implementations are picklable."""

    @property
    def fingerprint(self) -> str:
        """Identifies the content: equal fingerprints mean equal pairs in equal order."""

    @property
    def dropped(self) -> dict[str, int]:
        """Number of pairs that conversion left out, by reason ("empty", "undecodable")."""

    @property
    def first_dropped(self) -> dict[str, int]:
        """Line number, from 1, of the first pair left out for each reason."""

    def __len__(self) -> int:
        """Number of pairs."""

    def __getitem__(self, index: int) -> tuple[str, str]:
        """Returns one pair: (source text, target text)."""

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[str, str]]:
        """Returns many pairs in one call, several times faster than one by one."""


def open_corpus(spec: tuple[str, ...], data: config.Data) -> Pairs:
    """Opens the corpus that ``spec`` names (see ``config.Data``); converts local text if needed.

    Args:
      spec: ``(source file, target file)``, ``(TSV file,)``, ``("tfds:NAME[:SPLIT]",)`` or
        ``("phrasebook:SPLIT",)``.
      data: languages, TSV columns, and the cache folder of converted text.

    Raises:
      FileNotFoundError: a file is missing, or a TFDS set is not prepared and cannot be downloaded.
      ValueError: the spec or the text is malformed; the message names file and line.
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
    """Returns the folder of everything that can be computed again from the corpora."""
    return Path(data.cache_dir or "~/.cache/tfm").expanduser()


@dataclasses.dataclass(frozen=True)
class _ArrayRecordPairs:
    """Pairs in array_record files written by TFDS; ``source`` and ``target`` name its features."""

    folder: str
    split: str
    source: str
    target: str
    fingerprint: str
    dropped: dict[str, int]
    first_dropped: dict[str, int]

    @functools.cached_property
    def _records(self) -> Any:
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
        # Parsing the protobuf messages here takes a fifth of the time of TFDS's own decoding.
        from tensorflow_datasets.proto import tf_example_pb2

        pairs = []
        for record in self._records.__getitems__(list(indices)):
            features = tf_example_pb2.Example.FromString(record).features.feature
            sides = (features[name].bytes_list.value[0] for name in (self.source, self.target))
            source, target = (side.decode() for side in sides)
            pairs.append((source, target))
        return pairs


@dataclasses.dataclass(frozen=True)
class _PhrasebookPairs:
    """Pairs generated on demand by the phrasebook's grammar; nothing is stored."""

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
    source, target = languages.base(data.source), languages.base(data.target)
    if {source, target} != {"zh", "en"}:
        raise ValueError(f"phrasebook: has zh and en, not {data.source} and {data.target}")
    code = _source_hash(Path(phrasebook.__file__).parent)
    return _PhrasebookPairs(split, source == "zh", f"phrasebook:{split}:{source}:{code}")


@functools.cache
def _source_hash(folder: Path) -> str:
    """Hash of the names and contents of a package's source files, computed once a process."""
    content = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        content.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return content.hexdigest()


def _open_tfds(name: str, split: str, data: config.Data) -> Pairs:
    import tensorflow_datasets as tfds

    # Without TensorFlow the translation sets are registered only by this import.
    importlib.import_module("tensorflow_datasets.translate")
    try:
        builder = tfds.builder(name, file_format="array_record")
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise ValueError(f"tfds:{name}: {str(error).strip().splitlines()[0]}") from error
    features = sorted(builder.info.features)
    source, target = (_feature(name, features, code) for code in (data.source, data.target))
    if not builder.data_path.exists():
        _download(builder, name)
    if split.partition("[")[0] not in builder.info.splits:
        known = ", ".join(builder.info.splits)
        raise ValueError(f"tfds:{name}: has no split {split!r}; its splits are {known}")
    info = builder.info.splits[split]
    fingerprint = f"tfds:{builder.info.full_name}:{split}:{info.num_examples}:{info.num_bytes}"
    fingerprint += f":{source}:{target}"
    return _ArrayRecordPairs(str(builder.data_path), split, source, target, fingerprint, {}, {})


def _feature(name: str, features: Sequence[str], code: str) -> str:
    """Name of the TFDS feature for a language: its code, or else another spelling of the code.

    Raises:
      ValueError: there is no such feature, or more than one.
    """
    same = [each for each in features if languages.base(each) == languages.base(code)]
    if code in features:
        return code
    if len(same) != 1:
        raise ValueError(f"tfds:{name}: has no {code!r}; its features are {features}")
    return same[0]


def _download(builder: Any, name: str) -> None:
    """Has TFDS download and convert a data set; any failure becomes one line with advice."""
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
    """Runs ``download_and_prepare``; shows its progress on stderr if that is a terminal."""
    import tensorflow_datasets as tfds

    is_terminal = sys.stderr.isatty()
    tfds.display_progress_bar(is_terminal)
    with contextlib.redirect_stdout(sys.stderr if is_terminal else io.StringIO()):
        builder.download_and_prepare()


def _open_text(paths: tuple[Path, ...], data: config.Data) -> Pairs:
    """Opens local text: looked up in the cache by its content, and converted on first use."""
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
        except (OSError, RuntimeError) as error:  # array_record raises RuntimeError only.
            # No failure if another process has finished converting the same corpus meanwhile.
            if not builder.data_path.exists():
                reason = " ".join(str(error).split())
                raise OSError(f"corpus {paths[0]}: cannot be converted: {reason}") from error
    import tensorflow_datasets as tfds

    metadata = tfds.builder_from_directory(builder.data_path).info.metadata
    return _ArrayRecordPairs(
        folder=str(builder.data_path),
        split="train",
        source="source",
        target="target",
        fingerprint=fingerprint,
        dropped=dict(metadata["dropped"]),
        first_dropped=dict(metadata["first_dropped"]),
    )


def _text_builder(paths: tuple[Path, ...], columns: tuple[int, int] | None, folder: Path) -> Any:
    """Returns a TFDS builder that converts ``paths`` into ``folder``, completely or not at all.

    ``tfds.folder_dataset.TranslateFolder`` would need TensorFlow. The class is defined inside the
    function because importing TFDS takes half a second.
    """
    import tensorflow_datasets as tfds

    class ParallelText(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
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
