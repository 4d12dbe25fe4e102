"""Models of CTranslate2: what the variables of its ``model.bin`` are in tfm, both ways.

Weights are [out,in]; the projections of self-attention are one matrix, and so are keys and values
of cross-attention. ``model_bin`` reads and writes the file.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from tfm.interop.mapping import (
    Entry,
    Imported,
    Rows,
    Side,
    closed_rows,
    find_tie,
    ordinary_rows,
    to_ours,
    to_theirs,
)
from tfm.interop.model_bin import Binary, dequantise, quantise, write
from tfm.layers import Activation
from tfm.params import Tree
from tfm.positions import Scheme, Sinusoidal
from tfm.transformer import Architecture, embedding_scale, has_final_norm, table_names
from tfm.transformer.config import BOS

_ACTIVATIONS: tuple[Activation, ...] = ("relu", "gelu", "silu", "gelu_exact")  # by their numbers
_ALIBI = ("alibi", "alibi_use_positive_positions", "scale_alibi")

Names = Mapping[Side, Sequence[str]]


def entries(arch: Architecture, *, output_bias: bool) -> Iterator[Entry]:
    """The table of names, biases and tables as the architecture has them.

    Args:
      output_bias: whether the file has one.
    """
    source, target, output = table_names(arch)
    yield Entry("encoder/embeddings_0/weight", (f"tables/{source}",), rows="source")
    if target != source:
        yield Entry("decoder/embeddings/weight", (f"tables/{target}",), rows="target")
    if output not in (source, target):
        yield Entry("decoder/projection/weight", (f"tables/{output}",), rows="target")
    if output_bias:
        yield Entry("decoder/projection/bias", ("decoder/output_bias",), rows="target")
    for side, depth in (("encoder", arch.encoder_layers), ("decoder", arch.decoder_layers)):
        if has_final_norm(arch):
            yield from _norm(arch, f"{side}/layer_norm", f"{side}/norm")
        if arch.embedding_norm:
            yield from _norm(arch, f"{side}/layernorm_embedding", f"{side}/embedding_norm")
        for i in range(depth):
            theirs, ours = f"{side}/layer_{i}", f"{side}/layers"
            yield from _linear(arch.bias, f"{theirs}/self_attention/linear_0",
                               [f"{ours}/self/{x}" for x in "qkv"], i)  # fmt: skip
            yield from _linear(arch.bias, f"{theirs}/self_attention/linear_1",
                               [f"{ours}/self/out"], i)  # fmt: skip
            yield from _norm(arch, f"{theirs}/self_attention/layer_norm", f"{ours}/self_norm", i)
            if side == "decoder":
                parts = ([f"{ours}/cross/q"], [f"{ours}/cross/k", f"{ours}/cross/v"],
                         [f"{ours}/cross/out"])  # fmt: skip
                for j, paths in enumerate(parts):
                    yield from _linear(arch.bias, f"{theirs}/attention/linear_{j}", paths, i)
                yield from _norm(arch, f"{theirs}/attention/layer_norm", f"{ours}/cross_norm", i)
            inner = [("linear_0", "up"), ("linear_1", "down")]
            for name, part in inner:
                yield Entry(f"{theirs}/ffn/{name}/weight", (f"{ours}/ff/{part}",), i, True)
                yield Entry(f"{theirs}/ffn/{name}/bias", (f"{ours}/ff/{part}_bias",), i)
            yield from _norm(arch, f"{theirs}/ffn/layer_norm", f"{ours}/ff_norm", i)


def import_model(binary: Binary, settings: Mapping[str, Any], names: Names) -> Imported:
    """The content of a ``model.bin`` → a model of tfm.

    Args:
      settings: of the folder's config.json.
      names: the pieces of the source and the target vocabulary.

    Raises:
      ValueError: a kind of model or a setting that tfm cannot express, or tensors that do not fit.
    """
    _check_settings(settings)
    if binary.name not in ("TransformerSpec", "TransformerBase", "TransformerBig"):
        raise ValueError(f"{binary.name} is no Transformer of two sides")
    rest = dequantise({_modern(name): x for name, x in binary.variables.items()})
    fields = _fields(binary, rest, settings)
    tables: dict[Any, Any] = {
        "source": rest.pop("encoder/embeddings_0/weight", None),
        "target": rest.pop("decoder/embeddings/weight", None),
        "output": rest.pop("decoder/projection/weight", None),
    }
    for side, x in tables.items():
        if x is None or x.ndim != 2:
            raise ValueError(f"it lacks the {side} table")
    tie = find_tie(tables["source"], tables["target"], tables["output"])
    rows: dict[Any, Rows] = {}
    sizes: dict[Any, int] = {"source": len(tables["source"]), "target": len(tables["target"])}
    zero = bool(fields.pop("zero"))
    for side, pieces in names.items():
        if len(pieces) != sizes[side]:
            raise ValueError(
                f"the {side} vocabulary has {len(pieces)} pieces, but its table {sizes[side]} rows"
            )
        rows[side] = ordinary_rows(len(pieces), _special(pieces, settings, zero))
    start = settings.get("decoder_start_token", settings.get("bos_token", "<s>"))
    fields["decoder_start"] = BOS
    if not zero:
        if start not in names["target"]:
            raise ValueError(f"decoder_start_token {start!r} is no piece of the target vocabulary")
        theirs = names["target"].index(start)
        fields["decoder_start"] = int(np.flatnonzero(rows["target"] == theirs)[0])
    arch = Architecture(
        source_vocab=len(rows["source"]), target_vocab=len(rows["target"]), tie=tie,
        closed_rows=closed_rows(rows["target"]), **fields,
    )  # fmt: skip
    places = ("encoder/embeddings_0/weight", "decoder/embeddings/weight",
              "decoder/projection/weight")  # fmt: skip
    kept: dict[str, Any] = {}
    for name, place, side in zip(table_names(arch), places, tables, strict=True):
        if name not in kept:  # tied tables are stored once
            kept[name] = rest[place] = tables[side]
    table = list(entries(arch, output_bias=arch.output_bias))
    return Imported(arch, to_ours(table, rest, arch, rows, "model.bin"), rows)


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raises ValueError for a config.json with other types than CTranslate2 writes."""
    if not isinstance(settings, dict):
        raise ValueError("config.json holds no object")
    for name in ("unk_token", "bos_token", "eos_token", "decoder_start_token"):
        if not isinstance(settings.get(name, ""), str):
            raise ValueError(f"config.json: {name} is {settings[name]!r:.40}; it must be a piece")
    epsilon = settings.get("layer_norm_epsilon")
    if epsilon is not None and not isinstance(epsilon, float):
        raise ValueError(f"config.json: layer_norm_epsilon is {epsilon!r:.40}, no number")


