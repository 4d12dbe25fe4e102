"""A comparison as text, as data for JSON, and as an HTML page."""

import html as escaping
from collections.abc import Iterable, Sequence
from typing import Any

from tfm.comparison.compare import Bucket, Comparison, Example, System

_STYLE = """
:root { --paper: #faf9f6; --card: #fff; --ink: #24272c; --quiet: #5f656e; --line: #e2dfd8;
  --good: #0b7a75; --bad: #a94a08; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --card: #1d2024; --ink: #e7e5e0;
  --quiet: #a3a9b1; --line: #33373d; --good: #5fcabd; --bad: #f2a765; } }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem; background: var(--paper);
  color: var(--ink); font: 16px/1.6 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; background: var(--card); }
th, td { text-align: right; padding: .4rem .8rem; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; } th:first-child, td:first-child { text-align: left; }
p, caption { color: var(--quiet); text-align: left; }
dl { background: var(--card); border: 1px solid var(--line); border-radius: .7rem; margin: 0 0 1rem;
  padding: .8rem 1.1rem; display: grid; grid-template-columns: auto 1fr; gap: .2rem 1rem; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
.good { color: var(--good); } .bad { color: var(--bad); } .wide { overflow-x: auto; }
"""


def text(found: Comparison) -> str:
    """A comparison in lines of text."""
    names = [system.name for system in found.systems]
    lines = [*_aligned(_score_rows(found.systems)), "", *_notes(found), "", "BLEU by length"]
    lines += [*_aligned(_bucket_rows("tokens", "sentences", names, found.lengths)), ""]
    lines += ["Words of the references found, by how often they occur there (%)"]
    lines += _aligned(_bucket_rows("occurrences", "words", names, found.words))
    for title, examples in zip(_titles(names), found.examples, strict=True):
        lines += ["", title]
        for example in examples:
            lines += ["", *(f"  {label:10} {line}" for label, line in _labelled(example, names))]
    return "\n".join(lines)


def as_data(found: Comparison) -> dict[str, Any]:
    """A comparison as dicts and lists."""
    return {
        "systems": [system._asdict() for system in found.systems],
        "lengths": [bucket._asdict() for bucket in found.lengths],
        "words": [bucket._asdict() for bucket in found.words],
        "better": [example._asdict() for example in found.examples[0]],
        "worse": [example._asdict() for example in found.examples[1]],
        "signatures": dict(zip(("bleu", "chrf"), found.signatures, strict=True)),
        "resamples": found.resamples,
    }


def html(found: Comparison) -> str:
    """A comparison as a page that needs nothing else."""
    names = [system.name for system in found.systems]
    title = " · ".join(names)
    parts = [f"<h1>{_escape(title)}</h1>", _table(_score_rows(found.systems))]
    parts += [f"<p>{_escape(note)}</p>" for note in _notes(found)]
    parts += ["<h2>BLEU by length</h2>"]
    parts += [_table(_bucket_rows("tokens", "sentences", names, found.lengths))]
    parts += ["<h2>Words of the references found, by how often they occur there (%)</h2>"]
    parts += [_table(_bucket_rows("occurrences", "words", names, found.words))]
    for heading, examples in zip(_titles(names), found.examples, strict=True):
        parts += [f"<h2>{_escape(heading)}</h2>"]
        parts += [_definition(example, names) for example in examples] or ["<p>None.</p>"]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _score_rows(systems: Sequence[System]) -> list[list[str]]:
    rows = [["system", "BLEU", "± 95 %", "p", "chrF", "p"]]
    for s in systems:
        p = ["" if x is None else f"{x:.4f}" for x in (s.p_bleu, s.p_chrf)]
        rows.append([s.name, f"{s.bleu:.2f}", f"{s.interval:.2f}", p[0], f"{s.chrf:.2f}", p[1]])
    return rows


def _bucket_rows(
    label: str, count: str, names: Sequence[str], buckets: Iterable[Bucket]
) -> list[list[str]]:
    rows = [[label, count, *names]]
    return rows + [[b.label, f"{b.size:,}", *(f"{v:.1f}" for v in b.values)] for b in buckets]


def _notes(found: Comparison) -> list[str]:
    return [
        f"p: chance of a difference from {found.systems[0].name} as large, by paired bootstrap of "
        f"{found.resamples:,} resamples",
        f"BLEU {found.signatures[0]}; chrF {found.signatures[1]}",
    ]


def _titles(names: Sequence[str]) -> tuple[str, str]:
    return (
        f"Where {names[-1]} is ahead of {names[0]} by most (chrF)",
        f"Where {names[-1]} is behind {names[0]} by most (chrF)",
    )


def _labelled(example: Example, names: Sequence[str]) -> list[tuple[str, str]]:
    scored = zip(names, example.scores, example.outputs, strict=True)
    outputs = [(f"{name} {score:.0f}", output) for name, score, output in scored]
    return [("source", example.source), ("reference", example.reference), *outputs]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [x.rjust(width) for x, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (
        "".join(f"<{tag}>{_escape(x)}</{tag}>" for x in row)
        for tag, row in zip(["th", *["td"] * (len(rows) - 1)], rows, strict=True)
    )
    lines = "".join(f"<tr>{row}</tr>" for row in body)
    table = f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody>"
    return f'<div class="wide"><table>{table}</table></div>'


def _definition(example: Example, names: Sequence[str]) -> str:
    better = example.scores[-1] > example.scores[0]
    kinds = ["", "", *[""] * (len(names) - 1), "good" if better else "bad"]
    rows = zip(_labelled(example, names), kinds, strict=True)
    return "<dl>" + "".join(
        f'<dt>{_escape(label)}</dt><dd class="{kind}">{_escape(line)}</dd>'
        for (label, line), kind in rows
    ) + "</dl>"  # fmt: skip


_escape = escaping.escape
