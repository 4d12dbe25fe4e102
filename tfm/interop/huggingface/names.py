"""Names of tensors: those that BART's relatives share, and T5's."""

from collections.abc import Iterator, Mapping
from typing import get_args

import numpy as np

from tfm.interop.mapping import Entry, Side, find_tie
from tfm.transformer import Architecture, has_final_norm, table_names
from tfm.transformer.config import Tie

_SIDES = (("encoder", "source"), ("decoder", "target"))

Tables = Mapping[str, tuple[str, ...]]  # side → names that its table may stand under, best first

BART_TABLES: Tables = {
    "source": ("model.encoder.embed_tokens.weight", "model.shared.weight"),
    "target": ("model.decoder.embed_tokens.weight", "model.shared.weight"),
    "output": ("lm_head.weight", "model.decoder.embed_tokens.weight", "model.shared.weight"),
}
T5_TABLES: Tables = {
    "source": ("encoder.embed_tokens.weight", "shared.weight"),
    "target": ("decoder.embed_tokens.weight", "shared.weight"),
    "output": ("lm_head.weight", "decoder.embed_tokens.weight", "shared.weight"),
}


def resolve_tables(
    tables: Tables, tensors: dict[str, np.ndarray], where: str
) -> tuple[Tie, dict[str, np.ndarray]]:
    """The tie of the three tables, and the tensors with one name a table: "table.source", ...

    Files of tied models keep any one of the names, or all.

    Raises:
      ValueError: no table is there, or one that is equal to none of the three.
    """
    names = list(dict.fromkeys(name for side in tables.values() for name in side))
    present = [name for name in names if name in tensors]
    if not present:
        raise ValueError(f"{where}: has no embeddings: none of {', '.join(names)}")
    found = {
        side: tensors[next((n for n in own if n in tensors), present[0])]
        for side, own in tables.items()
    }
    for name in present:
        if not any(x is tensors[name] or np.array_equal(x, tensors[name]) for x in found.values()):
            raise ValueError(f"{where}: has {name}, which is none of the tables in use")
    tie = find_tie(found["source"], found["target"], found["output"])
    rest = {name: x for name, x in tensors.items() if name not in names}
    ours = dict(zip(("source", "target", "output"), kept_tables(tie), strict=True))
    return tie, rest | {f"table.{kept}": found[side] for side, kept in ours.items()}


def expand_tables(
    tables: Tables, tie: Tie, tensors: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The inverse of ``resolve_tables``: every table under the name that loads with any flags."""
    kept = dict(zip(("source", "target", "output"), kept_tables(tie), strict=True))
    rest = {name: x for name, x in tensors.items() if not name.startswith("table.")}
    own = {names[0]: tensors[f"table.{kept[side]}"] for side, names in tables.items()}
    if tie in ("all", "source-target"):
        own[tables["source"][-1]] = tensors[f"table.{kept['source']}"]
    return rest | own


def kept_tables(tie: Tie) -> tuple[str, str, str]:
    """The names of source, target and output table under a tie."""
    return table_names(Architecture(tie=tie))


def table_entries(arch: Architecture) -> Iterator[Entry]:
    """The tables under the names that ``resolve_tables`` gives."""
    for name in dict.fromkeys(table_names(arch)):
        side = get_args(Side)[name != "source"]
        yield Entry(f"table.{name}", (f"tables/{name}",), rows=side)


def bart(arch: Architecture, *, output_bias: bool) -> Iterator[Entry]:
    """BART, mBART, Marian, Pegasus and M2M100."""
    yield from table_entries(arch)
    if output_bias:
        yield Entry("final_logits_bias", ("decoder/output_bias",), rows="target", leading=True)
    for side, _ in _SIDES:
        root = f"model.{side}"
        if arch.positions.side_params(arch.d_model, arch.heads) is not None:
            yield Entry(f"{root}.embed_positions.weight", (f"{side}/positions",))
        if arch.embedding_norm:
            yield from _norm(f"{root}.layernorm_embedding", f"{side}/embedding_norm")
        if has_final_norm(arch):
            yield from _norm(f"{root}.layer_norm", f"{side}/norm")
        blocks = {"self": "self_attn"} | ({"cross": "encoder_attn"} if side == "decoder" else {})
        for i in range(arch.encoder_layers if side == "encoder" else arch.decoder_layers):
            theirs, ours = f"{root}.layers.{i}", f"{side}/layers"
            for block, name in blocks.items():
                for letter in ("q", "k", "v", "out"):
                    path = f"{ours}/{block}/{letter}"
                    yield Entry(f"{theirs}.{name}.{letter}_proj.weight", (f"{path}/w",), i, True)
                    yield Entry(f"{theirs}.{name}.{letter}_proj.bias", (f"{path}/b",), i)
                yield from _norm(f"{theirs}.{name}_layer_norm", f"{ours}/{block}_norm", i)
            for layer, part in (("fc1", "up"), ("fc2", "down")):
                yield Entry(f"{theirs}.{layer}.weight", (f"{ours}/ff/{part}",), i, True)
                yield Entry(f"{theirs}.{layer}.bias", (f"{ours}/ff/{part}_bias",), i)
            yield from _norm(f"{theirs}.final_layer_norm", f"{ours}/ff_norm", i)


def t5(arch: Architecture) -> Iterator[Entry]:
    """T5, its version 1.1, Flan, mT5 and MADLAD."""
    yield from table_entries(arch)
    inner = {"gate": "wi_0", "up": "wi_1"} if arch.activation in ("geglu", "swiglu", "reglu") else {
        "up": "wi"
    }  # fmt: skip
    for side, _ in _SIDES:
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        yield Entry(bias, (f"{side}/positions",))
        yield Entry(f"{side}.final_layer_norm.weight", (f"{side}/norm/scale",))
        blocks = [("self", "SelfAttention")] + [("cross", "EncDecAttention")] * (side == "decoder")
        for i in range(arch.encoder_layers if side == "encoder" else arch.decoder_layers):
            ours = f"{side}/layers"
            for j, (block, name) in enumerate(blocks):
                theirs = f"{side}.block.{i}.layer.{j}"
                for letter, ending in (("q", "q"), ("k", "k"), ("v", "v"), ("out", "o")):
                    weight = f"{theirs}.{name}.{ending}.weight"
                    yield Entry(weight, (f"{ours}/{block}/{letter}/w",), i, True)
                yield Entry(f"{theirs}.layer_norm.weight", (f"{ours}/{block}_norm/scale",), i)
            theirs = f"{side}.block.{i}.layer.{len(blocks)}"
            for part, name in (inner | {"down": "wo"}).items():
                weight = f"{theirs}.DenseReluDense.{name}.weight"
                yield Entry(weight, (f"{ours}/ff/{part}",), i, True)
            yield Entry(f"{theirs}.layer_norm.weight", (f"{ours}/ff_norm/scale",), i)


def _norm(theirs: str, ours: str, layer: int | None = None) -> Iterator[Entry]:
    yield Entry(f"{theirs}.weight", (f"{ours}/scale",), layer)
    yield Entry(f"{theirs}.bias", (f"{ours}/bias",), layer)
