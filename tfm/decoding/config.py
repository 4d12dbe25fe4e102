"""How to decode: a frozen dataclass, static in every compiled search."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tfm.ranges import SEED, Range

_EXPONENT = Range(least=-10, most=10)  # a length to this power must be finite in float32


@dataclass(frozen=True)
class Decode:
    """Settings of a search.

    Attributes:
      strategy: ``beam`` finds likely translations, ``sample`` draws them at random.
      beam_size: beam: hypotheses a sentence; 1 is greedy search.
      length_penalty: beam: alpha of the definition that ``length_norm`` names.
      length_norm: beam: ``power`` divides by length^alpha, ``gnmt`` by ((5+length)/6)^alpha
        (Wu 2016, eq. 14).
      samples: sample: translations drawn of each sentence.
      temperature: sample: divides the logits; below 1 draws likely tokens more often.
      top_k: sample: draw each token among the k likeliest (Fan 2018); 0 is among all.
      min_p: sample: draw each token among those at least this times as likely as the likeliest
        (Nguyen 2024); 0 is among all.
      seed: sample: of the draws. The same text and seed give the same translations.
      max_length_factor: at most this times the number of source tokens are written ...
      max_length_offset: ... plus this.
      batch_size: sentences translated together.
    """

    strategy: Literal["beam", "sample"] = "beam"
    beam_size: Annotated[int, Range(least=1)] = 5
    length_penalty: Annotated[float, _EXPONENT] = 1.0
    length_norm: Literal["power", "gnmt"] = "gnmt"
    samples: Annotated[int, Range(least=1)] = 1
    temperature: Annotated[float, Range(least=1e-4, most=1e4)] = 1.0
    top_k: Annotated[int, Range(least=0, note="0 draws among all")] = 0
    min_p: Annotated[float, Range(least=0, most=1, note="0 draws among all")] = 0.0
    seed: Annotated[int, SEED] = 0
    max_length_factor: Annotated[float, Range(least=0, most=1000)] = 2.0
    max_length_offset: Annotated[int, Range(least=0, most=1_000_000)] = 10
    batch_size: Annotated[int, Range(least=1)] = 64

    @property
    def hypotheses(self) -> int:
        """R, the hypotheses that a search keeps of each sentence."""
        return self.beam_size if self.strategy == "beam" else self.samples
