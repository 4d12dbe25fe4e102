"""Every step of one sentence through a model, as data."""

from typing import Any

import flax.struct
import jax
import numpy as np

from tfm import transformer
from tfm.data.tokenizer import BOS, Tokenizer
from tfm.inspect import alignment, beam, positions, space
from tfm.inspect.activations import Activations, Attention, activations, batch
from tfm.inspect.tree import SearchTree, grow
from tfm.translator import Translator
from tfm.word2vec.vectors import units

_NEIGHBOURS = 8  # of each piece
_DRAWN = 4  # of those, in the picture
_CANDIDATES = 10  # of each step
_POSITIONS = 64  # in the picture of them

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compiler options for what runs once: half the time of compilation."""


def _static() -> Any:
    return flax.struct.field(pytree_node=False)


@flax.struct.dataclass
class Side:
    """A sentence in one language: T pieces, eos the last.

    Attributes:
      ids_T: of the pieces.
      embedded_TD: their rows of the embedding table.
      near_TC, cosines_TC: the C nearest pieces of each, and their cosines.
      text: as people read it. pieces: its pieces. near: the names of ``near_TC``.
    """

    ids_T: np.ndarray
    embedded_TD: np.ndarray
    near_TC: np.ndarray
    cosines_TC: np.ndarray
    text: str = _static()
    pieces: tuple[str, ...] = _static()
    near: tuple[tuple[str, ...], ...] = _static()


@flax.struct.dataclass
class Output:
    """The model's distribution over the next piece at each of T steps.

    Attributes:
      ids_TC, log_probs_TC: the C likeliest pieces, best first, with natural-log probabilities.
      log_probs_T: of the piece that is written there.
      entropy_T: of the whole distribution, in bits.
      names: of ``ids_TC``.
    """

    ids_TC: np.ndarray
    log_probs_TC: np.ndarray
    log_probs_T: np.ndarray
    entropy_T: np.ndarray
    names: tuple[tuple[str, ...], ...] = _static()


@flax.struct.dataclass
class Trace:
    """One sentence and the model's own translation of it.

    Attributes:
      source, target: the two sentences. The decoder reads bos and ``target`` without eos.
      positions: how the model tells positions apart.
      picture: pieces of both languages and their neighbours, in the plane.
      run: attention, residual stream and logits; B = 1.
      aligned_by_TS, aligned_A2: the cross-attention that words are aligned by, and the pairs
        (source piece, target piece) that it implies.
      output: the distribution at each step.
      beam, tree: how search found the translation.
      reference, reference_output: another translation, and what the model thinks of it.
      arch: of the model. languages: codes of source and target. parameters: how many it has.
    """

    source: Side
    target: Side
    positions: positions.PositionPicture
    picture: space.Picture
    run: Activations
    aligned_by_TS: np.ndarray
    aligned_A2: np.ndarray
    output: Output
    beam: beam.Beam
    tree: SearchTree
    reference: Side | None
    reference_output: Output | None
    arch: transformer.Architecture = _static()
    languages: tuple[str, str] = _static()
    parameters: int = _static()


def trace(model: Translator, sentence: str, reference: str | None = None, **decode: Any) -> Trace:
    """Translates ``sentence`` and keeps everything.

    Args:
      model: from ``tfm.load``.
      reference: a translation by someone else, to compare.
      decode: fields of ``config.Decode`` to override, such as ``beam_size``.

    Raises:
      ValueError: a text that is empty, or longer than the model takes; or the model, its weights
        damaged, finds no translation.
    """
    if isinstance(model.arch, tuple):
        raise ValueError("inspect shows one model, not an ensemble: leave out the other models")
    arch = model.arch
    source_ids = _encode(model, sentence, "sentence")
    others = []
    if reference is not None:
        others = [_encode(model, reference, "reference")]

    if decode.get("strategy", "beam") != "beam":
        raise ValueError(f"inspect: shows beam search, not strategy {decode['strategy']!r}")
    settings = model.decode_settings(**decode | {"strategy": "beam"})
    model.require_memory(settings, 1, len(source_ids))
    searched = beam.record(
        model.params, arch, settings, source_ids, BOS, model.execution, compiler_options=QUICK
    )
    best = searched.finished.tokens[0, : searched.finished.lengths[0]].tolist()
    if not best:
        raise ValueError(
            "inspect: no translation found, the model gives no token a probability; are its "
            "weights damaged or did its training diverge?"
        )
    targets = [best, *others]
    rows = batch([source_ids] * len(targets), targets, len(targets))
    run = jax.tree.map(np.asarray, _activations(model.params, arch, rows, model.execution))

    source = _side(model, "source", sentence, source_ids)
    target = _side(model, "target", model.target.decode(best), best)
    outputs = [
        _output(model.target, ids, logits_TV)
        for ids, logits_TV in zip(targets, run.logits_BTV, strict=True)
    ]
    own = _first(run, len(source_ids), len(best))
    aligned_by_TS = alignment.alignment_weights(own.cross.weights_BLNTS)[0]
    aligned = alignment.pairs(aligned_by_TS)
    return Trace(
        source=source,
        target=target,
        positions=positions.draw(model.params, arch, own, _POSITIONS),
        picture=_picture(model, source, target),
        run=own,
        aligned_by_TS=aligned_by_TS,
        aligned_A2=np.array(aligned, np.int32).reshape(-1, 2),
        output=outputs[0],
        beam=searched,
        tree=grow(searched, model.target),
        reference=_side(model, "target", reference, others[0]) if others else None,
        reference_output=outputs[1] if others else None,
        arch=arch,
        languages=(model.experiment.data.source, model.experiment.data.target),
        parameters=sum(x.size for x in jax.tree.leaves(model.params)),
    )


_activations = jax.jit(activations, static_argnames=("arch", "execution"), compiler_options=QUICK)


def _encode(model: Translator, text: str, what: str) -> list[int]:
    """Ids of the sentence or the reference."""
    side = "source" if what == "sentence" else "target"
    tokenizer, length = getattr(model, side), f"{side}_length"
    limit = getattr(model.experiment.data, length)
    ids = tokenizer.encode(text)
    if len(ids) == 1:
        raise ValueError(f"inspect: the {what} is empty")
    if len(ids) > limit:
        raise ValueError(
            f"inspect: the {what} has {len(ids)} tokens, the model takes {limit}: make it shorter, "
            f"or load the model with a longer {length}"
        )
    return ids


def _first(run: Activations, source_pieces: int, target_pieces: int) -> Activations:
    """The first pair of a batch, without its padding."""
    S, T = slice(source_pieces), slice(target_pieces)

    def crop(a: Attention, queries: slice, keys: slice) -> Attention:
        matrices = (a.products_BLNTS, a.added_BLNTS, a.scores_BLNTS, a.weights_BLNTS)
        return Attention(
            *(x[:1, :, :, queries, keys] for x in matrices), a.mask_BTS[:1, queries, keys]
        )

    return Activations(
        encoder=crop(run.encoder, S, S),
        decoder=crop(run.decoder, T, T),
        cross=crop(run.cross, T, S),
        one_matrix_BLNSS=run.one_matrix_BLNSS[:1, :, :, S, S],
        two_matrices_BLNSS=run.two_matrices_BLNSS[:1, :, :, S, S],
        encoder_norms_BPS=run.encoder_norms_BPS[:1, :, S],
        decoder_norms_BPT=run.decoder_norms_BPT[:1, :, T],
        logits_BTV=run.logits_BTV[:1, T],
    )


def _table(model: Translator, side: str) -> tuple[str, np.ndarray, Tokenizer]:
    """A side's embedding table, its name, and the tokenizer that names its rows."""
    i, tokenizer = (0, model.source) if side == "source" else (1, model.target)
    name = transformer.table_names(model.arch)[i]
    return name, np.asarray(model.params["tables"][name], np.float32), tokenizer


