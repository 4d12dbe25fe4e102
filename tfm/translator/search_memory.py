"""Whether a search fits into memory, before it is compiled."""

import dataclasses
from collections.abc import Callable

from tfm import memory
from tfm.decoding import Decode
from tfm.transformer import Architecture
from tfm.transformer.config import head_width
from tfm.translator.programs import max_target_tokens


def search_bytes(
    arch: Architecture, decode: Decode, sentences: int, source_tokens: int, itemsize: int
) -> int:
    """About the least that ``programs.search`` takes besides the weights.

    These are the KV cache, the logits, and one layer's scores and mask; on a CPU XLA took between
    1.0 and 1.35 times as much.

    Args:
      sentences: B. source_tokens: S, padding included.
      itemsize: bytes of an activation.
    """
    B, S, R = sentences, source_tokens, decode.hypotheses
    T = max_target_tokens(arch, decode, S)
    N, K, H = arch.heads, arch.kv_heads or arch.heads, head_width(arch)
    cross = 2 * B * K * S * H * itemsize
    if arch.attention == "linear":  # a state [H,H] a head in place of keys and values
        own, scores = B * R * K * H * (H + 1) * 4, B * N * R * S * 4
    else:
        slots = T * R
        own, scores = 2 * B * K * slots * H * itemsize, B * N * R * slots * 4 + B * R * slots
    return arch.decoder_layers * (own + cross) + scores + B * R * arch.target_vocab * 4


def require(
    arch: Architecture,
    decode: Decode,
    sentences: int,
    source_tokens: int,
    itemsize: int,
    available: int | None,
) -> None:
    """Raises ValueError if a search needs more memory than there is, with the most that fits.

    Args:
      available: bytes; None if unknown.
    """

    def need(hypotheses: int, sentences: int) -> int:
        sized = dataclasses.replace(decode, beam_size=hypotheses, samples=hypotheses)
        return search_bytes(arch, sized, sentences, source_tokens, itemsize)

    R, B = decode.hypotheses, sentences
    if available is None or need(R, B) <= available:
        return
    field = decode.width
    hypotheses = _most(lambda n: need(n, B) <= available, R)
    batch = _most(lambda n: need(R, n) <= available, B)
    advice = [
        f"{name} to {most}" for name, most in ((field, hypotheses), ("batch_size", batch)) if most
    ] or ["max_length_factor or max_length_offset"]
    raise ValueError(
        f"decode.{field} {R}: searching {B} sentence(s) of {source_tokens} tokens needs at least "
        f"{memory.in_words(need(R, B))} of memory, where {memory.in_words(available)} are free: "
        f"lower {' or '.join(advice)}"
    )


def _most(fits: Callable[[int], bool], too_many: int) -> int:
    """The largest number below ``too_many`` that fits; 0 if none does."""
    low, high = 0, too_many
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
