"""How to decode: a frozen dataclass, static in every compiled search."""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

from tfm.ranges import SEED, Range, shown

_EXPONENT = Range(least=-10, most=10)  # a length to this power must be finite in float32


class Of(NamedTuple):
    """Marks a field that acts in some strategies only."""

    strategies: tuple[str, ...]


_BEAMS = Of(("beam", "diverse", "mbr"))
_DRAWS = Of(("sample", "mbr"))


@dataclass(frozen=True)
class Decode:
    """Settings of a search. Those that begin with names of strategies act in these alone.

    Attributes:
      strategy: ``beam`` finds likely translations, ``sample`` draws them at random, ``diverse`` is
        a beam of groups that avoid each other's tokens (Vijayakumar 2018), ``mbr`` takes of many
        translations the one most like all others (Kumar 2004, Eikema 2022).
      beam_size: beam, diverse: hypotheses a sentence; 1 is greedy search.
      length_penalty: beam, diverse: alpha of the definition that ``length_norm`` names.
      length_norm: beam, diverse: ``power`` divides by length^alpha, ``gnmt`` by
        ((5+length)/6)^alpha (Wu 2016, eq. 14).
      coverage_penalty: beam, diverse: beta of the penalty for source tokens that no target token
        attends to (Wu 2016, eq. 14), added to the scores of finished hypotheses; 0 is off.
      early_stopping: beam, diverse: search of a sentence ends when as many hypotheses as the beam
        has are finished (``first``), when moreover no live hypothesis can become better than the
        worst of them (``best``), or at the sentence's longest length (``never``).
      groups: diverse: of equal size; they share ``beam_size``.
      diversity: diverse: what a token loses for each hypothesis of the groups before that has
        just written it.
      samples: sample: translations drawn of each sentence.
      temperature: sample: divides the logits; below 1 draws likely tokens more often.
      top_k: sample: draw each token among the k likeliest (Fan 2018); 0 is among all.
      top_p: sample: draw each token among the fewest likeliest that have this probability together
        (Holtzman 2020); 1 is among all.
      epsilon: sample: draw each token among those of at least this probability (Hewitt 2022); 0 is
        among all.
      min_p: sample: draw each token among those at least this times as likely as the likeliest
        (Nguyen 2024); 0 is among all.
      seed: sample: of the draws. The same text and seed give the same translations.
      mbr_over: mbr: the translations it takes one of: those of ``sample`` or of ``beam``.
      mbr_utility: mbr: how two translations are compared, sentence by sentence.
      repetition_penalty: multiplies the log-probability of each token that a hypothesis has written
        before (Keskar 2019, on log-probabilities, which are never positive); 1 is off.
      no_repeat_ngram: no sequence of so many tokens is written twice; 0 is off.
      suppress: ids of tokens that are never written.
      unk: whether the token of unknown pieces may be written.
      ensemble_average: of what the mean is taken where several models translate together.
      prefix_bias: what each token of a given beginning of the translation gains while a hypothesis
        follows it; 0 forces the beginning.
      min_length: at least so many tokens are written, if a sentence may have them; the end of
        sentence counts.
      max_length: at most so many tokens are written; 0 sets no limit but those that follow.
      max_length_factor: at most this times the number of source tokens are written ...
      max_length_offset: ... plus this.
      guard: whether a translation that is empty, loops, runs away or is in the wrong script is
        found and decoded again, or left as it is.
      batch_size: sentences translated together.
    """

    strategy: Literal["beam", "sample", "diverse", "mbr"] = "beam"
    beam_size: Annotated[int, Range(least=1), _BEAMS] = 5
    length_penalty: Annotated[float, _EXPONENT, _BEAMS] = 1.0
    length_norm: Annotated[Literal["power", "gnmt"], _BEAMS] = "gnmt"
    coverage_penalty: Annotated[float, Range(least=0, most=1000, note="0 is off"), _BEAMS] = 0.0
    early_stopping: Annotated[Literal["first", "best", "never"], _BEAMS] = "first"
    groups: Annotated[int, Range(least=1), Of(("diverse",))] = 1
    diversity: Annotated[float, Range(least=0, most=1000), Of(("diverse",))] = 0.5
    samples: Annotated[int, Range(least=1), _DRAWS] = 1
    temperature: Annotated[float, Range(least=1e-4, most=1e4), _DRAWS] = 1.0
    top_k: Annotated[int, Range(least=0, note="0 draws among all"), _DRAWS] = 0
    top_p: Annotated[float, Range(above=0, most=1, note="1 draws among all"), _DRAWS] = 1.0
    epsilon: Annotated[float, Range(least=0, below=1, note="0 draws among all"), _DRAWS] = 0.0
    min_p: Annotated[float, Range(least=0, most=1, note="0 draws among all"), _DRAWS] = 0.0
    seed: Annotated[int, SEED, _DRAWS] = 0
    mbr_over: Annotated[Literal["sample", "beam"], Of(("mbr",))] = "sample"
    mbr_utility: Annotated[Literal["chrf", "bleu"], Of(("mbr",))] = "chrf"
    repetition_penalty: Annotated[float, Range(least=1, most=1000, note="1 is off")] = 1.0
    no_repeat_ngram: Annotated[int, Range(least=0, most=1000, note="0 is off")] = 0
    suppress: tuple[Annotated[int, Range(least=0)], ...] = ()
    unk: bool = False
    ensemble_average: Literal["probability", "log_probability"] = "probability"
    prefix_bias: Annotated[float, Range(least=0, most=1000, note="0 forces it")] = 0.0
    min_length: Annotated[int, Range(least=0)] = 0
    max_length: Annotated[int, Range(least=0, note="0 sets no limit")] = 0
    max_length_factor: Annotated[float, Range(least=0, most=1000)] = 2.0
    max_length_offset: Annotated[int, Range(least=0, most=1_000_000)] = 10
    guard: Literal["on", "off"] = "on"
    batch_size: Annotated[int, Range(least=1)] = 64

    @property
    def search(self) -> Literal["beam", "sample", "diverse"]:
        """The strategy that finds hypotheses: that of the candidates, if one is chosen by MBR."""
        return self.mbr_over if self.strategy == "mbr" else self.strategy

    @property
    def width(self) -> Literal["beam_size", "samples"]:
        """The field that says how many hypotheses a search keeps."""
        return "samples" if self.search == "sample" else "beam_size"

    @property
    def hypotheses(self) -> int:
        """R, the hypotheses that a search keeps of each sentence."""
        return getattr(self, self.width)