def _names(tokenizer: Tokenizer, ids_TC: np.ndarray) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(tokenizer.id_to_piece(row.tolist())) for row in ids_TC)


def _side(model: Translator, side: str, text: str, ids: list[int]) -> Side:
    _, table_VD, tokenizer = _table(model, side)
    near_TC, cosines_TC = space.neighbours(np.array(ids), table_VD, _NEIGHBOURS)
    return Side(
        ids_T=np.array(ids, np.int32),
        embedded_TD=table_VD[ids],
        near_TC=near_TC.astype(np.int32),
        cosines_TC=cosines_TC,
        text=text,
        pieces=tuple(tokenizer.id_to_piece(ids)),
        near=_names(tokenizer, near_TC),
    )


def _output(tokenizer: Tokenizer, ids: list[int], logits_TV: np.ndarray) -> Output:
    logits_TV = logits_TV[: len(ids)].astype(np.float64)
    log_probs_TV = logits_TV - np.logaddexp.reduce(logits_TV, axis=1, keepdims=True)
    best_TC = np.argsort(-log_probs_TV, axis=1, kind="stable")[:, :_CANDIDATES]
    return Output(
        ids_TC=best_TC.astype(np.int32),
        log_probs_TC=np.take_along_axis(log_probs_TV, best_TC, axis=1),
        log_probs_T=log_probs_TV[np.arange(len(ids)), ids],
        entropy_T=-(np.exp(log_probs_TV) * log_probs_TV).sum(axis=1) / np.log(2),
        names=_names(tokenizer, best_TC),
    )


def _picture(model: Translator, source: Side, target: Side) -> space.Picture:
    """The pieces of both sentences and their nearest neighbours, each row of a table once."""
    points: dict[tuple[str, int], tuple[str, str, bool]] = {}
    rows = []
    for whose, own in ((0, True), (1, True), (0, False), (1, False)):
        side = ("source", "target")[whose]
        name, table_VD, tokenizer = _table(model, side)
        sentence = (source, target)[whose]
        ids = sentence.ids_T if own else sentence.near_TC[:, :_DRAWN].ravel()
        for i in ids.tolist():
            if (name, i) not in points:
                points[name, i] = (tokenizer.id_to_piece([i])[0], side, own)
                rows.append(table_VD[i])
    points_P2, share_2 = space.principal_axes(units(np.stack(rows)))
    names, sides, in_sentence = zip(*points.values(), strict=True)
    return space.Picture(points_P2, share_2, names, sides, in_sentence)
