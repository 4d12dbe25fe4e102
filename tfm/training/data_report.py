"""A report on an experiment's data, before time is spent on training with it."""

import dataclasses
import hashlib
import itertools
import tempfile
from collections.abc import Iterator
from os import PathLike

import jax
import numpy as np

from tfm import config, params, signals, transformer
from tfm.data import cleaning, corpus, mixture, stream, tokenizer
from tfm.data import scan as scanning
from tfm.run_folder import RunFolder
from tfm.training import optimizer, setup, step

_RATIO = 3.0  # a pair whose length ratio is this far from the mean is seldom a translation
_BATCHES = 20  # packed to measure the density


def report(experiment: config.Config, folder: str | PathLike | None) -> str:
    """A page of text about the corpora of an experiment and the memory that training needs.

    Args:
      folder: of a run whose tokenizers to use; None trains them in a temporary folder.
    """
    if folder is not None:
        RunFolder(folder).create()
    with tempfile.TemporaryDirectory() as temporary:
        data = setup.open_data(experiment, folder or temporary)
    experiment = setup.resolve(experiment, data)
    seen: dict[str, np.ndarray] = {}
    sections = []
    for name, spec in _corpora(experiment.data):
        pairs = corpus.open_corpus(spec, experiment.data)
        scan = scanning.scan(pairs, data.tokenizers, experiment.data)
        sections.append(_corpus(name, pairs, scan, data.tokenizers, seen))
    sections.append(_faults(experiment.data))
    sections += [_density(experiment, data), _memory(experiment)]
    return "\n\n".join("\n".join(section) for section in sections)


