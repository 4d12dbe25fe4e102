"""Checks of arguments of the model's functions: parameters as declared, batches, tokens."""

import functools
from collections.abc import Mapping
from typing import Any, get_args

import jax

from tfm import layers
from tfm.params import Tree, is_param
from tfm.shapes import Check
from tfm.sharding import Layout
from tfm.transformer.batch import Batch
from tfm.transformer.config import Architecture, Execution, head_width, table_names
from tfm.transformer.params import Side, declare, declare_layer
from tfm.transformer.validate import validate

_BY = "transformer.declare(arch)"
_KINDS = {"arch": Architecture, "execution": Execution, "layout": Layout}


def check_call(function: str, **objects: Any) -> Check:
    """A check that has seen these arguments and, from ``arch``, knows D, N, K and H."""
    check = Check(function)
    for name, x in objects.items():
        check.instance(_KINDS[name], **{name: x})
    if "arch" in objects:
        check.sizes.update(_sizes(objects["arch"]))
    return check


def check_tokens(check: Check, arch: Architecture, side: Side, **tokens: Any) -> None:
    """Ids [B,S] of the encoder or [B,T] of the decoder, in the vocabulary where they are known."""
    size, field = (
        (arch.source_vocab, "source_vocab")
        if side == "encoder"
        else (arch.target_vocab, "target_vocab")
    )
    check.ints("BS" if side == "encoder" else "BT", **tokens)
    check.within(size, f"the ids of arch.{field}", **tokens)


def check_batch(check: Check, arch: Architecture, batch: Batch) -> None:
    """The arrays of a batch that teacher forcing reads."""
    check.instance(Batch, batch=batch)
    check_tokens(check, arch, "encoder", **{"batch.source": batch.source})
    names = ("source_segments", "source_positions")
    check.ints("BS", **{f"batch.{name}": getattr(batch, name) for name in names})
    check_tokens(check, arch, "decoder", **{"batch.target_input": batch.target_input})
    names = ("target_segments", "target_positions")
    check.ints("BT", **{f"batch.{name}": getattr(batch, name) for name in names})


def check_side(check: Check, params: Tree, arch: Architecture, side: Side) -> None:
    """The parameters of the encoder or the decoder, layers stacked or a list, and its table."""
    check_table(check, params, arch, get_args(Side).index(side))
    shapes = {path: s for path, s in _model_shapes(arch).items() if path.split("/")[0] == side}
    given = params.get(side) if isinstance(params, Mapping) else None
    layers = given.get("layers") if isinstance(given, Mapping) else None
    if isinstance(layers, list):
        root, depth = f"params[{side!r}]['layers']", getattr(arch, f"{side}_layers")
        if len(layers) != depth:
            raise check.error(f"{root} has {len(layers)} layers; arch.{side}_layers is {depth}")
        for i, one in enumerate(layers):
            check.declared(one, _layer_shapes(arch, side), _BY, f"{root}[{i}]")
        shapes = {path: s for path, s in shapes.items() if path.split("/")[1] != "layers"}
    check.declared(params, shapes, _BY)


def check_table(check: Check, params: Tree, arch: Architecture, which: int) -> None:
    """The source (0), target (1) or output (2) table of a model's parameters.

    Parameters for inference may hold the output table apart; see ``inference_params``.
    """
    path = f"tables/{table_names(arch)[which]}"
    apart = which == 2 and isinstance(params, Mapping) and "output" in params
    check.declared(params, {"output" if apart else path: _model_shapes(arch)[path]}, _BY)


def check_output_bias(check: Check, params: Tree, arch: Architecture) -> None:
    """The bias of the logits, where the model has one."""
    if arch.output_bias:
        check.declared(params, {"decoder/output_bias": (arch.target_vocab,)}, _BY)


def check_layer(check: Check, params: Tree, arch: Architecture, side: Side, part: str = "") -> None:
    """The parameters of one layer, or of a part of it."""
    check.declared(params, _layer_shapes(arch, side, part), "its declaration")


def check_shared(check: Check, side_params: Tree, arch: Architecture, name: str) -> None:
    """What the position scheme declares for the encoder or the decoder as a whole."""
    check.instance(Mapping, **{name: side_params})
    declared = arch.positions.side_params(arch.d_model, arch.heads)
    if declared is not None:
        check.declared(side_params, _shapes({"positions": declared}), "the position scheme", name)
    if arch.embedding_norm:
        norm = {"embedding_norm": layers.norm_params(arch.d_model, arch.norm)}
        check.declared(side_params, _shapes(norm), _BY, name)


@functools.lru_cache(maxsize=32)
def _sizes(arch: Architecture) -> dict[str, tuple[int, str]]:
    validate(arch, vocabularies=False)
    sizes = {
        "D": arch.d_model, "N": arch.heads, "K": arch.kv_heads or arch.heads, "H": head_width(arch),
    }  # fmt: skip
    return {letter: (size, "arch") for letter, size in sizes.items()}


@functools.lru_cache(maxsize=32)
def _model_shapes(arch: Architecture) -> dict[str, tuple[int, ...]]:
    """Path → shape of every parameter of a model."""
    return _shapes(declare(arch))


@functools.lru_cache(maxsize=128)
def _layer_shapes(arch: Architecture, side: Side, part: str = "") -> dict[str, tuple[int, ...]]:
    """Path → shape of every parameter of a layer, or of a part of it."""
    validate(arch, vocabularies=False)
    tree = declare_layer(arch, side)
    return _shapes(tree[part] if part else tree)


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree.leaves_with_path(tree, is_leaf=is_param)
    return {"/".join(k.key for k in path): p.shape for path, p in leaves}
