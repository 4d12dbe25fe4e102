"""Which architectures and ways of computing make no sense, each with the sentence that says why."""

import itertools
from collections.abc import Iterator

from tfm import ranges
from tfm.attention import kernels
from tfm.positions import schemes
from tfm.transformer.config import Architecture, Execution, head_width, table_names
from tfm.values import Values


def validate(
    arch: Architecture, execution: Execution | None = None, *, vocabularies: bool = True
) -> None:
    """Accepts an architecture that can be built, and an execution that can compute it.

    Args:
      vocabularies: whether their sizes must be known; they are not before there are tokenizers.

    Raises:
      ValueError: a field out of its range, or sizes or variants that do not go together; the
        message names both.
    """
    check = Values("validate")
    check.instance(Architecture, arch=arch)
    if execution is not None:
        check.instance(Execution, execution=execution)
    ranges.check(arch)
    problems = itertools.chain(_sizes(arch, vocabularies), _variants(arch))
    if execution is not None:
        ranges.check(execution)
        problems = itertools.chain(problems, _kernels(arch, execution))
    # One at a time: later checks rely on what earlier ones have made sure of.
    for problem in problems:
        raise ValueError(problem)


def attention_needs(
    arch: Architecture, *, self_attention: bool = True, training: bool = True
) -> set[str]:
    """What softmax attention must do besides its formula; see ``kernels.choose``."""
    found: set[str] = set()
    if self_attention and arch.positions.acts_on in ("bias", "relative"):
        found.add(arch.positions.acts_on)
    if arch.soft_cap:
        found.add("soft_cap")
    if training and arch.attention_dropout:
        found.add("dropout")
    return found


def _sizes(arch: Architecture, vocabularies: bool) -> Iterator[str]:
    if not arch.head_dim and arch.d_model % arch.heads:
        yield f"d_model {arch.d_model} is not a multiple of heads {arch.heads}"
    if arch.heads % (arch.kv_heads or arch.heads):
        yield f"heads {arch.heads} is not a multiple of kv_heads {arch.kv_heads}"
    if vocabularies and 0 in (arch.source_vocab, arch.target_vocab):
        yield "source_vocab and target_vocab must be set before parameters are declared"
    names = table_names(arch)
    shared = "source" in names[1:] and arch.source_vocab != arch.target_vocab
    if shared:
        yield (
            f"tie={arch.tie!r} needs one vocabulary, got source {arch.source_vocab} and target "
            f"{arch.target_vocab}: set tokenizer.joint, or tie less"
        )
    for field in ("closed_rows", "unwritten"):
        if vocabularies and max(getattr(arch, field), default=0) >= arch.target_vocab:
            yield (
                f"{field} {getattr(arch, field)}: ids of the target vocabulary are less than "
                f"target_vocab {arch.target_vocab}"
            )
    if vocabularies and arch.decoder_start >= arch.target_vocab:
        yield (
            f"decoder_start {arch.decoder_start} is no id of the target vocabulary, which has "
            f"target_vocab {arch.target_vocab}"
        )
    if problem := arch.positions.problem(arch.d_model, arch.heads, head_width(arch)):
        yield f"positions={schemes.name(arch.positions)!r}: {problem}"


def _variants(arch: Architecture) -> Iterator[str]:
    acts_on = arch.positions.acts_on
    pair = f"attention={arch.attention!r} with positions={schemes.name(arch.positions)!r}"
    if arch.attention == "linear" and acts_on in ("bias", "relative"):
        yield (
            f"{pair}: linear attention never forms the score of a query and a key that this "
            "scheme adds to; use sinusoidal, learned, none or rotary"
        )
    if arch.attention == "linear" and (arch.soft_cap or arch.attention_dropout):
        field = "soft_cap" if arch.soft_cap else "attention_dropout"
        yield (
            f"attention='linear' with {field}={getattr(arch, field)}: linear attention forms "
            "neither scores nor weights for it to act on; set it to 0"
        )
    if arch.attention_scale and {arch.attention, arch.cross_attention} & {"additive", "linear"}:
        field = "attention" if arch.attention in ("additive", "linear") else "cross_attention"
        yield (
            f"attention_scale {arch.attention_scale} with {field}={getattr(arch, field)!r}: it has "
            "no products of queries and keys to scale; set attention_scale to 0"
        )
    if arch.attention_scale and acts_on == "relative":
        yield (
            f"attention_scale {arch.attention_scale} with positions="
            f"{schemes.name(arch.positions)!r}: its terms are defined with the scale 1/sqrt(H); "
            "set attention_scale to 0"
        )
    if arch.final_norm is False and arch.norm_placement == "pre":
        yield (
            "final_norm=False with norm_placement='pre': the output of a pre-norm stack is a sum "
            "that nothing normalises; set final_norm to None"
        )
    if arch.attention == "additive" and acts_on in ("rotation", "relative"):
        yield (
            f"{pair}: additive attention scores by a tanh of q + k, and this scheme is defined "
            "through the product of q and k; use sinusoidal, learned, none, t5 or alibi"
        )


def _kernels(arch: Architecture, execution: Execution) -> Iterator[str]:
    """What a kernel that is asked for by name cannot compute."""
    kernel = execution.implementation
    if kernel not in ("cudnn", "splash"):
        return
    for field in ("attention", "cross_attention"):
        if getattr(arch, field) != "softmax":
            yield (
                f"implementation={kernel!r} with {field}={getattr(arch, field)!r}: the kernel "
                "computes softmax attention over whole rows; set implementation to 'auto'"
            )
    if kernel == "cudnn" and execution.dtype == "float32":
        yield (
            "implementation='cudnn' with dtype='float32': cudnn computes in bfloat16 or "
            "float16; set dtype to 'auto' or implementation to 'auto'"
        )
    if reason := kernels.unable(kernel, attention_needs(arch)):
        yield (
            f"implementation={kernel!r} with positions={schemes.name(arch.positions)!r}, soft_cap="
            f"{arch.soft_cap}, attention_dropout={arch.attention_dropout}: {reason}; set "
            "implementation to 'auto'"
        )