def _corpora(data: config.Data) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The name and the files of each corpus; of a mixture, of its parts."""
    if data.mixture:
        yield from ((f"mixture[{i}]", part.files) for i, part in enumerate(data.mixture))
    else:
        yield "train", data.train
    yield from ((name, spec) for name in ("dev", "test") if (spec := getattr(data, name)))


def _corpus(
    name: str,
    pairs: corpus.Pairs,
    scan: scanning.Scan,
    tokenizers: scanning.Tokenizers,
    seen: dict[str, np.ndarray],
) -> list[str]:
    """Lines about one corpus; adds the hashes of its sources to ``seen``."""
    lines = [f"{name}: {scan.report()}"]
    for side, label in enumerate(("source", "target")):
        lengths = np.asarray(scan.lengths[:, side])
        median, p90, p99 = np.percentile(lengths, (50, 90, 99)).astype(int)
        lines.append(
            f"  {label} tokens: median {median}, 90 % up to {p90}, 99 % up to {p99}, "
            f"longest {lengths.max()}; {_pieces_per_word(pairs, tokenizers[side], side)}"
        )
    mean_ratio = scan.target_tokens / scan.source_tokens
    ratio = scan.lengths[:, 1] / np.maximum(scan.lengths[:, 0], 1) / mean_ratio
    long = np.maximum(*np.asarray(scan.lengths).T) >= 8
    odd = long & ((ratio > _RATIO) | (ratio < 1 / _RATIO))
    lines.append(f"  mismatched lengths (one side {_RATIO:g} times too long): {odd.sum():,}")

    hashes = np.fromiter(_hashes(pairs), np.dtype((np.uint64, 3)), len(pairs))
    source, target, both = hashes.T
    lines.append(
        f"  duplicates: {_repeated(both):,} pairs occur earlier; "
        f"{_repeated(source) - _repeated(both):,} sources occur earlier with another target, "
        f"{_repeated(target) - _repeated(both):,} targets with another source; "
        f"{(source == target).sum():,} pairs have equal sides"
    )
    for other, others in seen.items():
        lines.append(f"  sources that also occur in {other}: {np.isin(source, others).sum():,}")
    seen[name] = source
    return lines


def _faults(data: config.Data) -> list[str]:
    """How many training pairs have each fault, with one example, and what is left out."""
    pairs = mixture.open_training(data)
    held_out = [corpus.open_corpus(spec, data) for spec in (data.dev, data.test) if spec]
    reported = dataclasses.replace(data, clean=cleaning.REPORTED)
    found = cleaning.faults(pairs, reported, held_out)
    left_out = setup.faults_of(pairs, data)
    lines = ["faults of training pairs (data.clean leaves them out):"]
    for code, fault in enumerate(cleaning.FAULTS, 1):
        own = np.flatnonzero(found == code)
        out = 0 if left_out is None else int((left_out == code).sum())
        example = f"; such as {_short(pairs[int(own[0])])}" if len(own) else ""
        lines.append(f"  {fault}: {len(own):,} found, {out:,} left out{example}")
    return lines


def _short(pair: tuple[str, str]) -> str:
    return " / ".join(text if len(text) <= 40 else text[:40] + "..." for text in pair)


def _hashes(pairs: corpus.Pairs) -> Iterator[tuple[int, int, int]]:
    """64-bit hashes of source, target and both, for each pair."""
    digest = lambda text: int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())  # noqa: E731
    for chunk in _chunks(pairs):
        for source, target in chunk:
            source, target = tokenizer.normalise(source), tokenizer.normalise(target)
            yield digest(source), digest(target), digest(f"{source}\t{target}")


def _chunks(pairs: corpus.Pairs, size: int = 4096) -> Iterator[list[tuple[str, str]]]:
    for start in range(0, len(pairs), size):
        yield pairs.__getitems__(range(start, min(start + size, len(pairs))))


def _repeated(hashes: np.ndarray) -> int:
    return len(hashes) - len(np.unique(hashes))


def _pieces_per_word(pairs: corpus.Pairs, side_tokenizer: tokenizer.Tokenizer, side: int) -> str:
    """Pieces a word, or a character in unspaced languages, over the first few thousand pairs."""
    texts = [pair[side] for pair in next(_chunks(pairs))]
    pieces = sum(len(ids) - 1 for ids in side_tokenizer.encode_batch(texts))
    words, characters = sum(len(t.split()) for t in texts), sum(map(len, texts))
    if characters / words > 9:  # no language has such long words: this one writes no spaces
        return f"{pieces / characters:.2f} pieces a character"
    return f"{pieces / words:.2f} pieces a word"


def _density(experiment: config.Config, data: setup.Data) -> list[str]:
    """How full packed batches are, measured on a few."""
    sizes = experiment.data
    reader = stream.batches(data.pairs, data.scan, data.tokenizers, sizes, prefetch=0)
    batches = list(itertools.islice(reader, _BATCHES))
    density = [
        np.mean([(getattr(batch, f"{side}_segments") != 0).mean() for batch in batches])
        for side in ("source", "target")
    ]
    pairs = np.mean([batch.target_segments.max(axis=1).sum() for batch in batches])
    return [
        f"batches: {sizes.rows} rows of {sizes.source_length}/{sizes.target_length} tokens, "
        f"{pairs:.1f} pairs each; {density[0]:.1%} (source) and {density[1]:.1%} (target) full; "
        f"{len(data.scan.kept) / pairs:,.0f} updates an epoch"
    ]


def _memory(experiment: config.Config) -> list[str]:
    """The memory of training, by the compiler's analysis of the real update."""
    declaration = transformer.declare(experiment.model)
    rule = optimizer.make(experiment.optimizer, declaration)
    state = step.abstract_state(experiment, rule)
    batch = step.abstract_batch(experiment)
    lowered = step.jit_update(experiment, rule).lower(state, batch)
    compiled = signals.interruptible(lowered.compile)
    state_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    analysis = compiled.memory_analysis()
    temporary_bytes = analysis.temp_size_in_bytes if analysis else 0
    mib = 2**20
    return [
        f"memory on one {jax.devices()[0].device_kind} device: "
        f"{params.count(declaration):,} parameters; "
        f"weights and optimizer {state_bytes / mib:,.0f} MiB, "
        f"activations and gradients {temporary_bytes / mib:,.0f} MiB, "
        f"together {(state_bytes + temporary_bytes) / mib:,.0f} MiB"
    ]
