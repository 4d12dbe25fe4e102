"""Corpora: text is kept exactly, dropped pairs are counted, errors name file and line."""

import gzip
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfm import config
from tfm.data import corpus, phrasebook, text

ZH = ["你好，世界！", "我喝茶。", "这是 一本\u2028书。", "😀\u3000好\u0085", "再见。"]
EN = ["Hello, world!", "I drink tea.", "This is a\x0bbook.", "Good \x1d 😀", "Bye."]


@pytest.fixture
def data(tmp_path):
    return config.Data(cache_dir=str(tmp_path / "cache"))


@pytest.fixture
def write(tmp_path):
    """``write(name, lines or bytes)`` writes a file, gzipped if its name ends in .gz."""

    def write(name, content):
        if not isinstance(content, bytes):
            content = "".join(line + "\n" for line in content).encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(path)

    return write


def as_list(pairs):
    return pairs.__getitems__(range(len(pairs)))


def test_two_files_come_back_in_order(write, data):
    pairs = corpus.open_corpus((write("a.zh", ZH), write("a.en", EN)), data)
    assert as_list(pairs) == list(zip(ZH, EN, strict=True))
    assert [pairs[i] for i in range(len(pairs))] == as_list(pairs) == list(pairs)
    assert pairs.dropped == {}
    with pytest.raises(IndexError):
        pairs[len(ZH)]


def test_gzip_tsv_and_line_endings_read_alike(write, data):
    plain = as_list(corpus.open_corpus((write("a.zh", ZH), write("a.en", EN)), data))
    crlf = "\r\n".join(ZH).encode()  # And no newline at the end.
    bom = b"\xef\xbb\xbf" + "\n".join(EN).encode()
    other = as_list(corpus.open_corpus((write("b.zh.gz", crlf), write("b.en.gz", bom)), data))
    tsv = write("c.tsv", [f"{i}\t{e}\t{z}" for i, (z, e) in enumerate(zip(ZH, EN, strict=True))])
    table = as_list(
        corpus.open_corpus((tsv,), config.Data(**{**vars(data), "tsv_columns": (2, 1)}))
    )
    assert plain == other == table


def test_text_is_converted_once_and_identified_by_content(write, data, monkeypatch):
    first = corpus.open_corpus((write("a.zh", ZH), write("a.en", EN)), data)
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_prepare", lambda builder: pytest.fail("converted again"))
        copy = corpus.open_corpus((write("copy.zh", ZH), write("copy.en", EN)), data)
        assert copy == first
    changed = corpus.open_corpus((write("a.zh", [*ZH[:-1], "回头见。"]), write("a.en", EN)), data)
    assert changed.fingerprint != first.fingerprint
    assert changed[4] == ("回头见。", "Bye.") and first[4] == ("再见。", "Bye.")


def test_swapped_files_are_another_corpus(write, data):
    paths = write("a.zh", ZH), write("a.en", EN)
    one, two = corpus.open_corpus(paths, data), corpus.open_corpus(paths[::-1], data)
    assert one.fingerprint != two.fingerprint and one[0] == two[0][::-1]


def test_bad_lines_are_dropped_in_pairs_and_counted(write, data):
    source = b"good 0\n\n \xe3\x80\x80 \ngood 3\nbad \xff\ngood 5\n"
    target = b"fine 0\nfine 1\nfine 2\n\nfine 4\nfine 5\n"
    pairs = corpus.open_corpus((write("a", source), write("b", target)), data)
    for opened in (pairs, corpus.open_corpus((write("a", source), write("b", target)), data)):
        assert as_list(opened) == [("good 0", "fine 0"), ("good 5", "fine 5")]
        assert opened.dropped == {"empty": 3, "undecodable": 1}
        assert opened.first_dropped == {"empty": 2, "undecodable": 5}


def test_pickle(write, data):
    pairs = corpus.open_corpus((write("a.zh", ZH), write("a.en", EN)), data)
    assert as_list(pickle.loads(pickle.dumps(pairs))) == as_list(pairs)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": ["1", "2", "3"], "b": ["1", "2"]}, r"/a has 3 lines but .*/b has 2:"),
        ({"t.tsv": ["x\ty", "x\ty", "lonely"]}, r"t\.tsv line 3: has 1 tab-separated column"),
        ({"a": ["", " "], "b": ["x", "y"]}, "no usable pair"),
        ({"a": [], "b": []}, "no usable pair"),
        ({"a.gz": ["x"] * 999, "b": ["y"] * 999}, r"a\.gz: damaged gzip file"),
        ({"a": ["x"], "b": ["x"], "c": ["x"]}, "name two files, one TSV file, tfds:NAME"),
    ],
)
def test_errors_name_the_file_and_leave_nothing_behind(write, data, files, message):
    paths = [write(name, lines) for name, lines in files.items()]
    if paths[0].endswith(".gz"):
        Path(paths[0]).write_bytes(Path(paths[0]).read_bytes()[:-9])
    with pytest.raises(ValueError, match=message):
        corpus.open_corpus(tuple(paths), data)
    assert not [path for path in Path(data.cache_dir).rglob("*") if path.is_file()]


def test_missing_file_is_named(write, data):
    with pytest.raises(FileNotFoundError, match=r"corpus .*nowhere\.en: no such file"):
        corpus.open_corpus((write("a.zh", ZH), "nowhere.en"), data)