def check(decode: Decode, given: typing.Collection[str] = ()) -> None:
    """Refuses settings that do not go together.

    Args:
      given: fields that someone has just asked for; one that does not act in the strategy is an
        error, whereas a run's own settings may hold fields of several strategies.

    Raises:
      ValueError: with the fields, and what to change.
    """
    if decode.search == "diverse" and decode.beam_size % decode.groups:
        raise ValueError(
            f"decode.groups {decode.groups}: must divide decode.beam_size {decode.beam_size}; "
            "groups have equal size"
        )
    if 0 < decode.max_length < decode.min_length:
        raise ValueError(
            f"decode.min_length {decode.min_length}: must not be above decode.max_length "
            f"{decode.max_length}"
        )
    active = {decode.strategy, decode.search}
    hints: dict[str, Any] = typing.get_type_hints(Decode, include_extras=True)
    for field in dataclasses.fields(Decode):
        marks = getattr(hints[field.name], "__metadata__", ())
        of = next((mark.strategies for mark in marks if isinstance(mark, Of)), None)
        if field.name in given and of is not None and not active & set(of):
            raise ValueError(
                f"decode.{field.name} {shown(getattr(decode, field.name))}: acts in strategy "
                f"{' or '.join(of)}, not in {decode.strategy}; leave it out or set strategy"
            )