def _modern(name: str) -> str:
    """The name that the present revision has for a variable of an older one."""
    prefix = "encoder/embeddings/"
    return f"encoder/embeddings_0/{name.removeprefix(prefix)}" if name.startswith(prefix) else name


def _special(
    pieces: Sequence[str], settings: Mapping[str, Any], zero: bool
) -> dict[str, int | None]:
    """The foreign ids of the four first pieces; pad is made up unless the file has a blank."""
    index = {piece: i for i, piece in reversed(list(enumerate(pieces)))}
    found = {
        "pad": index.get("<blank>", index.get("<pad>")),
        "unk": index.get(settings.get("unk_token", "<unk>")),
        "bos": None if zero else index.get(settings.get("bos_token", "<s>")),
        "eos": index.get(settings.get("eos_token", "</s>")),
    }
    if found["eos"] is None:
        raise ValueError("its vocabulary has no end of sentence; search would never end")
    seen: set[int] = set()
    for name, i in found.items():
        found[name] = None if i in seen else i
        seen |= {i} if i is not None else set()
    return found


def _fields(
    binary: Binary, rest: dict[str, np.ndarray], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The scalars of a file, taken out of ``rest``, as fields of the architecture."""

    def scalar(name: str, default: float) -> float:
        x = rest.pop(name, None)
        if x is None:
            return default
        if x.ndim or not np.isfinite(x.astype(np.float32)):
            raise ValueError(f"{name} is {x.tolist()!r:.40}; it must be a number")
        return x.item()

    default_heads = 16 if binary.name == "TransformerBig" else 8
    found: dict[str, dict[str, Any]] = {}
    for side in ("encoder", "decoder"):
        layers = {
            name.split("/")[1] for name in rest if name.startswith(f"{side}/layer_")
        } - {"layer_norm"}  # fmt: skip
        act = int(scalar(f"{side}/activation", 0))
        if not 0 <= act < len(_ACTIVATIONS):
            raise ValueError(f"{side}/activation {act} is not known")
        scale = scalar(f"{side}/scale_embeddings", 1)
        found[side] = {
            "layers": len(layers),
            "heads": int(scalar(f"{side}/num_heads", default_heads)),
            "pre": bool(scalar(f"{side}/pre_norm", 1)),
            "activation": _ACTIVATIONS[act],
            "final_norm": f"{side}/layer_norm/gamma" in rest,
            "embedding_norm": f"{side}/layernorm_embedding/gamma" in rest,
            "scale": scale,
            "positions": rest.pop(f"{side}/position_encodings/encodings", None),
        }
    for name in ("embeddings_merge", "alignment_layer", "alignment_heads"):
        rest.pop(f"encoder/{name}", None), rest.pop(f"decoder/{name}", None)
    if any([scalar(f"decoder/{name}", 0) for name in _ALIBI]):
        raise ValueError("decoder/alibi is set, and tfm reads no such model")
    if scalar("decoder/scale_outputs", 0):
        raise ValueError("decoder/scale_outputs is set, and tfm reads no such model")
    for name in ("encoder/embeddings_0", "decoder/embeddings"):
        if not scalar(f"{name}/multiply_by_sqrt_depth", 1):
            found[name.split("/")[0]]["scale"] = 0
    a, b = found["encoder"], found["decoder"]
    for name in ("heads", "pre", "activation", "final_norm", "embedding_norm", "scale"):
        if a[name] != b[name]:
            raise ValueError(f"its two sides differ in {name}: {a[name]} and {b[name]}")
    up, one = (
        rest.get("encoder/layer_0/ffn/linear_0/weight"),
        rest.get("encoder/layer_0/ffn/layer_norm/gamma"),
    )
    if up is None or up.ndim != 2 or one is None:
        raise ValueError("it lacks encoder/layer_0/ffn")
    D = up.shape[1]
    scaled = a["scale"] in (1, True) or abs(a["scale"] - D**0.5) < 1e-4
    return {
        "d_model": D, "d_ff": up.shape[0], "heads": a["heads"], "encoder_layers": a["layers"],
        "decoder_layers": b["layers"], "norm_placement": "pre" if a["pre"] else "post",
        "activation": a["activation"], "final_norm": a["final_norm"],
        "embedding_norm": a["embedding_norm"], "dropout": 0.1,
        "norm": "layer" if "encoder/layer_0/ffn/layer_norm/beta" in rest else "rms",
        "norm_epsilon": settings.get("layer_norm_epsilon") or 0.0,
        "embedding_scale": 0.0 if scaled else 1.0,
        "output_bias": "decoder/projection/bias" in rest,
        "positions": _positions(a["positions"], b["positions"], D),
        "zero": scalar("decoder/start_from_zero_embedding", 0),
    }  # fmt: skip


def _positions(encoder: np.ndarray | None, decoder: np.ndarray | None, d_model: int) -> Sinusoidal:
    """The sinusoids in a file; without any CTranslate2 computes its own, from position 1."""
    own = Sinusoidal(endpoint=True, offset=1)
    if encoder is None and decoder is None:
        return own
    for scheme in (Sinusoidal(), Sinusoidal(endpoint=True), Sinusoidal(endpoint=True, offset=2),
                   Sinusoidal(interleaved=True), own):  # fmt: skip
        if all(_are(table, scheme, d_model) for table in (encoder, decoder)):
            return scheme
    raise ValueError("its position_encodings are none of the sinusoids that tfm knows")


def _are(table: np.ndarray | None, scheme: Sinusoidal, d_model: int) -> bool:
    if table is None or table.ndim != 2 or table.shape[1] != d_model:
        return False
    P = min(len(table), 64)
    return bool(np.abs(_sinusoids(scheme, P, d_model) - table[:P]).max() <= 1e-4)


def _sinusoids(scheme: Scheme, count: int, d_model: int) -> np.ndarray:
    return np.asarray(scheme.input(None, jnp.arange(count)[None], d_model), np.float32)[0]


def export(
    arch: Architecture,
    params: Tree,
    rows: Mapping[Any, Rows],
    *,
    int8: bool = False,
    zero_start: bool = False,
    positions: int = 1024,
) -> bytes:
    """A ``model.bin`` of a model of tfm.

    Args:
      rows: by vocabulary, the exported id of each of our ids.
      int8: quantise the matrices.
      zero_start: the decoder starts from a zero embedding instead of a token's.
      positions: how many the file holds; CTranslate2 takes no longer sentences.

    Raises:
      ValueError: CTranslate2 cannot express the architecture; the message names the field.
    """
    check_export(arch)
    table = list(entries(arch, output_bias=arch.output_bias))
    variables = to_theirs(table, params, rows)
    aliases = {}
    source, target, output = table_names(arch)
    places = {source: "encoder/embeddings_0/weight"}
    for name, place in (
        (target, "decoder/embeddings/weight"),
        (output, "decoder/projection/weight"),
    ):
        if name in places:
            aliases[place] = places[name]
        places.setdefault(name, place)
    if int8:
        variables = quantise(variables)
        aliases |= {f"{a}_scale": f"{b}_scale" for a, b in aliases.items()}
    sinusoids = _sinusoids(arch.positions, positions, arch.d_model)
    scale = np.array(embedding_scale(arch), np.float32)
    for side in ("encoder", "decoder"):
        variables |= {
            f"{side}/num_heads": np.array(arch.heads, np.int16),
            f"{side}/pre_norm": np.array(arch.norm_placement == "pre", np.int8),
            f"{side}/activation": np.array(_ACTIVATIONS.index(arch.activation), np.int8),
            f"{side}/scale_embeddings": scale,
        }
    variables |= {
        "encoder/embeddings_merge": np.array(0, np.int8),
        "encoder/position_encodings/encodings": sinusoids,
        "decoder/alignment_layer": np.array(-1, np.int16),
        "decoder/alignment_heads": np.array(1, np.int16),
        "decoder/start_from_zero_embedding": np.array(zero_start, np.int8),
    } | {f"decoder/{x}": np.array(0, np.int8) for x in _ALIBI}
    aliases["decoder/position_encodings/encodings"] = "encoder/position_encodings/encodings"
    return write(variables, aliases)


def check_export(arch: Architecture) -> None:
    """Raises ValueError, with the field, for an architecture that CTranslate2 cannot express."""
    allowed: dict[str, tuple] = {
        "attention": ("softmax",), "cross_attention": ("softmax",), "qk_norm": (False,),
        "soft_cap": (0.0,), "norm_placement": ("pre", "post"), "attention_scale": (0.0,),
        "output_scale": (1.0,), "kv_heads": (0, arch.heads), "norm": ("layer", "rms"),
        "head_dim": (0, arch.d_model // arch.heads), "activation": _ACTIVATIONS,
        "final_norm": (None, arch.norm_placement == "pre"), "ff_bias": (None, True),
    }  # fmt: skip
    for field, values in allowed.items():
        if getattr(arch, field) not in values:
            raise ValueError(f"CTranslate2 has no model of {field}={getattr(arch, field)!r}")
    if not isinstance(arch.positions, Sinusoidal):
        raise ValueError(f"CTranslate2 export writes sinusoids, not positions={arch.positions!r}")


def _linear(bias: bool, theirs: str, ours: list[str], layer: int) -> Iterator[Entry]:
    yield Entry(f"{theirs}/weight", tuple(f"{path}/w" for path in ours), layer, True)
    if bias:
        yield Entry(f"{theirs}/bias", tuple(f"{path}/b" for path in ours), layer)


def _norm(arch: Architecture, theirs: str, ours: str, layer: int | None = None) -> Iterator[Entry]:
    yield Entry(f"{theirs}/gamma", (f"{ours}/scale",), layer)
    if arch.norm == "layer":
        yield Entry(f"{theirs}/beta", (f"{ours}/bias",), layer)
