"""How to decode: a frozen dataclass, static in every compiled search."""

from dataclasses import dataclass
from typing import Literal


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
    beam_size: int = 5
    length_penalty: float = 1.0
    length_norm: Literal["power", "gnmt"] = "gnmt"
    samples: int = 1
    temperature: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int = 0
    max_length_factor: float = 2.0
    max_length_offset: int = 10
    batch_size: int = 64

    @property
    def hypotheses(self) -> int:
        """R, the hypotheses that a search keeps of each sentence."""
        return self.beam_size if self.strategy == "beam" else self.samples
