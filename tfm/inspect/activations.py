"""The model run once more, layer by layer, with everything it computes on the way kept.

The numbers come from the model's own functions; a test holds them against ``transformer.forward``.
"""

import dataclasses
from collections.abc import Sequence

import flax.struct
import jax
import numpy as np

from tfm import embeddings, transformer
from tfm.data.tokenizer import BOS
from tfm.inspect.stack import Attention, own_row, run_stack
from tfm.params import Tree


@flax.struct.dataclass
class Record:
    """All that happened to B pairs of sentences.

    Attributes:
      encoder, decoder, cross: attention of the source to itself, of the target to itself and of
        the target to the source.
      one_matrix_BLNSS, two_matrices_BLNSS: in the encoder, x Wq Wqᵀ xᵀ and x Wq Wkᵀ xᵀ: q·k
        without offsets and positions, if one matrix served for both, and as it is.
      encoder_norms_BPS, decoder_norms_BPT: length of each token's vector in the residual stream,
        before the first layer and after every sublayer.
      logits_BTV: scores of the next piece.
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
) -> dict[str, np.ndarray]:
    """Pairs of ids, each ending with eos, as a batch with one pair a row.

    Args:
      rows: in the batch; those left over are padding.
      multiple: widths are rounded up to a power of two times this.
    """
    out = {}
    for name, sentences in (("source", sources), ("target", targets)):
        longest = -(-max(map(len, sentences)) // multiple)
        width = multiple << (longest - 1).bit_length() if multiple > 1 else longest
        ids = np.zeros((rows, width), np.int32)
        for row, sentence in zip(ids, sentences, strict=False):
            row[: len(sentence)] = sentence
        out[f"{name}_segments"] = (ids != 0).astype(np.int32)
        # Padding stands at place 0: a learned table may end before the row does.
        out[f"{name}_positions"] = np.where(ids != 0, np.arange(width, dtype=np.int32), 0)
        out[name] = ids
    out["target_input"] = np.pad(out["target"], ((0, 0), (1, 0)), constant_values=BOS)[:, :-1]
    return out


def record(params: Tree, c: transformer.Config, batch: dict[str, jax.Array]) -> Record:
    """Teacher forcing, as ``transformer.forward`` does it, of one pair a row."""
    c = dataclasses.replace(c, implementation="xla")  # the kernels keep no weights
    source, target = batch["source_segments"], batch["target_segments"]
    source_table, target_table, _ = transformer.table_names(c)
    encoder, decoder = params["encoder"], params["decoder"]

    places_BS, places_BT = batch["source_positions"], batch["target_positions"]
    x_BSD = transformer.embed_tokens(params, c, source_table, "encoder", batch["source"], places_BS)
    sight = own_row(encoder, c, source, places_BS, causal=False)
    memory_BSD, read = run_stack(encoder, c, x_BSD, sight)

    x_BTD = transformer.embed_tokens(
        params, c, target_table, "decoder", batch["target_input"], places_BT
    )
    sight = own_row(decoder, c, target, places_BT, causal=True)
    across = transformer.across(target, source)
    hidden_BTD, written = run_stack(decoder, c, x_BTD, sight, memory_BSD, across)
    return Record(
        encoder=read["self"],
        decoder=written["self"],
        cross=written["cross"],
        one_matrix_BLNSS=read["one_matrix"],
        two_matrices_BLNSS=read["two_matrices"],
        encoder_norms_BPS=read["norms"],
        decoder_norms_BPT=written["norms"],
        logits_BTV=embeddings.logits(hidden_BTD, transformer.output_table(params, c)),
    )
