"""The model and batch sizes to measure, a random batch, and the FLOPs they need."""

from dataclasses import dataclass

import numpy as np

from tfm.data.tokenizer import BOS
from tfm.transformer import Batch, single_sentences


@dataclass(frozen=True)
class Shape:
    """The sizes of a model and of a batch.

    Attributes:
      width: D; there are D / 64 heads.
      layers: of the encoder, and of the decoder.
      d_ff: F.
      vocab: V, of each language.
      batch: B, sentences.
      length: S = T, tokens of each sentence; none is padding.
    """

    width: int
    layers: int
    d_ff: int
    vocab: int
    batch: int
    length: int

    def __str__(self) -> str:
        return (
            f"d={self.width} {self.layers}+{self.layers} ff={self.d_ff} V={self.vocab} "
            f"batch {self.batch}x{self.length}"
        )

    @property
    def heads(self) -> int:
        """N; each head is 64 wide."""
        return self.width // 64


TRAIN = (Shape(256, 3, 1024, 8000, 64, 32), Shape(512, 6, 2048, 8000, 32, 32))
DECODE = (Shape(256, 3, 1024, 8000, 64, 24), Shape(512, 6, 2048, 8000, 64, 24))
SCALING = Shape(512, 2, 2048, 8000, 16, 64)  # 8 devices divide every size


def random_batch(shape: Shape) -> Batch:
    """Random token ids, one sentence per row, no padding."""
    rng = np.random.default_rng(0)
    source, target = rng.integers(4, shape.vocab, (2, shape.batch, shape.length), dtype=np.int32)
    return single_sentences(source, target, BOS)


def training_flops(shape: Shape) -> float:
    """FLOPs of an update's matrix products: those of the forward pass, and twice that backward."""
    D, F, T = shape.width, shape.d_ff, shape.length
    attention = 8 * D * D + 4 * T * D  # four projections; scores, and weights times values
    feed_forward = 4 * D * F
    layer_pair = 3 * attention + 2 * feed_forward
    token = shape.layers * layer_pair + 2 * D * shape.vocab
    return 3.0 * shape.batch * T * token


def decoding_flops(shape: Shape, beam: int) -> float:
    """FLOPs of encoding a batch and of ``length`` steps of beam search with a KV cache."""
    D, F, T = shape.width, shape.d_ff, shape.length
    source_token = 12 * D * D + 4 * T * D + 4 * D * F  # with cross-attention's keys and values
    # On average a step attends to T/2 target tokens and to T source tokens.
    target_token = 12 * D * D + 4 * T * D * 1.5 + 4 * D * F
    encode = T * shape.layers * source_token
    decode = T * beam * (shape.layers * target_token + 2 * D * shape.vocab)
    return float(shape.batch * (encode + decode))
