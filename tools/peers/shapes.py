"""The sizes that are measured, a batch of them, and the floating-point operations they need."""

from dataclasses import dataclass

import numpy as np

from tfm.data.tokenizer import BOS


@dataclass(frozen=True)
class Shape:
    """A model and a batch of it.

    Attributes:
      width: D; heads are D / 64. layers: on each side. d_ff: F. vocab: V, of each language.
      batch: B, sentences. length: S = T, tokens on each side, no padding among them.
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
        """N; 64 wide each."""
        return self.width // 64


TRAIN = (Shape(256, 3, 1024, 8000, 64, 32), Shape(512, 6, 2048, 8000, 32, 32))
DECODE = (Shape(256, 3, 1024, 8000, 64, 24), Shape(512, 6, 2048, 8000, 64, 24))
SCALING = Shape(512, 2, 2048, 8000, 16, 64)  # every size is a multiple of 8 devices


def random_batch(shape: Shape) -> dict[str, np.ndarray]:
    """One sentence a row, no padding."""
    rng = np.random.default_rng(0)
    size = (shape.batch, shape.length)
    source, target = rng.integers(4, shape.vocab, (2, *size), dtype=np.int32)
    batch = {"source": source, "target": target, "target_input": np.roll(target, 1, axis=1)}
    batch["target_input"][:, 0] = BOS
    for side in ("source", "target"):
        batch[f"{side}_segments"] = np.ones(size, np.int32)
        places = np.broadcast_to(np.arange(size[1], dtype=np.int32), size)
        batch[f"{side}_positions"] = places
    return batch


def training_flops(shape: Shape) -> float:
    """Of one update: the matrix products forward, twice that backward; nothing else counts."""
    D, F, T = shape.width, shape.d_ff, shape.length
    attention = 8 * D * D + 4 * T * D  # four projections; scores and their product with the values
    feed_forward = 4 * D * F
    layer_pair = 3 * attention + 2 * feed_forward
    token = shape.layers * layer_pair + 2 * D * shape.vocab
    return 3.0 * shape.batch * T * token


def decoding_flops(shape: Shape, beam: int) -> float:
    """Of encoding a batch and ``length`` cached steps of beam search."""
    D, F, T = shape.width, shape.d_ff, shape.length
    source_token = 12 * D * D + 4 * T * D + 4 * D * F  # cross-attention's keys and values included
    # A step looks back on T/2 tokens on the mean.
    target_token = 12 * D * D + 4 * T * D * 1.5 + 4 * D * F
    encode = T * shape.layers * source_token
    decode = T * beam * (shape.layers * target_token + 2 * D * shape.vocab)
    return float(shape.batch * (encode + decode))
