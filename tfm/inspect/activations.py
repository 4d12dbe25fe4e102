"""Everything the model computes for pairs of sentences: scores, weights and the residual stream.

The model's own layers are run, with their scores kept; nothing is computed a second way.
"""

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from tfm import transformer
from tfm.data.tokenizer import BOS
from tfm.params import Tree
from tfm.transformer import Architecture, Batch, Execution, LayerOutput
from tfm.transformer.scores import bilinear_scores


@flax.struct.dataclass
class Attention:
    """What one kind of attention computes, in L layers and N heads.

    Attributes:
      products_BLNTS, added_BLNTS, scores_BLNTS: see ``transformer.Scores``.
      weights_BLNTS: the weights of the values.
      mask_BTS: True = may attend.
    """

    products_BLNTS: jax.Array
    added_BLNTS: jax.Array
    scores_BLNTS: jax.Array
    weights_BLNTS: jax.Array
    mask_BTS: jax.Array


@flax.struct.dataclass
class Activations:
    """What the model computes for B pairs of sentences.

    Attributes:
      encoder, decoder, cross: self-attention of the source and of the target, and cross-attention.
      one_matrix_BLNSS, two_matrices_BLNSS: in the encoder, x Wq Wqᵀ xᵀ and x Wq Wkᵀ xᵀ: q·k
        without biases and positions, if one matrix served for both, and as it is.
      encoder_norms_BPS, decoder_norms_BPT: norm of each token's vector in the residual stream,
        before the first layer and after every sublayer.
      logits_BTV: of the next piece.
    """

    encoder: Attention
    decoder: Attention
    cross: Attention
    one_matrix_BLNSS: jax.Array
    two_matrices_BLNSS: jax.Array
    encoder_norms_BPS: jax.Array
    decoder_norms_BPT: jax.Array
    logits_BTV: jax.Array


def batch(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], rows: int, multiple: int = 1
) -> Batch:
    """Pairs of ids, each ending with eos, as a batch with one pair a row.

    Args:
      rows: of the batch; those beyond the pairs are padding.
      multiple: if above 1, widths are rounded up to a power of two times this.
    """
    sides = []
    for sentences in (sources, targets):
        longest = -(-max(map(len, sentences)) // multiple)
        width = multiple << (longest - 1).bit_length() if multiple > 1 else longest
        ids = np.zeros((rows, width), np.int32)
        for row, sentence in zip(ids, sentences, strict=False):
            row[: len(sentence)] = sentence
        sides.append(ids)
    return transformer.single_sentences(*sides, bos=BOS)


def activations(
    params: Tree, arch: Architecture, batch: Batch, execution: Execution = Execution()
) -> Activations:
    """Teacher forcing of one pair a row.

    Args:
      params: as trained or as inference reads them.
    """
    decoder = params["decoder"]
    if isinstance(decoder["layers"], list):  # stacked, one layer is compiled instead of all
        stacked = jax.tree.map(lambda *layer: jnp.stack(layer), *decoder["layers"])
        params = params | {"decoder": decoder | {"layers": stacked}}
    execution = Execution(lookup=execution.lookup, dtype=execution.dtype, unroll=1)
    run = transformer.activations(params, arch, batch, _keep, execution=execution)
    encoder, one_matrix, two_matrices = run.encoder["self"], *run.encoder["bilinear"]
    layers_second = lambda x_LB: x_LB.swapaxes(0, 1)  # noqa: E731
    masks = _masks(params, arch, batch)
    return Activations(
        encoder=Attention(*map(layers_second, encoder), mask_BTS=masks[0]),
        decoder=Attention(*map(layers_second, run.decoder["self"]), mask_BTS=masks[1]),
        cross=Attention(*map(layers_second, run.decoder["cross"]), mask_BTS=masks[2]),
        one_matrix_BLNSS=layers_second(one_matrix),
        two_matrices_BLNSS=layers_second(two_matrices),
        encoder_norms_BPS=_norms(run.encoder_input, run.encoder["norms"]),
        decoder_norms_BPT=_norms(run.decoder_input, run.decoder["norms"]),
        logits_BTV=transformer.logits(params, arch, run.hidden),
    )


def _keep(params: Tree, output: LayerOutput) -> dict[str, Any]:
    """What is kept of a layer; heads and positions follow B."""
    own, cross = output.self_attention, output.cross_attention
    kept = {
        "self": (*own.scores, own.weights),
        "norms": jnp.stack([_norm(x_BTD) for x_BTD in output.residual], axis=1),
    }
    if cross is not None:
        return kept | {"cross": (*cross.scores, cross.weights)}
    one, two = (
        bilinear_scores(params["self"], output.attention_input, "q", second) for second in "qk"
    )
    return kept | {"bilinear": (one, two)}


def _masks(params: Tree, arch: Architecture, batch: Batch) -> list[jax.Array]:
    """Which keys each query sees, [B,T,S]: of the encoder, the decoder, and between them."""
    contexts = [
        transformer.self_context(
            params[side], arch, segments, positions, causal=causal, keep_scores=True
        )
        for side, segments, positions, causal in (
            ("encoder", batch.source_segments, batch.source_positions, False),
            ("decoder", batch.target_segments, batch.target_positions, True),
        )
    ]
    segments = batch.target_segments, batch.source_segments
    contexts.append(transformer.cross_context(arch, *segments, keep_scores=True))
    return [context.mask[:, 0] for context in contexts]


def _norms(input_BTD: jax.Array, norms_LBPT: jax.Array) -> jax.Array:
    """Of the input, then of every sublayer's output: [B,P,T]."""
    L, B, P, T = norms_LBPT.shape
    rest = norms_LBPT.swapaxes(0, 1).reshape(B, L * P, T)
    return jnp.concatenate([_norm(input_BTD)[:, None], rest], axis=1)


def _norm(x_BTD: jax.Array) -> jax.Array:
    return jnp.linalg.norm(x_BTD.astype(jnp.float32), axis=-1)
