"""What a position scheme is: the questions that the model asks each of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import jax

from tfm.params import Tree
from tfm.positions.distances import Distances
from tfm.positions.terms import Relative

Rotation = Callable[[jax.Array], jax.Array]  # queries or keys [B,N,T,H] → the same shape


@dataclass(frozen=True)
class Scheme:
    """A position scheme with its hyperparameters; this base class is the one without positions.

    A scheme overrides the methods of what it acts on and inherits the rest, which do nothing. Its
    fields are its hyperparameters, so it is hashable and can be a static argument of ``jit``.

    Attributes:
      acts_on: "input" (vectors added to the embeddings), "rotation" (of queries and keys), "bias"
        (numbers added to the scaled scores, the same in every layer), "relative" (terms of scores
        and values that have parameters in every layer) or "nothing".
    """

    acts_on: ClassVar[Literal["input", "rotation", "bias", "relative", "nothing"]] = "nothing"

    def problem(self, d_model: int, heads: int, head_dim: int) -> str | None:
        """Why the scheme cannot be used in a model of these sizes; ``None`` if it can."""
        del d_model, heads, head_dim
        return None

    @property
    def longest(self) -> int | None:
        """The most positions a sentence may have; ``None`` if there is no limit."""
        return None

    def scaled(self, factor: float) -> "Scheme":
        """The scheme with positions divided by ``factor``, for longer sentences than in training.

        Raises:
          ValueError: the scheme has no such hyperparameter, or the factor is out of its range.
        """
        raise ValueError(
            f"rotary_scaling {factor}: the positions are {type(self).__name__}, not rotary; "
            "leave it out"
        )

    def side_params(self, d_model: int, heads: int) -> Tree | None:
        """Declares what all layers of one side (encoder or decoder) share."""
        del d_model, heads
        return None

    def layer_params(self, d_model: int, heads: int, head_dim: int) -> Tree | None:
        """Declares what every self-attention layer has for itself."""
        del d_model, heads, head_dim
        return None

    def input(self, params: Tree | None, positions_BT: jax.Array, d_model: int) -> jax.Array | None:
        """What is added to the scaled embeddings: [B,T,D] float32.

        Args:
          params: as declared by ``side_params``.
          positions_BT: position of each token in its sentence, from 0.
        """
        del params, positions_BT, d_model
        return None

    def rotation(self, positions_BT: jax.Array) -> Rotation | None:
        """A function that rotates queries or keys [B,N,T,H] at these positions."""
        del positions_BT
        return None

    def frequencies(self, head_dim: int) -> jax.Array | None:
        """Of a rotation: radians by which each channel pair turns a position, [H/2]."""
        del head_dim
        return None

    def bias(
        self,
        params: Tree | None,
        distances: Distances,
        positions_BT: jax.Array,
        *,
        heads: int,
        bidirectional: bool,
    ) -> jax.Array | None:
        """What is added to the scaled scores of every layer: [1 or B,N,T,S] float32.

        Args:
          params: as declared by ``side_params``.
          distances: from every query to every key.
          positions_BT: position of each query in its sentence.
          bidirectional: True in the encoder; False in the decoder, where no query sees a later key.
        """
        del params, distances, positions_BT, heads, bidirectional
        return None

    def relative(self, params: Tree | None, distances: Distances) -> Relative | None:
        """Terms that one layer adds to its scores and values.

        Args:
          params: as declared by ``layer_params``.
        """
        del params, distances
        return None


class NoPositions(Scheme):
    """No positions: the order of tokens is known by the causal mask alone (Haviv 2022)."""
