"""Where pieces stand among each other: nearest neighbours, and a picture in two dimensions."""

import flax.struct
import numpy as np

from tfm.word2vec.vectors import units


def neighbours(
    ids: np.ndarray, table_VD: np.ndarray, count: int, skip: int = 4
) -> tuple[np.ndarray, np.ndarray]:
    """The pieces whose vectors point most nearly the same way.

    Args:
      ids: [T] pieces asked about.
      count: C, neighbours each; fewer if the table is smaller.
      skip: the first rows of the table, special ids, are nobody's neighbours.

    Returns:
      Their ids [T,C], nearest first, and cosines [T,C].
    """
    rows_VD = units(table_VD)
    cosines_TV = rows_VD[ids] @ rows_VD.T
    cosines_TV[:, :skip] = -np.inf
    cosines_TV[np.arange(len(ids)), ids] = -np.inf  # nobody is his own neighbour
    count = max(0, min(count, table_VD.shape[0] - skip - 1))
    near_TC = np.argsort(-cosines_TV, axis=1, kind="stable")[:, :count]
    return near_TC, np.take_along_axis(cosines_TV, near_TC, axis=1)


@flax.struct.dataclass
class Picture:
    """Points in the plane.

    Attributes:
      places_P2: where each point lies.
      share_2: the share of the points' variance along each of the two axes.
      names: the piece at each point.
      sides: "source" or "target": whose table it comes from.
      own: whether the sentence holds it; else it is a neighbour.
    """

    places_P2: np.ndarray
    share_2: np.ndarray
    names: tuple[str, ...] = flax.struct.field(pytree_node=False)
    sides: tuple[str, ...] = flax.struct.field(pytree_node=False)
    own: tuple[bool, ...] = flax.struct.field(pytree_node=False)


def principal_axes(x_PD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal component analysis (Pearson 1901): the plane along which the points differ most.

    Returns:
      Places [P,2], and the share of the variance along each axis [2].
    """
    centred = x_PD - x_PD.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    places, variance = np.zeros((len(x_PD), 2)), np.zeros(2)
    count = min(2, len(s))
    places[:, :count] = (u * s)[:, :count]
    variance[:count] = s[:count] ** 2 / max((s**2).sum(), 1e-12)
    return places, variance
