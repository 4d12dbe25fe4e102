"""Which configurations make no sense, each with the sentence that says why."""

import itertools
from collections.abc import Iterator

from tfm import positions
from tfm.attention import kernels
from tfm.transformer.config import ROTARY, Config, head_width, table_names


def check(c: Config, vocabularies: bool = True) -> None:
    """Passes a configuration that can be built.

    Args:
      vocabularies: ask for their sizes, which nobody knows before there are tokenizers.

    Raises:
      ValueError: sizes or variants that do not go together; the message names both.
    """
    # One by one: what comes later relies on what was looked at before.
    for problem in itertools.chain(_fields(c), _sizes(c, vocabularies), _variants(c)):
        raise ValueError(problem)


def _fields(c: Config) -> Iterator[str]:
    """What makes no sense by itself."""
    least = dict.fromkeys(("d_model", "heads", "d_ff", "encoder_layers", "decoder_layers"), 1)
    least |= {"kv_heads": 0, "head_dim": 0}  # 0 is filled in
    if c.positions == "learned":
        least["max_length"] = 1
    if c.positions == "shaw":
        least["relative_clip"] = 1
    for field, bound in least.items():
        if getattr(c, field) < bound:
            yield f"{field} {getattr(c, field)} must be {bound} or more"
    for field in ("dropout", "attention_dropout", "activation_dropout"):
        if not 0 <= getattr(c, field) < 1:
            yield f"{field} {getattr(c, field)} must be less than 1 and not negative; 0 is off"
    if c.window < 1:
        yield f"window {c.window}: local attention sees at least one place to a side, say 1 or more"
    if c.soft_cap < 0:
        yield f"soft_cap {c.soft_cap} may not be negative; 0 is off"
    if not c.rotary_scaling > 0:  # no number either
        yield f"rotary_scaling {c.rotary_scaling} must be positive; places are divided by it"
    if c.positions in ROTARY and c.rotary_base <= 1:
        yield f"rotary_base {c.rotary_base} must be more than 1; it spreads the wavelengths"
    for bidirectional in (True, False) if c.positions == "t5" else ():
        buckets, farthest = c.relative_buckets, c.relative_max_distance
        if problem := positions.t5_problem(buckets, farthest, bidirectional):
            yield f"relative_buckets {buckets}, relative_max_distance {farthest}: {problem}"


def _sizes(c: Config, vocabularies: bool) -> Iterator[str]:
    if not c.head_dim and c.d_model % c.heads:
        yield f"d_model {c.d_model} is not a multiple of heads {c.heads}"
    if c.heads % (c.kv_heads or c.heads):
        yield f"heads {c.heads} is not a multiple of kv_heads {c.kv_heads}"
    if vocabularies and 0 in (c.source_vocab, c.target_vocab):
        yield "source_vocab and target_vocab must be set before parameters are declared"
    names = table_names(c)
    shared = "source" in names[1:] and c.source_vocab != c.target_vocab
    if shared:
        yield (
            f"tie={c.tie!r} needs one vocabulary, got source {c.source_vocab} and target "
            f"{c.target_vocab}: set tokenizer.joint, or tie less"
        )
    if c.positions in (*ROTARY, "transformer_xl", "sinusoidal"):
        width = head_width(c) if c.positions in ROTARY else c.d_model
        if width % 2:
            name = "head width" if c.positions in ROTARY else "d_model"
            yield f"positions={c.positions!r} turn channels in pairs: {name} {width} must be even"


def _variants(c: Config) -> Iterator[str]:
    pair = f"attention={c.attention!r} with positions={c.positions!r}"
    if c.attention == "linear" and c.positions in ("shaw", "t5", "alibi", "transformer_xl"):
        yield (
            f"{pair}: linear attention never forms the score of a query and a key that this "
            "scheme adds to; take sinusoidal, learned, none or rotary"
        )
    if c.attention == "linear" and (c.soft_cap or c.attention_dropout):
        field = "soft_cap" if c.soft_cap else "attention_dropout"
        yield (
            f"attention='linear' with {field}={getattr(c, field)}: linear attention forms neither "
            "scores nor weights for it to act on; set it to 0"
        )
    if c.attention == "additive" and c.positions in (*ROTARY, "shaw", "transformer_xl"):
        yield (
            f"{pair}: additive attention scores by a tanh of q + k, and this scheme is defined "
            "through the product of q and k; take sinusoidal, learned, none, t5 or alibi"
        )
    if c.implementation in ("cudnn", "splash"):
        for field in ("attention", "cross_attention"):
            if getattr(c, field) != "softmax":
                yield (
                    f"implementation={c.implementation!r} with {field}={getattr(c, field)!r}: the "
                    "kernel computes softmax attention over the whole row; set it to 'auto'"
                )
        if c.implementation == "cudnn" and c.dtype == "float32":
            yield (
                "implementation='cudnn' with dtype='float32': cudnn computes in bfloat16 or "
                "float16; set dtype to 'auto' or implementation to 'auto'"
            )
        reason = kernels.unable(c.implementation, needs(c))
        if reason:
            yield (
                f"implementation={c.implementation!r} with positions={c.positions!r}, soft_cap="
                f"{c.soft_cap}, attention_dropout={c.attention_dropout}: {reason}; set "
                "implementation to 'auto'"
            )


def needs(c: Config, *, self_attention: bool = True, training: bool = True) -> set[str]:
    """What softmax attention must do besides its formula; see ``kernels.choose``."""
    found = set()
    if self_attention and c.positions in ("t5", "alibi"):
        found.add("bias")
    if self_attention and c.positions in ("shaw", "transformer_xl"):
        found.add("relative")
    if c.soft_cap:
        found.add("soft_cap")
    if training and c.attention_dropout:
        found.add("dropout")
    return found
