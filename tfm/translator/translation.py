"""A translation, and how those of the parts of a text become one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Translation:
    """One translation of a text.

    Attributes:
      text: the translation.
      log_prob: its natural-log probability, end of sentence included; -inf if search found none.
      score: what search ranks it by: ``log_prob`` after length normalisation.
      parts: (source, translation) of each part that a text too long for the model was split into;
        of any other text, the one pair.
      tokens: ids of each part's translation, end of sentence excluded.
      unmet: required phrases that it lacks and forbidden ones that it has, if any were given.
      guard: what was done about a bad translation, see ``guard``; "" if nothing.
    """

    text: str
    log_prob: float
    score: float
    parts: tuple[tuple[str, str], ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()
    unmet: tuple[str, ...] = ()
    guard: str = ""


def join(parts: list[list[Translation]], joiner: str) -> list[Translation]:
    """The k-th best of a text from the k-th bests of its parts."""
    if not parts:
        return [Translation("", 0.0, 0.0)]
    if len(parts) == 1:
        return parts[0]
    return [
        Translation(
            joiner.join(part.text for part in parts_k),
            sum(part.log_prob for part in parts_k),
            sum(part.score for part in parts_k),
            tuple(pair for part in parts_k for pair in part.parts),
            tuple(ids for part in parts_k for ids in part.tokens),
            tuple(phrase for part in parts_k for phrase in part.unmet),
            "; ".join(dict.fromkeys(part.guard for part in parts_k if part.guard)),
        )
        for parts_k in zip(*parts, strict=False)
    ]
