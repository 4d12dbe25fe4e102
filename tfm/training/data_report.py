"""What is in an experiment's data, before time is spent on training with it."""

import hashlib
import itertools
import tempfile
from collections.abc import Iterator
from os import PathLike

import jax
import numpy as np

from tfm import config, params, storage, transformer
from tfm.data import corpus, stream, tokenizer
from tfm.data import scan as scanning
from tfm.training import optimizer, setup, step

_RATIO = 3.0  # One side this much longer than usual, in tokens, is seldom a translation.
_BATCHES = 20


def report(c: config.Config, folder: str | PathLike | None) -> str:
    """A page of text about the corpora of an experiment and what training on them needs.

    Args:
      c: the experiment.
      folder: of a run whose tokenizers to use; None trains them in a temporary folder.
    """
    with tempfile.TemporaryDirectory() as temporary:
        data = setup.open_data(c, storage.path(folder or temporary))
    c = setup.resolve(c, data)
    seen: dict[str, np.ndarray] = {}
    sections = []
    for name in ("train", "dev", "test"):
        spec = getattr(c.data, name)
        if spec:
            pairs = corpus.open_corpus(spec, c.data)
            scan = scanning.scan(pairs, data.tokenizers, c.data)
            sections.append(_corpus(name, pairs, scan, data.tokenizers, seen))
    sections += [_density(c, data), _memory(c)]
    return "\n\n".join("\n".join(section) for section in sections)


def _corpus(
    name: str,
    pairs: corpus.Pairs,
    scan: scanning.Scan,
    tokenizers: scanning.Tokenizers,
    seen: dict[str, np.ndarray],
) -> list[str]:
    """Lines about one corpus; adds its source hashes to ``seen``."""
    lines = [f"{name}: {scan.report()}"]
    for side, label in enumerate(("source", "target")):
        lengths = np.asarray(scan.lengths[:, side])
        half, most, nearly_all = np.percentile(lengths, (50, 90, 99)).astype(int)
        lines.append(
            f"  {label} tokens: median {half}, 90 % up to {most}, 99 % up to {nearly_all}, "
            f"longest {lengths.max()}; {_fertility(pairs, tokenizers[side], side)}"
        )
    usual = scan.target_tokens / scan.source_tokens
    ratio = scan.lengths[:, 1] / np.maximum(scan.lengths[:, 0], 1) / usual
    long = np.maximum(*np.asarray(scan.lengths).T) >= 8
    odd = long & ((ratio > _RATIO) | (ratio < 1 / _RATIO))
    lines.append(f"  lengths that do not match (one side {_RATIO:g} times too long): {odd.sum():,}")

    hashes = np.fromiter(_hashes(pairs), np.dtype((np.uint64, 3)), len(pairs))
    source, target, both = hashes.T
    lines.append(
        f"  duplicates: {_repeated(both):,} pairs stand there before; "
        f"{_repeated(source) - _repeated(both):,} sources come with another target, "
        f"{_repeated(target) - _repeated(both):,} targets with another source; "
        f"{(source == target).sum():,} pairs are the same on both sides"
    )
    for other, others in seen.items():
        lines.append(f"  sources that stand in {other} too: {np.isin(source, others).sum():,}")
    seen[name] = source
    return lines


def _hashes(pairs: corpus.Pairs) -> Iterator[tuple[int, int, int]]:
    """64-bit hashes of source, target and both, a pair at a time."""
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


def _fertility(pairs: corpus.Pairs, side_tokenizer: tokenizer.Tokenizer, side: int) -> str:
    """Pieces a word, or a character where words are not set apart; over the first few thousand."""
    texts = [pair[side] for pair in next(_chunks(pairs))]
    pieces = sum(len(ids) - 1 for ids in side_tokenizer.encode_batch(texts))
    words, characters = sum(len(t.split()) for t in texts), sum(map(len, texts))
    if characters / words > 9:  # nobody writes such long words: this language sets none apart
        return f"{pieces / characters:.2f} pieces a character"
    return f"{pieces / words:.2f} pieces a word"


def _density(c: config.Config, data: setup.Data) -> list[str]:
    """How full packed batches are, by packing a few."""
    batches = stream.batches(data.pairs, data.scan, data.tokenizers, c.data, prefetch=0)
    some = list(itertools.islice(batches, _BATCHES))
    full = [
        np.mean([(batch[f"{side}_segments"] != 0).mean() for batch in some])
        for side in ("source", "target")
    ]
    pairs = np.mean([batch["target_segments"].max(axis=1).sum() for batch in some])
    return [
        f"batches: {c.data.rows} rows of {c.data.source_length}/{c.data.target_length} tokens, "
        f"{pairs:.1f} pairs each; full to {full[0]:.1%} (source) and {full[1]:.1%} (target); "
        f"{len(data.scan.kept) / pairs:,.0f} updates an epoch"
    ]


def _memory(c: config.Config) -> list[str]:
    """Bytes that training takes, by the compiler's own account of the real update."""
    declaration = transformer.declare(c.model)
    rule = optimizer.make(c.optimizer, declaration)
    state = step.abstract_state(c, rule)
    compiled = step.jit_update(c, rule).lower(state, step.abstract_batch(c)).compile()
    held = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    analysis = compiled.memory_analysis()
    temporary = analysis.temp_size_in_bytes if analysis else 0
    mib = 2**20
    return [
        f"memory on one {jax.devices()[0].device_kind} device: "
        f"{params.count(declaration):,} parameters; weights and optimizer {held / mib:,.0f} MiB, "
        f"activations and gradients {temporary / mib:,.0f} MiB, "
        f"together {(held + temporary) / mib:,.0f} MiB"
    ]