def test_conversion_streams(write, data):
    """Lines are read one by one; the file is never in memory as a whole."""
    path = Path(write("big", ["line"] * 1000))
    reader = text.lines(path)
    assert next(reader) == b"line"
    with path.open("ab") as file:
        file.write(b"late\n" * 100_000)
    assert sum(line == b"late" for line in reader) == 100_000


@pytest.mark.slow
def test_kill_during_conversion_leaves_no_partial_corpus(write, data):
    paths = (write("a", [f"x {i}" for i in range(60_000)]), write("b", ["y"] * 60_000))
    code = (
        "from tfm import config; from tfm.data import corpus;"
        f"corpus.open_corpus({paths!r}, config.Data(cache_dir={data.cache_dir!r}))"
    )
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": "."})
    while not list(Path(data.cache_dir).rglob("*incomplete*")) and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    pairs = corpus.open_corpus(paths, data)
    assert len(pairs) == 60_000 and pairs[59_999] == ("x 59999", "y")


def test_phrasebook_follows_the_direction():
    there = corpus.open_corpus(("phrasebook:dev",), config.Data(source="zh", target="en"))
    back = corpus.open_corpus(("phrasebook:dev",), config.Data(source="en", target="zh"))
    assert there[3] == back[3][::-1] and there.fingerprint != back.fingerprint
    assert any("\u4e00" <= letter <= "\u9fff" for letter in there[3][0])
    assert there.__getitems__([1, 0]) == [there[1], there[0]]
    assert pickle.loads(pickle.dumps(there))[2] == there[2]


SOURCES = sorted(Path(phrasebook.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("changed", SOURCES, ids=lambda path: path.stem)
def test_phrasebook_fingerprint_covers_every_source_file(tmp_path, monkeypatch, changed):
    def fingerprint(name, text=""):
        copy = shutil.copytree(changed.parent, tmp_path / name)
        with (copy / changed.name).open("a", encoding="utf-8") as file:
            file.write(text)
        monkeypatch.setattr(phrasebook, "__file__", str(copy / "__init__.py"))
        return corpus.open_corpus(("phrasebook:dev",), config.Data()).fingerprint

    assert fingerprint("same") == fingerprint("again") != fingerprint("other", "# a change\n")


def test_phrasebook_sources_are_hashed_once(monkeypatch):
    first = corpus.open_corpus(("phrasebook:dev",), config.Data()).fingerprint
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("hashed again"))
    assert corpus.open_corpus(("phrasebook:dev",), config.Data()).fingerprint == first


def test_phrasebook_errors(data):
    with pytest.raises(ValueError, match="splits are train, dev and test"):
        corpus.open_corpus(("phrasebook:all",), data)
    with pytest.raises(ValueError, match="has zh and en, not de and en"):
        corpus.open_corpus(("phrasebook:dev",), config.Data(source="de", target="en"))


@pytest.fixture
def prepared(tmp_path):
    """A small TFDS translation set, ``toy_translate/zh-en``, prepared in a known folder."""
    import tensorflow_datasets as tfds

    class ToyTranslate(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "toy_translate"
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="zh-en")]  # noqa: RUF012

        def _info(self):
            features = tfds.features.Translation(("zh", "en"))
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager):
            rows = list(enumerate({"zh": z, "en": e} for z, e in zip(ZH, EN, strict=True)))
            return {"train": iter(rows), "validation": iter(rows[:2])}

        def _generate_examples(self):
            raise NotImplementedError

    folder = tmp_path / "tfds"
    corpus._prepare(ToyTranslate(data_dir=folder, config="zh-en", file_format="array_record"))
    tfds.core.add_data_dir(folder)
    yield "tfds:toy_translate/zh-en"
    tfds.core.utils.file_utils.clear_registered_data_dirs()


def test_tfds_by_name_split_and_direction(prepared):
    data = config.Data(source="en", target="zh")
    assert as_list(corpus.open_corpus((prepared,), data)) == list(zip(EN, ZH, strict=True))
    part = corpus.open_corpus((f"{prepared}:validation",), config.Data())
    assert as_list(part) == list(zip(ZH[:2], EN[:2], strict=True))
    half = corpus.open_corpus((f"{prepared}:train[3:]",), config.Data())
    assert as_list(half) == list(zip(ZH[3:], EN[3:], strict=True))
    assert len({part.fingerprint, half.fingerprint}) == 2


def test_tfds_languages_are_found_by_another_spelling_of_their_code(prepared):
    want = corpus.open_corpus((prepared,), config.Data(source="zh", target="en"))
    assert corpus.open_corpus((prepared,), config.Data(source="zh_CN", target="en-GB")) == want


def test_tfds_errors(prepared):
    with pytest.raises(ValueError, match=r"has no 'de'; its features are \['en', 'zh'\]"):
        corpus.open_corpus((prepared,), config.Data(source="de"))
    with pytest.raises(ValueError, match="has no split 'dev'; its splits are train, validation"):
        corpus.open_corpus((f"{prepared}:dev",), config.Data())
    with pytest.raises(ValueError, match="tfds:no_such_set"):
        corpus.open_corpus(("tfds:no_such_set",), config.Data())


def test_tfds_wmt_is_found_and_the_error_says_how_to_get_it(monkeypatch):
    """It is found without TensorFlow; if it cannot be downloaded, the message says what to do."""

    def offline(builder):
        raise ConnectionError("Name or service not known\nand a long trace")

    monkeypatch.setattr(corpus, "_prepare", offline)
    with pytest.raises(
        FileNotFoundError, match=r"wmt19_translate/zh-en: not prepared in .*known\)"
    ):
        corpus.open_corpus(("tfds:wmt19_translate/zh-en",), config.Data())
