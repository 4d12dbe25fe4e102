"""Many lines, translated in blocks by one or several processes that may be killed at any time.

A file is cut into blocks of so many lines. A process claims a block, translates it and saves what
it gives; when all blocks of a file are there, they are joined into its output, in order. Whoever is
started on the same folder goes on with what is missing. A block is the same whoever translates it,
so that claims only save work: should two processes translate one, nothing comes twice.
"""

import contextlib
import json
import logging
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from tfm import lock_file, storage, terminal
from tfm.data import text
from tfm.lock_holder import Holder, describe_this_process

_log = logging.getLogger(__name__)

_HEARTBEAT = 10.0  # seconds between two signs of life of a claim
_STALE = 6 * _HEARTBEAT  # a claim without any for so long is taken over
_PAUSE = 1.0  # seconds between two looks at what others are doing

Write = Callable[[list[str], str, int], bytes]
"""``write(lines, name, first)``: the output for some lines of a file, of which the first has this
number."""


class Shard(NamedTuple):
    """A file to translate.

    Attributes:
      source, output: paths, local or in a bucket.
      work: the folder of its blocks until it is done.
      lines: how many it has.
      block_lines: lines of a block.
    """

    source: Any
    output: Any
    work: Any
    lines: int
    block_lines: int

    @property
    def blocks(self) -> int:
        return max(1, math.ceil(self.lines / self.block_lines))

    def block(self, number: int) -> Any:
        return self.work / f"{number:08d}"

    def done(self) -> set[int]:
        """The blocks that are there."""
        if not self.work.is_dir():
            return set()
        return {int(p.name) for p in self.work.iterdir() if p.name.isdecimal()}


def run(
    inputs: Sequence[str],
    folder: str,
    write: Write,
    job: dict[str, Any],
    block_lines: int = 1000,
    keep_ends: bool = False,
) -> None:
    """Translates files into files of the same names in a folder, or goes on with it.

    Args:
      inputs: files, local or in a bucket, plain or .gz.
      job: what the translations depend on, such as the model; it is kept in the folder.
      keep_ends: whether ``write`` is given lines with their ends.

    Raises:
      ValueError: the folder is of another job, two inputs have one name, an input is not UTF-8.
    """
    root = storage.path(folder)
    shards = _shards(inputs, root, block_lines)
    storage.make_folder(root, "--output-dir")
    _check_job(
        root,
        job | {"files": {s.output.name: s.lines for s in shards}} | {"block_lines": block_lines},
    )
    total, at_start = sum(s.lines for s in shards), _lines_done(shards)
    if at_start:
        _log.info("%s: goes on after %s of %s lines", folder, f"{at_start:,}", f"{total:,}")
    watch = terminal.Stopwatch()
    with terminal.Bar("translate") as bar:

        def show() -> None:
            done = _lines_done(shards)
            rate = (done - at_start) / max(watch.seconds, 1e-9)
            bar.show(done / max(total, 1), f"{done:,} of {total:,} lines, {rate:,.1f} lines/s")

        while not all(shard.output.exists() for shard in shards):
            worked = False
            for shard in shards:
                if not shard.output.exists():
                    worked |= _work(shard, write, keep_ends, show)
            if not worked:
                time.sleep(_PAUSE)
    for shard in shards:
        _remove(shard.work)


def _shards(inputs: Sequence[str], root: Any, block_lines: int) -> list[Shard]:
    sources = [storage.path(name) for name in inputs]
    names = [source.name for source in sources]
    for source, name in zip(sources, names, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"--input: two files are called {name}, and so would their outputs")
        if (root / name).exists() and os.fspath(root / name) == os.fspath(source):
            raise ValueError(f"--output-dir {root}: holds the input {name}; name another folder")
    return [
        Shard(
            source,
            root / source.name,
            root / f".{source.name}.blocks",
            sum(1 for _ in text.read(source)),
            block_lines,
        )
        for source in sources
    ]


