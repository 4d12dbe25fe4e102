"""PyTorch's ``nn.Transformer``, eager and through ``torch.compile``."""

import contextlib
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from peers.measure import Side, cores, warm_up
from peers.shapes import Shape, training_flops
from tfm.transformer import Batch

MATRIX = "matrix product (torch)"


class Model(nn.Module):
    """Embedding tables, ``nn.Transformer`` and tied logits: the same parameters as tfm's model.

    It does less than tfm: it has no position encodings, no padding and segment masks, no gradient
    clipping, no metrics and no check for finite gradients.
    """

    def __init__(self, shape: Shape, inner_dropout: float) -> None:
        super().__init__()
        self.source = nn.Embedding(shape.vocab, shape.width)
        self.target = nn.Embedding(shape.vocab, shape.width)
        for table in (self.source, self.target):
            nn.init.normal_(table.weight, std=shape.width**-0.5)
        sizes = (shape.width, shape.heads, shape.layers, shape.layers, shape.d_ff)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nested tensors are for inference
            self.transformer = nn.Transformer(*sizes, 0.1, batch_first=True, norm_first=True)
        self.dropout = nn.Dropout(0.1)
        self.scale = shape.width**0.5
        mask = nn.Transformer.generate_square_subsequent_mask(shape.length)
        self.register_buffer("causal", mask)
        for module in self.transformer.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = inner_dropout
            elif isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
                module.dropout.p = inner_dropout

    def forward(
        self, source_BS: torch.Tensor, target_BT: torch.Tensor, labels_BT: torch.Tensor
    ) -> torch.Tensor:
        """The mean label-smoothed cross-entropy of a batch."""
        hidden_BTD = self.transformer(
            self.dropout(self.source(source_BS) * self.scale),
            self.dropout(self.target(target_BT) * self.scale),
            tgt_mask=self.causal,
            tgt_is_causal=True,
        )
        logits_BTV = functional.linear(hidden_BTD, self.target.weight)
        return functional.cross_entropy(
            logits_BTV.flatten(0, 1), labels_BT.flatten(), label_smoothing=0.1
        )


def device() -> torch.device:
    """The GPU if there is one, else the CPU, with as many threads as XLA uses."""
    torch.set_num_threads(cores())
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait() -> None:
    """Waits until the device has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def training(shape: Shape, batch: Batch, inner_dropout: float, compiled: bool) -> Side:
    """Adam updates on one batch: float32 on the CPU, bfloat16 autocast on a GPU."""
    where = device()
    model = Model(shape, inner_dropout).to(where).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    ids = (batch.source, batch.target_input, batch.target)
    tokens = [torch.from_numpy(np.asarray(x)).long().to(where) for x in ids]
    loss_of = torch.compile(model, dynamic=False) if compiled else model
    on_gpu = where.type == "cuda"

    def run() -> None:
        optimizer.zero_grad()
        precision = torch.autocast("cuda", torch.bfloat16) if on_gpu else contextlib.nullcontext()
        with precision:
            loss = loss_of(*tokens)
        loss.backward()
        optimizer.step()
        wait()

    first = warm_up(run)
    return Side(
        "torch compiled" if compiled else "torch eager",
        run,
        first if compiled else 0.0,
        shape.batch * shape.length,
        training_flops(shape),
        MATRIX,
    )


def matrix_product(m: int, k: int, n: int) -> Side:
    """A plain product [m,k] @ [k,n]: float32 on the CPU, bfloat16 on a GPU."""
    where = device()
    dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
    a = torch.ones((m, k), dtype=dtype, device=where)
    b = torch.ones((k, n), dtype=dtype, device=where)

    def run() -> None:
        torch.matmul(a, b)
        wait()

    warm_up(run)
    return Side(MATRIX, run, 0.0, 0, 2.0 * m * k * n)
