"""A trace as plain data, and as one self-contained HTML page."""

import base64
import dataclasses
import importlib.resources
import json
import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from tfm import transformer
from tfm.inspect.activations import Attention
from tfm.inspect.alignment import alignment_layer
from tfm.inspect.labels import LABELS
from tfm.inspect.trace import Output, Side, Trace
from tfm.positions import schemes

Encode = Callable[[np.ndarray], Any]
_SCRIPTS = ("base.js", "draw.js", "words.js", "attention.js", "result.js")


def page(trace: Trace, language: Literal["en", "zh"] = "en") -> str:
    """One self-contained HTML page: no network, no script or font but its own.

    Args:
      language: of the page's own text.
    """
    labels = LABELS[language]
    data = json.dumps(
        {"trace": as_data(trace, _half_floats), "labels": labels},
        ensure_ascii=False,
        separators=(",", ":"),
    )
    files = importlib.resources.files("tfm.inspect") / "page"
    read = lambda name: (files / name).read_text(encoding="utf-8")  # noqa: E731
    fill = {
        "language": language,
        "title": f"{trace.source.text} → {trace.target.text}",
        "style": read("page.css"),
        "script": "\n".join(map(read, _SCRIPTS)),
        "data": data.replace("<", "\\u003c"),  # so that no text can end the script element
    }
    fill["title"] = fill["title"].replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"\{\{(\w+)\}\}", lambda m: fill[m[1]], read("page.html"))


def as_data(trace: Trace, encode: Encode = lambda x: _round(x)) -> dict[str, Any]:
    """The trace as dicts, lists, text and numbers of four digits.

    Args:
      encode: how large arrays are encoded; nested lists by default.
    """
    run, arch, relative = trace.run, trace.arch, trace.positions.encoder_NM is not None
    reference = None
    if trace.reference is not None:
        reference = _side(trace.reference, encode) | _output(trace.reference_output)
    return {
        "model": _facts(trace),
        "source": _side(trace.source, encode),
        "target": _side(trace.target, encode),
        "reference": reference,
        "picture": _picture(trace),
        "positions": _positions(trace, encode),
        "encoder": _attention(run.encoder, arch.attention, relative, encode),
        "decoder": _attention(run.decoder, arch.attention, relative, encode),
        "cross": _attention(run.cross, arch.cross_attention, False, encode),
        "one_matrix": encode(run.one_matrix_BLNSS[0]),
        "two_matrices": encode(run.two_matrices_BLNSS[0]),
        "alignment": {
            "pairs": trace.aligned_A2.tolist(),
            "layer": alignment_layer(arch.decoder_layers) + 1,
            "weights": encode(trace.aligned_by_TS),
        },
        "norms": {
            "encoder": _round(run.encoder_norms_BPS[0]),
            "decoder": _round(run.decoder_norms_BPT[0]),
        },
        "output": _output(trace.output),
        "beam": _beam(trace),
    }


def _round(x: np.ndarray) -> Any:
    """Nested lists of numbers with four significant digits."""
    if x.dtype.kind != "f":
        return x.tolist()
    short = np.vectorize(lambda v: float(f"{v:.4g}"), otypes=[float])
    return short(x).tolist() if x.size else x.tolist()


def _half_floats(x: np.ndarray) -> dict[str, Any]:
    """Shape, and float16 (three digits) in base64: 2.7 letters a number."""
    content = np.clip(x, -65504, 65504).astype("<f2").tobytes()
    return {"shape": list(x.shape), "f16": base64.b64encode(content).decode()}


def _facts(trace: Trace) -> dict[str, Any]:
    arch = trace.arch
    return {
        "parameters": trace.parameters,
        "width": arch.d_model,
        "head_dim": transformer.head_width(arch),
        "heads": arch.heads,
        "encoder": arch.encoder_layers,
        "decoder": arch.decoder_layers,
        "source": arch.source_vocab,
        "target": arch.target_vocab,
        "positions": schemes.to_text(arch.positions),
        "languages": list(trace.languages),
        "one_table": arch.tie in ("source-target", "all"),
        "config": dataclasses.asdict(arch) | {"positions": schemes.to_dict(arch.positions)},
    }


def _side(side: Side, encode: Encode) -> dict[str, Any]:
    cosines = _round(side.cosines_TC)
    return {
        "text": side.text,
        "pieces": list(side.pieces),
        "ids": side.ids_T.tolist(),
        "embedded": encode(side.embedded_TD),
        "near": [
            [list(pair) for pair in zip(*row, strict=True)]
            for row in zip(side.near, cosines, strict=True)
        ],
    }


def _output(output: Output) -> dict[str, Any]:
    log_probs = _round(output.log_probs_TC)
    return {
        "candidates": [
            [list(pair) for pair in zip(*row, strict=True)]
            for row in zip(output.names, log_probs, strict=True)
        ],
        "log_probs": _round(output.log_probs_T),
        "entropy": _round(output.entropy_T),
    }


def _picture(trace: Trace) -> dict[str, Any]:
    picture = trace.picture
    columns = (_round(picture.points_P2), picture.names, picture.sides, picture.own)
    return {
        "share": _round(picture.share_2),
        "points": [
            {"x": x, "y": y, "name": name, "side": side, "own": own}
            for (x, y), name, side, own in zip(*columns, strict=True)
        ],
    }


def _positions(trace: Trace, encode: Encode) -> dict[str, Any]:
    p = trace.positions
    kept = lambda x: None if x is None else encode(x)  # noqa: E731
    by_distance = None
    if p.encoder_NM is not None:
        by_distance = {
            "distances": p.distances_M.tolist(),
            "encoder": _gaps(p.encoder_NM),
            "decoder": _gaps(p.decoder_NM),
        }
    return {
        "scheme": schemes.name(trace.arch.positions),
        "added": kept(p.added_PD),
        "decoder_added": kept(p.decoder_added_PD),
        "rotary": kept(p.cosines_PC),
        "by_distance": by_distance,
    }


def _gaps(x_NM: np.ndarray) -> list[list[float | None]]:
    """Nested lists with None for nan, which JSON has not."""
    return [[None if np.isnan(x) else x for x in row] for row in _round(x_NM)]


def _attention(a: Attention, kind: str, relative: bool, encode: Encode) -> dict[str, Any]:
    return {
        "kind": kind,
        "products": encode(a.products_BLNTS[0]),
        "added": encode(a.added_BLNTS[0]) if relative else None,
        "scores": encode(a.scores_BLNTS[0]),
        "weights": encode(a.weights_BLNTS[0]),
        "mask": a.mask_BTS[0].astype(int).tolist(),
    }


def _beam(trace: Trace) -> dict[str, Any]:
    tree = trace.tree
    columns = {
        "piece": tree.names,
        "text": tree.texts,
        "parent": tree.parents_P.tolist(),
        "log_prob": _round(tree.log_probs_P),
        "score": [None if np.isnan(s) else s for s in _round(tree.scores_P)],
        "best": tree.best_P.tolist(),
    }
    nodes = zip(*columns.values(), strict=True)
    return {
        "size": trace.beam.tokens_QR.shape[1],
        "nodes": [dict(zip(columns, node, strict=True)) for node in nodes],
    }