def _check_job(root: Any, job: dict[str, Any]) -> None:
    """Writes what is done here, or compares it with what is.

    Raises:
      ValueError: something else is done here.
    """
    path, content = root / "job.json", json.dumps(job, indent=2, sort_keys=True, default=str)
    if not path.exists():
        storage.write_atomically(path, content.encode())
    found = json.loads(path.read_text())
    wanted = json.loads(content)
    if different := [key for key in found | wanted if found.get(key) != wanted.get(key)]:
        raise ValueError(
            f"--output-dir {root}: holds another job, which differs in {', '.join(different)}; "
            "name a new folder, or give the same options as before"
        )


def _lines_done(shards: Sequence[Shard]) -> int:
    done = 0
    for shard in shards:
        blocks = shard.blocks if shard.output.exists() else len(shard.done())
        done += min(blocks * shard.block_lines, shard.lines)
    return done


def _work(shard: Shard, write: Write, keep_ends: bool, show: Callable[[], None]) -> bool:
    """Translates what nobody else does; joins the blocks if all are there. False: nothing to do."""
    storage.make_folder(shard.work, "--output-dir")
    done = shard.done()
    missing = [i for i in range(shard.blocks) if i not in done]
    if not missing:
        with _claimed(shard.work / "join.claim") as mine:
            if mine and not shard.output.exists():
                _join([shard.block(i) for i in range(shard.blocks)], shard.output)
                _remove(shard.work)
        return mine
    if not any(_is_free(_claim_path(shard, i)) for i in missing):
        return False
    worked = False
    for i, lines in enumerate(_blocks(shard, keep_ends)):
        if i in done or shard.block(i).exists():
            continue
        with _claimed(_claim_path(shard, i)) as mine:
            if mine and not shard.block(i).exists():
                content = write(lines, str(shard.source), 1 + i * shard.block_lines)
                storage.write_atomically(shard.block(i), content)
                worked = True
        show()
    return worked


def _blocks(shard: Shard, keep_ends: bool) -> Iterator[list[str]]:
    lines = text.read(shard.source, keep_ends)
    for _ in range(shard.blocks):
        yield list(islice(lines, shard.block_lines))


def _join(blocks: Sequence[Any], output: Any) -> None:
    """Writes the blocks, one after the other; the output appears only when it is whole."""

    def copy(file: Any) -> None:
        for block in blocks:
            with block.open("rb") as part:
                shutil.copyfileobj(part, file)

    if storage.in_bucket(output):  # an object appears only when its upload is complete
        with output.open("wb") as file:
            copy(file)
        return
    with tempfile.NamedTemporaryFile(dir=output.parent, prefix=".", delete=False) as file:
        try:
            copy(file)
        except BaseException:
            os.unlink(file.name)
            raise
    os.chmod(file.name, 0o644)
    os.replace(file.name, output)


def _remove(folder: Any) -> None:
    with contextlib.suppress(OSError):  # another process removes it too
        if folder.is_dir():
            folder.rmtree()


def _claim_path(shard: Shard, number: int) -> Any:
    return shard.work / f"{number:08d}.claim"


@contextlib.contextmanager
def _claimed(path: Any) -> Iterator[bool]:
    """Whether this process holds the claim, until the end of the block; others see that it lives.

    The claim of a process that is gone is taken over: of this machine at once, of others when it
    has shown no sign of life for a minute.
    """
    lock = lock_file.at(path)
    version = None
    with contextlib.suppress(FileNotFoundError):  # the folder is gone: all is done
        if _is_free(path):
            if (found := lock.read()) is not None:
                lock.remove(found.version)
            version = lock.create(describe_this_process())
    if version is None:
        yield False
        return
    ended = threading.Event()
    thread = threading.Thread(target=_live, args=(lock, version, ended), daemon=True)
    thread.start()
    try:
        yield True
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            lock.remove(version)


def _live(lock: lock_file.LockFile, version: Any, ended: threading.Event) -> None:
    while not ended.wait(_HEARTBEAT):
        with contextlib.suppress(OSError):  # the next sign may come through
            lock.refresh(version)


def _is_free(path: Any) -> bool:
    """Whether nobody who lives holds a claim."""
    found = lock_file.at(path).read()
    if found is None or found.age > _STALE:
        return True
    holder = Holder.read(found.content)  # None if it has just been created
    return holder is not None and holder.is_alive() is False
